//! Which repositories someone may see: what the edge has decided, in a form that the registry can
//! list by.
//!
//! Whoever asks for the catalog shall see what they may pull and nothing else, in pages that are
//! full; so the one who lists must know. So must the one who looks in every repository for a blob to
//! mount, or knowing a digest would be enough to read it. It travels as a header: items separated by commas, each a
//! `+` (seen) or a `-` (hidden) and a [`RepositoryPattern`]. The first that matches decides; what
//! none matches is hidden.
//!
//! ```text
//! X-Tidegate-Catalog: -team/secret/**,+team/**,+public/**
//! ```

use std::fmt;
use std::str::FromStr;

use crate::pattern::PatternError;
use crate::{RepositoryName, RepositoryPattern};

/// The header that says it. Without it everything is seen; the edge alone sets it, and removes what
/// a client sends under this name.
pub const HEADER: &str = "x-tidegate-catalog";

/// The longest text that is read: some 250 of the longest patterns, some thousand of the usual.
pub const LEN_MAX: usize = 64 << 10;

/// What hides everything, written out: an empty header might get lost.
const NOTHING: &str = "-**";

/// Which repositories are seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Visibility(Vec<Item>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Item {
    seen: bool,
    pattern: RepositoryPattern,
}

impl Visibility {
    /// Returns what hides everything.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Returns whether a repository is seen.
    pub fn shows(&self, repository: &RepositoryName) -> bool {
        let decides = |item: &&Item| item.pattern.matches(repository, None);
        self.0.iter().find(decides).is_some_and(|item| item.seen)
    }

    /// Returns whether a repository below `parent` may be seen; where not, nobody has to look.
    pub fn may_show_below(&self, parent: &RepositoryName) -> bool {
        for Item { seen, pattern } in &self.0 {
            if *seen && pattern.may_match_below(parent) {
                return true;
            }
            if !*seen && pattern.matches_all_below(parent) {
                return false;
            }
        }
        false
    }
}

impl FromIterator<(bool, RepositoryPattern)> for Visibility {
    /// Gathers patterns, each with whether what it matches, and none before it did, is seen.
    ///
    /// The name of the user must have been put into them: where it still stands for one, the whole
    /// is not read.
    fn from_iter<I: IntoIterator<Item = (bool, RepositoryPattern)>>(items: I) -> Self {
        let item = |(seen, pattern)| Item { seen, pattern };
        Self(items.into_iter().map(item).collect())
    }
}

impl fmt::Display for Visibility {
    /// Writes the header's value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(NOTHING);
        }
        for (index, Item { seen, pattern }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let sign = if *seen { '+' } else { '-' };
            write!(f, "{separator}{sign}{pattern}")?;
        }
        Ok(())
    }
}

impl FromStr for Visibility {
    type Err = VisibilityError;

    fn from_str(text: &str) -> Result<Self, VisibilityError> {
        if text.len() > LEN_MAX {
            return Err(VisibilityError::TooLong);
        }
        let item = |text: &str| {
            let (seen, pattern) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
                (Some(pattern), _) => (true, pattern),
                (_, Some(pattern)) => (false, pattern),
                (None, None) => return Err(VisibilityError::Sign),
            };
            let pattern: RepositoryPattern = pattern.parse()?;
            if pattern.names_user() {
                return Err(VisibilityError::User);
            }
            Ok(Item { seen, pattern })
        };
        Ok(Self(text.split(',').map(item).collect::<Result<_, _>>()?))
    }
}

