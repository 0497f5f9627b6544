//! Lists in pages (spec, "Listing Tags").

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Page {
    /// At most so many.
    pub(crate) size_max: Option<usize>,
    /// Only what comes after this, which need not exist.
    pub(crate) last: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Listing {
    /// The names, in order.
    pub(crate) names: Vec<String>,
    /// Whether there are more after the last one.
    pub(crate) more: bool,
}

impl Listing {
    /// Adds a name, or notes that the page is full; returns whether there is room for another try.
    pub(super) fn offer(&mut self, page: &Page, name: impl Into<String>) -> bool {
        self.more = page.size_max.is_some_and(|max| self.names.len() >= max);
        if !self.more {
            self.names.push(name.into());
        }
        !self.more
    }
}
