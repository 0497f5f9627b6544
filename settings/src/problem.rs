//! What is wrong with a config, in a form that a person can act on.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong: where, and what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The config file.
    pub file: PathBuf,
    /// The line of the key, where it is known.
    pub line: Option<usize>,
    /// The key's full path, such as `site[0].auth.realm`; empty for the file itself.
    pub key: String,
    /// What is wrong, in lower case and without a period.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All that is wrong with a config, in the order of the file's lines.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Sorts `problems` by line; those without one come last.
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Self(problems)
    }

    /// Adds the problems of `other` after these.
    pub fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Visits each problem.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl FromIterator<Problem> for Problems {
    /// Sorts the problems as those of one file are; what is there twice is told once.
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        let mut all = Vec::new();
        for problem in problems {
            if !all.contains(&problem) {
                all.push(problem);
            }
        }
        Self::new(all)
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
