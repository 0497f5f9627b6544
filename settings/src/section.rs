//! One table of the config, read key by key.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use toml::Value;

use crate::document::Report;
use crate::lines::join;
use crate::permission::{self, Purpose};
use crate::value::FromValue;
use crate::words::{choices, nearest, suggestion};
use crate::{Problem, Wrong};

/// A table of the config; when it is dropped, each key that nobody read becomes a problem.
#[derive(Debug)]
pub struct Section {
    path: String,
    table: toml::Table,
    known: BTreeSet<String>,
    /// What other programs call keys, and what they are called here.
    elsewhere: Vec<(&'static str, &'static str)>,
    report: Report,
}

/// The kind of a value, for keys that may be written in more than one way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `[…]`
    Array,
    /// `true` or `false`
    Boolean,
    /// A date, a time or both.
    Datetime,
    /// A number with a fraction.
    Float,
    /// A whole number.
    Integer,
    /// Text.
    String,
    /// `{ … }` or a `[table]`.
    Table,
}

impl Section {
    pub(crate) fn new(path: String, table: toml::Table, report: Report) -> Self {
        Self {
            path,
            table,
            known: BTreeSet::new(),
            elsewhere: Vec::new(),
            report,
        }
    }

    /// Returns the section's own path, such as `site[1].auth`.
    pub fn name(&self) -> &str {
        &self.path
    }

    /// Returns whether a problem was noted in this section or below it.
    pub fn failed(&self) -> bool {
        self.report.concerns(&self.path)
    }

    /// Notes that the value of `key` is wrong.
    pub fn problem(&self, key: &str, message: impl Display) {
        self.report.note(join(&self.path, key), message.to_string());
    }

    /// Notes that the section as a whole is wrong.
    pub fn problem_here(&self, message: impl Display) {
        self.report.note(self.path.clone(), message.to_string());
    }

    /// Returns `message` with the place of `key`, for what is worth a look and is not wrong.
    pub fn at(&self, key: &str, message: impl Display) -> Problem {
        self.report.at(join(&self.path, key), message.to_string())
    }

    /// Returns whether this process's user may do with the file or folder of `key` what it is there for;
    /// that it may not is a problem. What is not there at all is for whoever opens it to tell.
    pub fn permits(&self, key: &str, path: &Path, purpose: Purpose) -> bool {
        let denied = permission::denied(path, purpose);
        if let Some(denied) = &denied {
            self.problem(key, denied);
        }
        denied.is_none()
    }

    /// Notes that `key` cannot be used, whatever its value is, and says why.
    pub fn refuse(&mut self, key: &str, message: impl Display) {
        if self.take(key).is_some() {
            self.problem(key, message);
        }
    }

    /// Suggests `key` to whoever writes `word`, which is what another program calls it.
    pub fn elsewhere(&mut self, word: &'static str, key: &'static str) {
        self.elsewhere.push((word, key));
    }

    /// Returns whether `key` is written.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Returns the kind of value that `key` is written with.
    pub fn kind(&self, key: &str) -> Option<Kind> {
        Some(match self.table.get(key)? {
            Value::Array(_) => Kind::Array,
            Value::Boolean(_) => Kind::Boolean,
            Value::Datetime(_) => Kind::Datetime,
            Value::Float(_) => Kind::Float,
            Value::Integer(_) => Kind::Integer,
            Value::String(_) => Kind::String,
            Value::Table(_) => Kind::Table,
        })
    }

    /// Returns the value of `key`, if it is written and of the right type.
    pub fn optional<T: FromValue>(&mut self, key: &str) -> Option<T> {
        match T::from_value(self.take(key)?) {
            Ok(value) => Some(value),
            Err(all) => {
                for Wrong { at, message } in all {
                    self.problem(&format!("{key}{at}"), message);
                }
                None
            }
        }
    }

    /// Returns the value of `key`; that it is absent is a problem.
    pub fn required<T: FromValue>(&mut self, key: &str) -> Option<T> {
        if !self.has(key) {
            self.known.insert(key.to_owned());
            self.problem(key, "is missing");
        }
        self.optional(key)
    }

    /// Returns the text of `key`, parsed.
    pub fn parsed<T>(&mut self, key: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        let text: String = self.optional(key)?;
        self.parse(key, &text)
    }

    /// Returns the texts of the array `key`, each parsed; each bad one is a problem of its own.
    pub fn parsed_list<T>(&mut self, key: &str) -> Option<Vec<T>>
    where
        T: FromStr<Err: Display>,
    {
        let texts: Vec<String> = self.optional(key)?;
        let parsed = texts
            .iter()
            .enumerate()
            .filter_map(|(index, text)| self.parse(&format!("{key}[{index}]"), text))
            .collect();
        Some(parsed)
    }

    /// Returns what the word of `key` stands for, of those that are `known`.
    pub fn word<T: Clone>(&mut self, key: &str, known: &[(&str, T)]) -> Option<T> {
        let text: String = self.optional(key)?;
        self.choose(key, &text, known)
    }

