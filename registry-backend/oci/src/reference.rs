//! `<reference>` in the spec: a tag or a digest.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// The longest tag (spec, "Pulling manifests").
const TAG_LEN_MAX: usize = 128;

/// A tag: letters, digits, `_`, `.` and `-`, not starting with the last two.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tag(Box<str>);

impl Tag {
    /// Returns the tag as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let goes_on = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if starts && goes_on && text.len() <= TAG_LEN_MAX {
            Ok(Self(text.into()))
        } else {
            Err(TagError)
        }
    }
}

/// Says that a text is no tag.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "tag must be up to {TAG_LEN_MAX} letters, digits, '_', '.' or '-', not starting with '.' or '-'"
)]
pub struct TagError;

/// What a manifest is asked for by.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Reference {
    /// By content.
    Digest(Digest),
    /// By name.
    Tag(Tag),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Tag(tag) => tag.fmt(f),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// A colon makes it a digest: no tag can hold one.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            Ok(Self::Tag(text.parse()?))
        }
    }
}

/// Why a text is no reference.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReferenceError {
    /// It has a colon, yet is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// It has no colon, yet is no tag.
    #[error(transparent)]
    Tag(#[from] TagError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_tag_or_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
        for tag in ["latest", "v1.0", "_x", "A-b_c.d", &"t".repeat(128)] {
            assert!(matches!(tag.parse(), Ok(Reference::Tag(_))), "{tag}");
        }
        for text in ["", ".x", "-x", "a/b", "a b", "é", &"t".repeat(129)] {
            assert_eq!(text.parse::<Reference>(), Err(TagError.into()), "{text}");
        }
        assert_eq!(
            "sha256:baddigeststring".parse::<Reference>(),
            Err(DigestError::Malformed.into())
        );
    }
}
