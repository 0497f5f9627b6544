//! Lines of the log that anyone on the network can cause: so many in a while, the rest counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many lines of one kind are written in one while.
const LINES: u32 = 20;
const WHILE: Duration = Duration::from_secs(10);

/// One kind of line.
#[derive(Debug, Default)]
pub(crate) struct News(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

/// That a line may be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Worth {
    /// How many like it were not since the last one that was; `None` is none.
    pub(crate) unsaid: Option<u64>,
}

impl News {
    /// Returns whether a line may be written now.
    pub(crate) fn worth(&self) -> Option<Worth> {
        self.worth_at(Instant::now())
    }

    fn worth_at(&self, now: Instant) -> Option<Worth> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = |since| now.saturating_duration_since(since) >= WHILE;
        if window.since.is_none_or(old) {
            window.since = Some(now);
            window.said = 0;
        }
        if window.said == LINES {
            window.unsaid += 1;
            return None;
        }
        window.said += 1;
        let unsaid = std::mem::take(&mut window.unsaid);
        Some(Worth {
            unsaid: (unsaid > 0).then_some(unsaid),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_number() {
        let news = News::default();
        let start = Instant::now();
        let said = (0..1000).filter_map(|_| news.worth_at(start)).count();
        assert_eq!(said, 20);
        let later = start + WHILE;
        let first = news.worth_at(later).unwrap();
        assert_eq!(first.unsaid, Some(980));
        assert_eq!(news.worth_at(later).unwrap().unsaid, None);
    }
}