    /// Returns what a word stands for, of those that are `known`; any other is a problem of `key`.
    pub fn choose<T: Clone>(&self, key: &str, text: &str, known: &[(&str, T)]) -> Option<T> {
        let found = known.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            self.problem(key, format!("{text:?}: {}", choices(text, &words)));
        }
        found.map(|(_, value)| value.clone())
    }

    /// Returns the duration of `key`, written as `"30s"` or `"5m"`.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        const HINT: &str = "(write it as \"30s\", \"5m\" or \"1h\")";
        match self.take(key)? {
            Value::String(text) => {
                let duration = humantime::parse_duration(&text).ok();
                if duration.is_none() {
                    let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                    let wrong = if number {
                        "needs a unit"
                    } else {
                        "is not a valid duration"
                    };
                    self.problem(key, format!("{text:?}: {wrong} {HINT}"));
                }
                duration
            }
            number @ (Value::Integer(_) | Value::Float(_)) => {
                self.problem(key, format!("{number}: needs a unit {HINT}"));
                None
            }
            _ => {
                self.problem(key, format!("is not a valid duration {HINT}"));
                None
            }
        }
    }

    /// Returns the size of `key` in bytes, written as `"5GiB"` or as a whole number.
    pub fn size(&mut self, key: &str) -> Option<u64> {
        const HINT: &str = "(write it as \"64KiB\" or \"5GiB\")";
        if self.kind(key) == Some(Kind::Integer) {
            return self.optional(key);
        }
        match self.take(key)? {
            Value::String(text) => {
                let size = text.parse::<ByteSize>().ok();
                if size.is_none() {
                    self.problem(key, format!("{text:?}: is not a valid size {HINT}"));
                }
                size.map(|size| size.as_u64())
            }
            _ => {
                self.problem(key, format!("is not a valid size {HINT}"));
                None
            }
        }
    }

    /// Returns the path of `key`; a relative one starts at the config file's folder.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text: String = self.optional(key)?;
        if text.is_empty() {
            self.problem(key, "must not be empty");
            return None;
        }
        Some(self.report.resolve(text.into()))
    }

    /// Returns the paths of the array `key`; each relative one starts at the config file's folder.
    pub fn paths(&mut self, key: &str) -> Option<Vec<PathBuf>> {
        let texts: Vec<String> = self.optional(key)?;
        for (index, text) in texts.iter().enumerate() {
            if text.is_empty() {
                self.problem(&format!("{key}[{index}]"), "must not be empty");
            }
        }
        let paths = texts.into_iter().filter(|text| !text.is_empty());
        Some(paths.map(|text| self.beside(text)).collect())
    }

    /// Returns where a path of the config is: a relative one starts at the config file's folder.
    pub fn beside(&self, path: impl Into<PathBuf>) -> PathBuf {
        self.report.resolve(path.into())
    }

    /// Returns the table `key`.
    pub fn table(&mut self, key: &str) -> Option<Self> {
        let table = self.optional(key)?;
        let path = join(&self.path, key);
        Some(Self::new(path, table, self.report.clone()))
    }

    /// Returns each table of the array `[[key]]`; none where it is not written.
    pub fn tables(&mut self, key: &str) -> Vec<Self> {
        if self.kind(key) == Some(Kind::Table) {
            self.take(key);
            let name = join(&self.path, key);
            self.problem(key, format!("write it as [[{name}]], with double brackets"));
            return Vec::new();
        }
        let tables: Vec<toml::Table> = self.optional(key).unwrap_or_default();
        let path = join(&self.path, key);
        tables
            .into_iter()
            .enumerate()
            .map(|(index, table)| Self::new(format!("{path}[{index}]"), table, self.report.clone()))
            .collect()
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.known.insert(key.to_owned());
        self.table.remove(key)
    }

    fn parse<T>(&self, key: &str, text: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(key, format!("{text:?}: {error}"));
                None
            }
        }
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        for unknown in self.table.keys() {
            let mut elsewhere = self.elsewhere.iter();
            let ours = elsewhere.find_map(|(word, key)| (word == unknown).then_some(*key));
            let near = ours.or_else(|| nearest(unknown, self.known.iter().map(String::as_str)));
            self.problem(unknown, format!("unknown key{}", suggestion(near)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Duration;

    use super::Section;
    use crate::Document;

    fn document(text: &str) -> Document {
        Document::parse(Path::new("/etc/t/edge.toml"), text).unwrap()
    }

    #[test]
    fn every_problem_is_kept_with_its_line_and_key() {
        let mut document = document(
            "grace = 'soon'\n[[site]]\nhosts = ['a', 5]\nupstrem = 'x'\n[[site]]\nport = 'no'\n",
        );
        let mut root = document.root();
        root.duration("grace");
        for mut site in root.tables("site") {
            site.required::<Vec<String>>("hosts");
            site.optional::<String>("upstream");
            site.optional::<u16>("port");
        }
        drop(root);
        let problems = document.finish().unwrap_err().to_string();
        let lines: Vec<&str> = problems.lines().collect();
        assert_eq!(lines.len(), 5, "{problems}");
        assert!(
            lines[0].starts_with("/etc/t/edge.toml:1: grace: \"soon\": is not a valid duration"),
            "{problems}"
        );
        assert_eq!(
            lines[1],
            "/etc/t/edge.toml:3: site[0].hosts[1]: must be text: write it as \"5\""
        );
        assert_eq!(
            lines[2],
            "/etc/t/edge.toml:4: site[0].upstrem: unknown key, did you mean \"upstream\"?"
        );
        assert_eq!(lines[3], "/etc/t/edge.toml:5: site[1].hosts: is missing");
        assert_eq!(
            lines[4],
            "/etc/t/edge.toml:6: site[1].port: must be a whole number, without quotes"
        );
    }

    #[test]
    fn values_are_read_as_what_they_mean() {
        let mut document = document(
            "a = '90s'\nb = '4MiB'\nc = 12\nd = 'certs/a.pem'\ne = '/x'\nf = ['[::1]:80']\n",
        );
        let mut root = document.root();
        assert_eq!(root.duration("a"), Some(Duration::from_secs(90)));
        assert_eq!(root.size("b"), Some(4 << 20));
        assert_eq!(root.size("c"), Some(12));
        assert_eq!(
            root.path("d").as_deref(),
            Some(Path::new("/etc/t/certs/a.pem"))
        );
        assert_eq!(root.path("e").as_deref(), Some(Path::new("/x")));
        assert_eq!(
            root.parsed_list::<SocketAddr>("f").map(|list| list.len()),
            Some(1)
        );
        assert_eq!(root.optional::<String>("g"), None);
        assert!(!root.failed());
        drop(root);
        document.finish().unwrap();
    }

    #[test]
    fn a_single_table_for_an_array_of_tables_is_explained() {
        let mut document = document("[site]\nhosts = []\n");
        assert!(document.root().tables("site").is_empty());
        let problems = document.finish().unwrap_err().to_string();
        assert!(problems.contains("[[site]]"), "{problems}");
    }

    #[test]
    fn syntax_errors_name_their_lines() {
        let problems = Document::parse(Path::new("e.toml"), "a = \nb = 1\nb = 2\nc = [\n")
            .unwrap_err()
            .to_string();
        assert!(problems.starts_with("e.toml:1: "), "{problems}");
    }

    #[test]
    fn a_bad_element_of_a_list_is_named_by_its_index() {
        let mut document = document("peers = ['127.0.0.1:1', 'x']\n");
        document.root().parsed_list::<SocketAddr>("peers");
        let problems = document.finish().unwrap_err().to_string();
        assert!(
            problems.starts_with("/etc/t/edge.toml:1: peers[1]: \"x\": "),
            "{problems}"
        );
    }

    /// What is said of a value that `read` reads as that of `key`.
    fn told(text: &str, read: impl FnOnce(&mut Section)) -> String {
        let mut document = document(text);
        read(&mut document.root());
        let problems = document.finish().unwrap_err().to_string();
        problems.replace("/etc/t/edge.toml:1: key", "")
    }

    #[test]
    fn a_duration_and_a_size_are_told_how_they_are_written() {
        let duration: fn(&mut Section) = |section| {
            section.duration("key");
        };
        let size: fn(&mut Section) = |section| {
            section.size("key");
        };
        let durations = "(write it as \"30s\", \"5m\" or \"1h\")";
        let sizes = "(write it as \"64KiB\" or \"5GiB\")";
        for (value, read, wrong, hint) in [
            ("60", duration, "60: needs a unit", durations),
            ("'60'", duration, "\"60\": needs a unit", durations),
            (
                "'soon'",
                duration,
                "\"soon\": is not a valid duration",
                durations,
            ),
            ("[]", duration, "is not a valid duration", durations),
            (
                "'32 kilobytes'",
                size,
                "\"32 kilobytes\": is not a valid size",
                sizes,
            ),
            ("true", size, "is not a valid size", sizes),
        ] {
            let expected = format!(": {wrong} {hint}");
            assert_eq!(told(&format!("key = {value}\n"), read), expected, "{value}");
        }
        assert_eq!(
            told("key = -1\n", size),
            ": must be a whole number, 0 at least"
        );
    }

    #[test]
    fn a_word_that_is_not_known_is_told_those_that_are_and_which_was_meant() {
        let two = |section: &mut Section| {
            assert_eq!(section.word("key", &[("all", 1), ("optional", 2)]), None);
        };
        assert_eq!(
            told("key = 'optionl'\n", two),
            ": \"optionl\": must be \"all\" or \"optional\", did you mean \"optional\"?"
        );
        let three = |section: &mut Section| {
            section.word("key", &[("a.b", 1), ("c.d", 2), ("e.f", 3)]);
        };
        assert_eq!(
            told("key = 'verbose'\n", three),
            ": \"verbose\": must be one of \"a.b\", \"c.d\" or \"e.f\""
        );
    }

    #[test]
    fn what_another_program_calls_a_key_is_recognised() {
        let read = |section: &mut Section| section.elsewhere("key", "root");
        assert_eq!(
            told("key = 1\n", read),
            ": unknown key, did you mean \"root\"?"
        );
        let read = |section: &mut Section| section.refuse("key", "only files so far");
        assert_eq!(told("key = 1\n", read), ": only files so far");
    }
}
