//! One config file: parsed once, read in sections, and judged at the end.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use toml::de::DeTable;

use crate::lines::Lines;
use crate::permission::{self, Purpose};
use crate::{Problem, Problems, Section};

/// A parsed config file.
#[derive(Debug)]
pub struct Document {
    table: toml::Table,
    report: Report,
}

impl Document {
    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// One problem when the file cannot be read, or one for each syntax error.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            // The path is told before the message.
            let denied = permission::denied(path, Purpose::Read);
            let denied =
                denied.map(|denied| denied.replacen(&format!("{}: ", path.display()), "", 1));
            Problems::from(Problem {
                file: path.to_owned(),
                line: None,
                key: String::new(),
                message: denied.unwrap_or_else(|| error.to_string()),
            })
        })?;
        Self::parse(path, &text)
    }

    /// Parses `text`; `path` serves messages and as the base of relative paths.
    ///
    /// # Errors
    /// One problem for each syntax error.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Problems> {
        let (spanned, errors) = DeTable::parse_recoverable(text);
        let mut problems: Vec<Problem> = errors
            .iter()
            .map(|error| Problem {
                file: path.to_owned(),
                line: error.span().map(|span| line_at(text, span.start)),
                key: String::new(),
                message: error.message().replace('\n', "; "),
            })
            .collect();
        let lines = Lines::of(text, spanned.get_ref());
        match toml::from_str(text) {
            Ok(table) if problems.is_empty() => Ok(Self {
                table,
                report: Report {
                    file: path.into(),
                    lines: Rc::new(lines),
                    problems: Rc::default(),
                },
            }),
            Ok(_) => Err(Problems::new(problems)),
            Err(error) => {
                if problems.is_empty() {
                    problems.push(Problem {
                        file: path.to_owned(),
                        line: error.span().map(|span| line_at(text, span.start)),
                        key: String::new(),
                        message: error.message().replace('\n', "; "),
                    });
                }
                Err(Problems::new(problems))
            }
        }
    }

    /// Hands out the top-level table, once: what is read here and below is marked as known.
    pub fn root(&mut self) -> Section {
        Section::new(
            String::new(),
            std::mem::take(&mut self.table),
            self.report.clone(),
        )
    }

    /// Says whether all that was read was right; call it when every section is dropped.
    ///
    /// # Errors
    /// Every problem found, in the order of the file.
    pub fn finish(self) -> Result<(), Problems> {
        let problems = self.report.problems.take();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Problems::new(problems))
        }
    }
}

/// Where the sections of one document note what is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    file: Rc<Path>,
    lines: Rc<Lines>,
    problems: Rc<RefCell<Vec<Problem>>>,
}

impl Report {
    pub(crate) fn note(&self, key: String, message: String) {
        let problem = self.at(key, message);
        self.problems.borrow_mut().push(problem);
    }

    /// Returns `message` with the place of `key`.
    pub(crate) fn at(&self, key: String, message: String) -> Problem {
        Problem {
            file: self.file.to_path_buf(),
            line: self.lines.line(&key),
            key,
            message,
        }
    }

    /// Returns whether a problem was noted at `path` or below it.
    pub(crate) fn concerns(&self, path: &str) -> bool {
        self.problems.borrow().iter().any(|problem| {
            problem.key.strip_prefix(path).is_some_and(|rest| {
                path.is_empty() || rest.is_empty() || rest.starts_with(['.', '['])
            })
        })
    }

    /// Resolves `path` as the operator means it: relative to the folder of the config file.
    pub(crate) fn resolve(&self, path: PathBuf) -> PathBuf {
        match self.file.parent() {
            Some(folder) if path.is_relative() => folder.join(path),
            _ => path,
        }
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}
