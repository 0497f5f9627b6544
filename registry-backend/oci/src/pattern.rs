//! Which repositories a rule is about: a glob over whole path segments.

use std::fmt;
use std::str::FromStr;

use crate::RepositoryName;
use crate::repository::is_component;

/// As long as the longest repository name: what is longer matches nothing.
const LEN_MAX: usize = 255;

/// What stands for the name of the user who asks.
const USER: &str = "${user}";

/// A glob over a repository's path segments.
///
/// - `app` is that segment and no other;
/// - `*` stands for any run of characters within a segment, an empty one too: `app-*`, `*`;
/// - `**`, alone in its segment, stands for any number of segments; at the end for one at least, so
///   that `public/**` is everything below `public`, and not `public` itself;
/// - `${user}` stands for the name of the user who asks. A name that is no path segment (see
///   [`is_component`]) has no repository: it cannot reach into another's by what is written in it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RepositoryPattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Segment {
    /// `**`
    Any,
    /// Pieces of text and what stands between them.
    One(Box<[Piece]>),
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Piece {
    Star,
    Text(Box<str>),
    User,
}

impl RepositoryPattern {
    /// Returns whether `repository` is meant; `user` is who asks, where that is known.
    pub fn matches(&self, repository: &RepositoryName, user: Option<&str>) -> bool {
        let segments: Vec<&str> = repository.components().collect();
        self.matches_segments(&segments, user)
    }

    fn matches_segments(&self, segments: &[&str], user: Option<&str>) -> bool {
        let pattern = &self.segments;
        let (mut at, mut seen) = (0, 0);
        // Where to go on from when what follows the last `**` does not fit.
        let mut retry: Option<(usize, usize)> = None;
        while seen < segments.len() {
            match pattern.get(at) {
                // Nothing follows, so it takes all that is left, which is one segment at least.
                Some(Segment::Any) if at + 1 == pattern.len() => return true,
                Some(Segment::Any) => {
                    retry = Some((at, seen));
                    at += 1;
                    continue;
                }
                Some(Segment::One(pieces)) => {
                    let fits = |text: &&str| fits(pieces, text, user);
                    if segments.get(seen).is_some_and(fits) {
                        (at, seen) = (at + 1, seen + 1);
                        continue;
                    }
                }
                None => {}
            }
            let Some((any, from)) = retry else {
                return false;
            };
            retry = Some((any, from + 1));
            (at, seen) = (any + 1, from + 1);
        }
        at == pattern.len()
    }

    /// Returns whether some repository below `parent` could match; `${user}` is nobody.
    pub fn may_match_below(&self, parent: &RepositoryName) -> bool {
        self.reached_by(parent).any(|at| at < self.segments.len())
    }

    /// Returns whether every repository below `parent` matches; `${user}` is nobody.
    pub fn matches_all_below(&self, parent: &RepositoryName) -> bool {
        let last = self.segments.len().saturating_sub(1);
        self.segments.last() == Some(&Segment::Any) && self.reached_by(parent).any(|at| at == last)
    }

    /// Visits the places where matching can go on after all segments of `parent`.
    fn reached_by(&self, parent: &RepositoryName) -> impl Iterator<Item = usize> {
        let places = self.segments.len() + 1;
        let mut reached = vec![false; places];
        reached.iter_mut().take(1).for_each(|first| *first = true);
        for text in parent.components() {
            self.pass_any(&mut reached);
            let mut next = vec![false; places];
            for (at, segment) in self.segments.iter().enumerate() {
                let to = match segment {
                    Segment::Any => at,
                    Segment::One(pieces) if fits(pieces, text, None) => at + 1,
                    Segment::One(_) => continue,
                };
                if reached.get(at) == Some(&true)
                    && let Some(to) = next.get_mut(to)
                {
                    *to = true;
                }
            }
            reached = next;
        }
        self.pass_any(&mut reached);
        reached
            .into_iter()
            .enumerate()
            .filter_map(|(at, reached)| reached.then_some(at))
    }