/// Why a text does not say what is seen. Then nothing is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VisibilityError {
    /// A pattern in it is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// An item begins with neither.
    #[error("each item must begin with '+' or '-'")]
    Sign,
    /// It is longer than is read.
    #[error("is longer than {LEN_MAX} bytes")]
    TooLong,
    /// `${user}` stands in it, and who that is nobody says.
    #[error("a pattern names no user but stands for one")]
    User,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Visibility {
        text.parse().unwrap()
    }

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_match_decides_and_no_match_hides() {
        let visibility = read("-team/secret/**,+team/**,+public/*");
        for (repository, expected) in [
            ("team/app", true),
            ("team/secret/app", false),
            ("team", false),
            ("public/a", true),
            ("public/a/b", false),
            ("other", false),
        ] {
            assert_eq!(
                visibility.shows(&name(repository)),
                expected,
                "{repository}"
            );
        }
        assert!(!Visibility::nothing().shows(&name("a")));
        assert_eq!(Visibility::nothing().to_string(), "-**");
        assert!(!read("-**").shows(&name("a")));
        assert!(read("+**").shows(&name("a/b")));
    }

    #[test]
    fn where_nothing_can_be_seen_nobody_looks() {
        let visibility = read("-team/secret/**,+team/**,+public/*,+x/**/app,-y/*,+y/a/b");
        for (parent, expected) in [
            ("team", true),
            ("team/a/b", true),
            ("team/secret", false),
            ("team/secret/a", false),
            ("public", true),
            ("public/a", false),
            ("x", true),
            ("x/a/b/c", true),
            ("y", true),
            ("y/a", true),
            ("y/a/b", false),
            ("z", false),
        ] {
            assert_eq!(
                visibility.may_show_below(&name(parent)),
                expected,
                "{parent}"
            );
        }
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        for (text, expected) in [
            ("", VisibilityError::Sign),
            ("a", VisibilityError::Sign),
            ("+a,", VisibilityError::Sign),
            ("+a, +b", VisibilityError::Sign),
            (" +a", VisibilityError::Sign),
            ("+", VisibilityError::Pattern(PatternError::Empty)),
            ("+a//b", VisibilityError::Pattern(PatternError::Empty)),
            ("+A", VisibilityError::Pattern(PatternError::UpperCase)),
            (
                "++a",
                VisibilityError::Pattern(PatternError::Character('+')),
            ),
            (
                "+a b",
                VisibilityError::Pattern(PatternError::Character(' ')),
            ),
            ("+home/${user}/**", VisibilityError::User),
        ] {
            assert_eq!(text.parse::<Visibility>(), Err(expected), "{text:?}");
        }
        let longest = vec!["+a"; LEN_MAX / 3].join(",");
        assert!(longest.len() <= LEN_MAX && longest.parse::<Visibility>().is_ok());
        assert_eq!(
            format!("{longest},+a").parse::<Visibility>(),
            Err(VisibilityError::TooLong)
        );
    }

    fn pattern() -> impl Strategy<Value = RepositoryPattern> {
        let segment = prop::sample::select(vec!["a", "b", "ab", "*", "a*", "*b", "**", "-"]);
        prop::collection::vec(segment, 1..5)
            .prop_map(|segments| segments.join("/").parse().unwrap())
    }

    fn repository() -> impl Strategy<Value = RepositoryName> {
        let segment = prop::sample::select(vec!["a", "b", "ab", "aab", "c"]);
        prop::collection::vec(segment, 1..6)
            .prop_map(|segments| segments.join("/").parse().unwrap())
    }

    fn visibility() -> impl Strategy<Value = Visibility> {
        let items = prop::collection::vec((any::<bool>(), pattern()), 0..6);
        items.prop_map(Visibility::from_iter)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_what_it_was(
            visibility in visibility(),
            repository in repository(),
        ) {
            let text = visibility.to_string();
            prop_assert!(http::HeaderValue::from_str(&text).is_ok());
            let read: Visibility = text.parse().unwrap();
            prop_assert_eq!(read.shows(&repository), visibility.shows(&repository));
            prop_assert_eq!(read.to_string(), text);
        }

        #[test]
        fn nothing_that_is_seen_is_below_where_nobody_looks(
            visibility in visibility(),
            repository in repository(),
        ) {
            if visibility.shows(&repository) {
                for (at, _) in repository.as_str().match_indices('/') {
                    let parent = name(repository.as_str().get(..at).unwrap());
                    prop_assert!(visibility.may_show_below(&parent), "{} in {}", repository, visibility);
                }
            }
        }

        #[test]
        fn no_text_panics_and_what_is_read_hides_what_it_does_not_name(text in "[-+a*/,$ ]{0,20}|\\PC{0,20}") {
            if let Ok(visibility) = text.parse::<Visibility>() {
                prop_assert!(!visibility.shows(&name("zzz")) || text.contains('*'));
            }
        }
    }
}
