//! Who is asking, as the edge has verified, and what they may see, as it has decided.

use http::HeaderMap;
use oci::{Visibility, visibility};

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

/// Reads which repositories the one who asks may see; without the header, all. What cannot be read
/// shows nothing.
pub(super) fn visibility(registry: Option<&str>, headers: &HeaderMap) -> Option<Visibility> {
    let mut values = headers.get_all(visibility::HEADER).iter();
    let value = values.next()?;
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    Some(text.unwrap_or_default().parse().unwrap_or_else(|error| {
        tracing::error!(
            registry,
            error = &error as &dyn std::error::Error,
            "the edge says in no known way what may be seen: nothing is"
        );
        Visibility::nothing()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_shows_nothing() {
        let read = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(visibility::HEADER, value.to_vec().try_into().unwrap());
            }
            visibility(None, &headers).map(|visible| visible.to_string())
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[b"+a"]).as_deref(), Some("+a"));
        for values in [
            &[&b""[..]][..],
            &[b"a"],
            &[b"+a, +b"],
            &[b"+\xc3\xa9"],
            &[b"+a", b"+b"],
            &[b"+${user}"],
        ] {
            assert_eq!(read(values).as_deref(), Some("-**"), "{values:?}");
        }
    }
}