    /// Adds the places behind each `**` that is reached, unless nothing follows it: it stands for no
    /// segment, too, but not at the end.
    fn pass_any(&self, reached: &mut [bool]) {
        for (at, segment) in self.segments.iter().enumerate() {
            let is_last = at + 1 == self.segments.len();
            if *segment == Segment::Any
                && !is_last
                && reached.get(at) == Some(&true)
                && let Some(next) = reached.get_mut(at + 1)
            {
                *next = true;
            }
        }
    }

    /// Returns whether `${user}` stands in it.
    pub fn names_user(&self) -> bool {
        self.text.contains(USER)
    }

    /// Returns the pattern with the user's name put in; `None` where there is none that a path could
    /// hold, so that it matches nothing.
    pub fn for_user(&self, user: Option<&str>) -> Option<Self> {
        if !self.names_user() {
            return Some(self.clone());
        }
        let user = user.filter(|user| is_component(user))?;
        self.text.replace(USER, user).parse().ok()
    }

    /// Returns the pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Returns whether a segment's text fits the pieces of a pattern's.
fn fits(pieces: &[Piece], text: &str, user: Option<&str>) -> bool {
    let (mut at, mut rest) = (0, text);
    let mut retry: Option<(usize, &str)> = None;
    loop {
        let next = match pieces.get(at) {
            Some(Piece::Star) => {
                retry = Some((at, rest));
                at += 1;
                continue;
            }
            Some(Piece::Text(piece)) => rest.strip_prefix(&**piece),
            Some(Piece::User) => user
                .filter(|user| is_component(user))
                .and_then(|user| rest.strip_prefix(user)),
            None if rest.is_empty() => return true,
            None => None,
        };
        if let Some(next) = next {
            (at, rest) = (at + 1, next);
            continue;
        }
        let Some((star, from)) = retry else {
            return false;
        };
        let mut characters = from.chars();
        if characters.next().is_none() {
            return false;
        }
        retry = Some((star, characters.as_str()));
        (at, rest) = (star + 1, characters.as_str());
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RepositoryPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > LEN_MAX {
            return Err(PatternError::TooLong);
        }
        let segments: Result<Box<[Segment]>, PatternError> =
            text.split('/').map(parse_segment).collect();
        Ok(Self {
            text: text.into(),
            segments: segments?,
        })
    }
}

fn parse_segment(text: &str) -> Result<Segment, PatternError> {
    if text == "**" {
        return Ok(Segment::Any);
    }
    if text.is_empty() {
        return Err(PatternError::Empty);
    }
    if text.contains("**") {
        return Err(PatternError::DoubleStar);
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix('*') {
            pieces.push(Piece::Star);
            rest = after;
        } else if let Some(after) = rest.strip_prefix(USER) {
            pieces.push(Piece::User);
            rest = after;
        } else if is_name_character(first) {
            let end = rest.find(|c| !is_name_character(c)).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            pieces.push(Piece::Text(piece.into()));
            rest = after;
        } else {
            return Err(if first.is_ascii_uppercase() {
                PatternError::UpperCase
            } else {
                PatternError::Character(first)
            });
        }
    }
    Ok(Segment::One(pieces.into()))
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-')
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// No repository has this character in its name.
    #[error("{0:?} stands in no repository's name")]
    Character(char),
    /// `a**`
    #[error("\"**\" must stand alone between slashes")]
    DoubleStar,
    /// `a//b`, `/a`, `a/`
    #[error("a segment between slashes is empty")]
    Empty,
    /// It is longer than any name.
    #[error("is longer than any repository's name ({LEN_MAX} characters)")]
    TooLong,
    /// It would match nothing.
    #[error("repositories' names are lower-case")]
    UpperCase,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, repository: &str, user: Option<&str>) -> bool {
        let pattern: RepositoryPattern = pattern.parse().unwrap();
        pattern.matches(&repository.parse().unwrap(), user)
    }

