//! One table of the config, read key by key.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::DeserializeOwned;
use toml::Value;

use crate::document::Report;
use crate::lines::join;

/// A table of the config; when it is dropped, each key that nobody read becomes a problem.
#[derive(Debug)]
pub struct Section {
    path: String,
    table: toml::Table,
    known: BTreeSet<String>,
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
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.take(key)?;
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(key, error.message().trim().replace('\n', "; "));
                None
            }
        }
    }

    /// Returns the value of `key`; that it is absent is a problem.
    pub fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
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

    /// Returns the duration of `key`, written as `"30s"` or `"5m"`.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        let text: String = self.optional(key)?;
        match humantime::parse_duration(&text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                let message =
                    format!("{error} in {text:?} (write it as \"30s\", \"5m\" or \"1h\")");
                self.problem(key, message);
                None
            }
        }
    }

    /// Returns the size of `key` in bytes, written as `"5GiB"` or as a whole number.
    pub fn size(&mut self, key: &str) -> Option<u64> {
        let size = if self.kind(key) == Some(Kind::Integer) {
            return self.optional(key);
        } else {
            self.optional::<String>(key)?
        };
        match size.parse::<ByteSize>() {
            Ok(size) => Some(size.as_u64()),
            Err(error) => {
                self.problem(key, format!("{error} (write it as \"64KiB\" or \"5GiB\")"));
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

    /// Returns the known key that `unknown` was most likely meant to be.
    fn nearest(&self, unknown: &str) -> Option<&str> {
        self.known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(known, unknown), known))
            .filter(|(distance, known)| *distance <= known.len() / 3 + 1)
            .min()
            .map(|(_, known)| known.as_str())
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        for unknown in self.table.keys() {
            match self.nearest(unknown) {
                Some(near) => {
                    self.problem(unknown, format!("unknown key, did you mean {near:?}?"));
                }
                None => self.problem(unknown, "unknown key"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Duration;

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
            lines[0].starts_with("/etc/t/edge.toml:1: grace: expected number"),
            "{problems}"
        );
        assert!(lines[1].starts_with("/etc/t/edge.toml:3: site[0].hosts: invalid type"));
        assert_eq!(
            lines[2],
            "/etc/t/edge.toml:4: site[0].upstrem: unknown key, did you mean \"upstream\"?"
        );
        assert_eq!(lines[3], "/etc/t/edge.toml:5: site[1].hosts: is missing");
        assert!(lines[4].starts_with("/etc/t/edge.toml:6: site[1].port: invalid type"));
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
}
