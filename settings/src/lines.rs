//! On which line each key of a document stands.

use std::collections::HashMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Key paths (`site[0].hosts`) and their lines, counted from 1.
#[derive(Debug, Default)]
pub(crate) struct Lines(HashMap<String, usize>);

impl Lines {
    pub(crate) fn of(text: &str, document: &DeTable<'_>) -> Self {
        let starts: Vec<usize> = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let mut lines = Self::default();
        lines.enter_table("", document, &starts);
        lines
    }

    /// Returns the line of `key`, or of the nearest table that holds it.
    pub(crate) fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(line) = self.0.get(key) {
                return Some(*line);
            }
            key = key.rfind(['.', '[']).and_then(|at| key.get(..at))?;
        }
    }

    fn enter_table(&mut self, path: &str, table: &DeTable<'_>, starts: &[usize]) {
        for (key, value) in table {
            let path = join(path, key.get_ref());
            self.note(&path, key.span().start, starts);
            self.enter_value(&path, value, starts);
        }
    }

    fn enter_value(&mut self, path: &str, value: &Spanned<DeValue<'_>>, starts: &[usize]) {
        match value.get_ref() {
            DeValue::Table(table) => self.enter_table(path, table, starts),
            DeValue::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.note(&path, element.span().start, starts);
                    self.enter_value(&path, element, starts);
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, path: &str, offset: usize, starts: &[usize]) {
        let line = starts.partition_point(|start| *start <= offset);
        self.0.insert(path.to_owned(), line);
    }
}

/// Appends `key` to the path of its table.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
