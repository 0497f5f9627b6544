//! `<name>` in the spec: what a repository is called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name; distribution's limit, so that a tree can move back.
const LEN_MAX: usize = 255;

/// A repository's name: path components of lower-case letters, digits and single separators.
///
/// Its grammar (spec, "Pulling manifests") leaves no room for `..`, an empty component or a leading
/// `_`, so a name can be used as a relative path.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct RepositoryName(Box<str>);

impl RepositoryName {
    /// Returns the name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Visits the path components from left to right.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = RepositoryNameError;

    fn from_str(text: &str) -> Result<Self, RepositoryNameError> {
        if text.len() > LEN_MAX {
            return Err(RepositoryNameError::TooLong);
        }
        if !text.split('/').all(is_component) {
            return Err(RepositoryNameError::Malformed);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for RepositoryName {
    type Error = RepositoryNameError;

    fn try_from(text: String) -> Result<Self, RepositoryNameError> {
        text.parse()
    }
}

impl From<RepositoryName> for String {
    fn from(name: RepositoryName) -> Self {
        name.0.into()
    }
}

/// Returns whether `text` is one component: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
pub fn is_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    // Between the runs of letters and digits stand the separators; at both ends nothing may.
    let separators_hold = text
        .split(is_alphanumeric)
        .filter(|separator| !separator.is_empty())
        .all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        });
    separators_hold && text.starts_with(is_alphanumeric) && text.ends_with(is_alphanumeric)
}

/// Why a text is no repository name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RepositoryNameError {
    /// A component breaks the grammar.
    #[error(
        "repository name must be lower-case letters and digits, separated by '.', '_', '-' or '/'"
    )]
    Malformed,
    /// It has more than 255 characters.
    #[error("repository name is longer than {LEN_MAX} characters")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar_of_the_spec() {
        for name in [
            "a",
            "a/b/c",
            "a.b",
            "a_b",
            "a__b",
            "a---b",
            "library/ubuntu",
            "0/1-2.3_4",
            "a/blobs/uploads",
        ] {
            assert!(name.parse::<RepositoryName>().is_ok(), "{name}");
        }
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "_a",
            "a_",
            "a___b",
            "a..b",
            "-a",
            "a-",
            ".",
            "..",
            "a/../b",
            "a._b",
            "a:b",
            "a b",
            "a\n",
            "é",
            "a%b",
            "a/_catalog",
        ] {
            assert_eq!(
                name.parse::<RepositoryName>(),
                Err(RepositoryNameError::Malformed),
                "{name}"
            );
        }
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
        assert_eq!(
            "a".repeat(256).parse::<RepositoryName>(),
            Err(RepositoryNameError::TooLong)
        );
    }
}
