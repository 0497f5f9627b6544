//! systemd's journal: whether an output is its stream, and how a line says how urgent it is.
//!
//! The journal has a time for each line of its own. What it cannot know is the priority, which
//! `journalctl -p err` asks for: a line says it in a prefix that the journal takes off (sd-daemon(3)).

use std::fmt::{self, Display, Write};
use std::os::fd::AsFd;

use rustix::fs::fstat;
use tracing::Level;

/// Where systemd says which stream is the journal's, by its device and inode.
const VARIABLE: &str = "JOURNAL_STREAM";

/// Returns whether what is written to `output` gets into the journal as it is: a variable alone may have
/// been handed on to somebody whose output goes elsewhere.
pub(crate) fn is_stream(output: impl AsFd) -> bool {
    let variable = std::env::var(VARIABLE).unwrap_or_default();
    let named = variable
        .split_once(':')
        .and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    let own = fstat(output).ok().map(|found| (found.st_dev, found.st_ino));
    named.is_some() && named == own
}

/// Returns what a line of this level begins with (the levels of syslog(3)).
pub(crate) fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Writes a text with a prefix at the begin of each line: to the journal, each is one of its own.
pub(crate) struct Prefixed<W> {
    inner: W,
    prefix: &'static str,
    is_begin: bool,
}

impl<W: Write> Prefixed<W> {
    /// Writes to `inner`, from the begin of a line on.
    pub(crate) fn new(inner: W, level: Level) -> Self {
        Self {
            inner,
            prefix: prefix(level),
            is_begin: true,
        }
    }
}

impl<W: Write> Write for Prefixed<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            if self.is_begin {
                self.inner.write_str(self.prefix)?;
            }
            self.inner.write_str(line)?;
            self.is_begin = line.ends_with('\n');
        }
        Ok(())
    }
}

/// Returns a text as it is to be written to `output`, with prefixes where that is the journal.
pub(crate) fn lines_for(output: impl AsFd, level: Level, text: impl Display) -> String {
    if !is_stream(output) {
        return text.to_string();
    }
    let mut lines = String::new();
    // To write to memory does not fail.
    write!(Prefixed::new(&mut lines, level), "{text}").ok();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_text_has_the_prefix() {
        let mut text = String::new();
        let mut prefixed = Prefixed::new(&mut text, Level::ERROR);
        for piece in ["a", "b\nc", "\n", "d\n", "e"] {
            prefixed.write_str(piece).unwrap();
        }
        assert_eq!(text, "<3>ab\n<3>c\n<3>d\n<3>e");
    }

    #[test]
    fn levels_are_those_of_syslog() {
        let levels = [
            (Level::ERROR, "<3>"),
            (Level::WARN, "<4>"),
            (Level::INFO, "<6>"),
            (Level::DEBUG, "<7>"),
            (Level::TRACE, "<7>"),
        ];
        for (level, expected) in levels {
            assert_eq!(prefix(level), expected);
        }
    }
}
