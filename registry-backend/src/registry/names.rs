//! Names of a folder's children, in order and compact: a folder may have a million of them.

/// What a name costs beside its bytes.
const SPAN_BYTES: usize = size_of::<Span>();

/// The first names of many, in the order of their bytes: as many as fit in a given number of bytes.
///
/// They are collected from a folder that is read in any order: whenever there are twice as many as
/// will be kept, the later half is dropped. So a folder of any size is sorted in bounded memory, part
/// by part, at the cost of reading it anew for each part.
#[derive(Debug)]
pub(super) struct Names {
    /// All names, one after the other.
    text: String,
    spans: Vec<Span>,
    /// How much is kept in the end.
    bytes_max: usize,
    /// The last name that was kept when others were dropped: all of those come after it.
    cut_after: Option<Box<str>>,
}

/// Where a name is.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: u32,
    len: u32,
}

impl Span {
    fn of(self, text: &str) -> &str {
        let begin = self.begin as usize;
        text.get(begin..begin + self.len as usize)
            .unwrap_or_default()
    }
}

impl Names {
    /// Begins with none.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            text: String::new(),
            spans: Vec::new(),
            bytes_max,
            cut_after: None,
        }
    }

    /// Offers a name, in any order.
    pub(super) fn add(&mut self, name: &str) {
        if self.cut_after.as_deref().is_some_and(|last| name > last) {
            return;
        }
        if self.size_bytes() + name.len() + SPAN_BYTES > 2 * self.bytes_max {
            self.sort();
        }
        self.push(name);
    }

    fn push(&mut self, name: &str) {
        let at = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        self.spans.push(Span {
            begin: at(self.text.len()),
            len: at(name.len()),
        });
        self.text.push_str(name);
    }

    /// Brings the names into order, and drops those for which there is no room.
    pub(super) fn sort(&mut self) {
        let text = std::mem::take(&mut self.text);
        let mut spans = std::mem::take(&mut self.spans);
        spans.sort_unstable_by(|a, b| a.of(&text).cmp(b.of(&text)));
        self.text.reserve_exact(text.len().min(self.bytes_max));
        for span in spans {
            let name = span.of(&text);
            // One is always kept, or whoever goes on after it would never get further.
            let is_full = self.size_bytes() + name.len() + SPAN_BYTES > self.bytes_max;
            if is_full && let Some(last) = self.last() {
                self.cut_after = Some(last.into());
                return;
            }
            self.push(name);
        }
    }

    /// Returns whether names were dropped, which all come after those that are here.
    pub(super) fn is_cut(&self) -> bool {
        self.cut_after.is_some()
    }

    /// Returns a name by its place.
    pub(super) fn get(&self, index: usize) -> Option<&str> {
        self.spans.get(index).map(|span| span.of(&self.text))
    }

    /// Returns how many names there are up to `last`, once they are in order.
    pub(super) fn count_to(&self, last: &str) -> usize {
        self.spans
            .partition_point(|span| span.of(&self.text) <= last)
    }

    /// Returns the name in the last place.
    pub(super) fn last(&self) -> Option<&str> {
        self.get(self.spans.len().checked_sub(1)?)
    }

    /// Returns how much memory the names take.
    pub(super) fn size_bytes(&self) -> usize {
        self.text.len() + self.spans.len() * SPAN_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(names: &Names) -> Vec<String> {
        (0..)
            .map_while(|index| names.get(index).map(str::to_owned))
            .collect()
    }

    #[test]
    fn the_first_are_kept_in_order_in_whatever_order_they_come() {
        let mut sorted: Vec<String> = (0..5000).map(|number| format!("v{number}")).collect();
        sorted.sort_unstable();
        // Every 1777th, round and round: each comes once.
        let mixed = || (0..sorted.len()).map(|at| sorted[at * 1777 % sorted.len()].as_str());
        for bytes_max in [1, 100, 1000, 100_000] {
            let mut names = Names::new(bytes_max);
            for name in mixed() {
                names.add(name);
                let most = 2 * bytes_max.max(SPAN_BYTES + 5);
                assert!(
                    names.size_bytes() <= most,
                    "{} > {most}",
                    names.size_bytes()
                );
            }
            names.sort();
            let kept = all(&names);
            assert_eq!(kept, sorted[..kept.len()], "{bytes_max}");
            assert!(!kept.is_empty());
            assert_eq!(names.is_cut(), kept.len() < sorted.len());
            assert_eq!(names.last(), kept.last().map(String::as_str));
            let next = sorted
                .get(kept.len())
                .map_or(0, |name| name.len() + SPAN_BYTES);
            assert!(
                next == 0 || names.size_bytes() + next > bytes_max,
                "there was room"
            );
        }
    }

    #[test]
    fn nothing_is_in_order() {
        let mut names = Names::new(10);
        names.sort();
        assert_eq!(
            (names.last(), names.is_cut(), names.size_bytes()),
            (None, false, 0)
        );
    }
}
