//! Lists in pages (spec, "Listing Tags").

/// Which part of a list is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Page {
    /// At most so many names.
    pub(crate) size_max: Option<usize>,
    /// Names that take no more than so many bytes as JSON; but one at least.
    pub(crate) bytes_max: usize,
    /// Only what comes after this, which need not exist.
    pub(crate) last: Option<String>,
    /// Only what comes up to this, itself included, which need not exist.
    pub(crate) until: Option<String>,
}

impl Default for Page {
    /// All of it.
    fn default() -> Self {
        Self {
            size_max: None,
            bytes_max: usize::MAX,
            last: None,
            until: None,
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Listing {
    /// The names, in order.
    pub(crate) names: Vec<String>,
    /// How many bytes they are as JSON.
    pub(crate) bytes: usize,
    /// Whether there are more after the last one.
    pub(crate) more: bool,
    /// The name after which the next request goes on, where this one asked for a number of names and
    /// there are more. It may come after those that are here: those in between belong to this answer,
    /// too, but did not fit in the page.
    pub(crate) end: Option<String>,
}

impl Listing {
    /// Adds a name, or notes that the page is full; returns whether there is room for another try.
    pub(super) fn offer(&mut self, page: &Page, name: &str) -> bool {
        let bytes = self.bytes.saturating_add(json_bytes(name));
        let is_full = page.size_max.is_some_and(|max| self.names.len() >= max);
        self.more = is_full || (bytes > page.bytes_max && !self.names.is_empty());
        if !self.more {
            self.names.push(name.to_owned());
            self.bytes = bytes;
        }
        !self.more
    }
}

/// Returns how many bytes a name takes in a list: no name has a character that JSON would escape.
pub(super) fn json_bytes(name: &str) -> usize {
    name.len() + "\"\",".len()
}