    #[test]
    fn segments_are_matched_whole() {
        for (pattern, repository, expected) in [
            ("app", "app", true),
            ("app", "apps", false),
            ("app", "app/x", false),
            ("app", "x/app", false),
            ("*", "app", true),
            ("*", "app/x", false),
            ("app-*", "app-1", true),
            ("app-*", "app", false),
            ("*-app", "my-app", true),
            ("a*b*c", "aXbXc".to_ascii_lowercase().as_str(), true),
            ("a*b*c", "axcxb", false),
            ("*/*", "a/b", true),
            ("*/*", "a", false),
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("public/**", "public/a", true),
            ("public/**", "public/a/b", true),
            ("public/**", "public", false),
            ("public/**", "publicity/a", false),
            ("**/app", "app", true),
            ("**/app", "a/b/app", true),
            ("**/app", "a/apps", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b", false),
            ("a/**/b/**", "a/x/b/y", true),
            ("a/**/b/**", "a/x/b", false),
            ("a/**/b/c", "a/b/b/c", true),
        ] {
            assert_eq!(
                matches(pattern, repository, None),
                expected,
                "{pattern} {repository}"
            );
        }
    }

    #[test]
    fn the_user_has_repositories_of_the_same_name_only() {
        for (pattern, repository, user, expected) in [
            ("home/${user}/**", "home/alice/app", Some("alice"), true),
            ("home/${user}/**", "home/bob/app", Some("alice"), false),
            ("home/${user}/**", "home/alice/app", None, false),
            ("${user}-*", "alice-x", Some("alice"), true),
            ("home/${user}/**", "home/a/b/c", Some("a/b"), false),
            ("home/${user}/**", "home/alice/app", Some("*"), false),
            ("home/${user}/**", "home/alice/app", Some("Alice"), false),
            ("home/${user}/**", "home/alice/app", Some(""), false),
            ("home/${user}", "home/..", Some(".."), false),
        ] {
            if repository.parse::<RepositoryName>().is_err() {
                continue;
            }
            assert_eq!(
                matches(pattern, repository, user),
                expected,
                "{pattern} {repository} {user:?}"
            );
        }
        let pattern: RepositoryPattern = "home/${user}/**".parse().unwrap();
        assert_eq!(
            pattern.for_user(Some("alice")).unwrap().as_str(),
            "home/alice/**"
        );
        for user in [None, Some("*"), Some("**"), Some("a/b"), Some("")] {
            assert_eq!(pattern.for_user(user), None, "{user:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, expected) in [
            ("", PatternError::Empty),
            ("/a", PatternError::Empty),
            ("a//b", PatternError::Empty),
            ("a/", PatternError::Empty),
            ("a**", PatternError::DoubleStar),
            ("***", PatternError::DoubleStar),
            ("Team/*", PatternError::UpperCase),
            ("a b", PatternError::Character(' ')),
            ("${group}", PatternError::Character('$')),
            ("a?", PatternError::Character('?')),
        ] {
            assert_eq!(
                text.parse::<RepositoryPattern>().unwrap_err(),
                expected,
                "{text}"
            );
        }
    }

    /// The plain meaning, by trying everything.
    fn model(pattern: &[&str], segments: &[&str]) -> bool {
        match pattern {
            [] => segments.is_empty(),
            ["**"] => !segments.is_empty(),
            ["**", rest @ ..] => (0..=segments.len()).any(|skip| model(rest, &segments[skip..])),
            [first, rest @ ..] => segments
                .split_first()
                .is_some_and(|(segment, left)| first == segment && model(rest, left)),
        }
    }

    proptest! {
        #[test]
        fn matching_means_what_trying_everything_finds(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "**"]), 1..6),
            segments in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..7),
        ) {
            let expected = model(&pattern, &segments);
            prop_assert_eq!(matches(&pattern.join("/"), &segments.join("/"), None), expected);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            if let Ok(pattern) = text.parse::<RepositoryPattern>() {
                prop_assert_eq!(pattern.as_str(), text);
            }
        }

        #[test]
        fn what_is_said_of_all_below_a_parent_holds_for_each(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "**"]), 1..6),
            parent in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..4),
            below in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..4),
        ) {
            let pattern: RepositoryPattern = pattern.join("/").parse().unwrap();
            let parent: RepositoryName = parent.join("/").parse().unwrap();
            let child: RepositoryName = format!("{parent}/{}", below.join("/")).parse().unwrap();
            let matches = pattern.matches(&child, None);
            prop_assert!(matches || !pattern.matches_all_below(&parent));
            prop_assert!(!matches || pattern.may_match_below(&parent));
        }
    }
}
