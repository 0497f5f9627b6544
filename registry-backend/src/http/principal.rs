//! Who is asking: the name that the edge has verified.

use http::HeaderMap;

/// The header that the edge alone sets; it removes what a client sends under this name.
const HEADER: &str = "x-tidegate-user";

/// A verified user, or nobody in particular.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Principal<'a>(Option<&'a str>);

impl<'a> Principal<'a> {
    /// Reads what the edge says.
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let name = headers.get(HEADER).and_then(|name| name.to_str().ok());
        Self(name.filter(|name| !name.is_empty()))
    }

    /// Returns the name for the log.
    pub(super) fn name(self) -> Option<&'a str> {
        self.0
    }
}
