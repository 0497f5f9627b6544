//! How much of what a client writes stands in a line of the log, and in which form.
//!
//! What is printable and short is shown as it is, without a copy. Whatever could begin another line, move
//! a terminal's cursor or turn text around is escaped, as Rust writes it (`\u{9b}`), and what is too long
//! ends in an ellipsis. Quotes and backslashes are left to the format of the line.

use std::borrow::Cow;

/// As long as names are in the DNS.
const HOST_CHARS_MAX: usize = 255;

/// What is longer is no name that anybody would find again.
const LOGIN_CHARS_MAX: usize = 128;

/// The names of all known methods are far shorter.
const METHOD_CHARS_MAX: usize = 32;

/// Twice what the longest path of a registry's API takes.
const PATH_CHARS_MAX: usize = 1024;

/// Docker's takes some 200.
const USER_AGENT_CHARS_MAX: usize = 256;

pub(super) fn host(text: &str) -> Cow<'_, str> {
    shown(text, HOST_CHARS_MAX)
}

pub(super) fn login(text: &str) -> Cow<'_, str> {
    shown(text, LOGIN_CHARS_MAX)
}

pub(super) fn method(text: &str) -> Cow<'_, str> {
    shown(text, METHOD_CHARS_MAX)
}

pub(super) fn path(text: &str) -> Cow<'_, str> {
    shown(text, PATH_CHARS_MAX)
}

pub(super) fn user_agent(text: &str) -> Cow<'_, str> {
    shown(text, USER_AGENT_CHARS_MAX)
}

/// Returns `text` with `chars_max` characters at most, none of which does anything but show itself.
fn shown(text: &str, chars_max: usize) -> Cow<'_, str> {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_plain && text.len() <= chars_max {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for (at, letter) in text.chars().flat_map(escaped).enumerate() {
        if at == chars_max {
            shown.push('…');
            break;
        }
        shown.push(letter);
    }
    Cow::Owned(shown)
}

fn escaped(letter: char) -> impl Iterator<Item = char> {
    let is_syntax = matches!(letter, '"' | '\'' | '\\');
    let itself = is_syntax.then_some(letter);
    let escape = (!is_syntax).then(|| letter.escape_debug());
    itself.into_iter().chain(escape.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_and_plain_is_not_copied() {
        let agent = "docker/28.0.1 (\"x\\y\")";
        assert!(matches!(user_agent(agent), Cow::Borrowed(shown) if shown == agent));
    }

    #[test]
    fn nothing_begins_a_line_or_commands_a_terminal() {
        for (text, expected) in [
            ("a\nb\r\t\0", r"a\nb\r\t\0"),
            ("\u{1b}[31m", r"\u{1b}[31m"),
            ("\u{7f}\u{9b}2J", r"\u{7f}\u{9b}2J"),
            ("a\u{202e}b\u{2028}c", r"a\u{202e}b\u{2028}c"),
            ("Jos\u{e9} \"x\" \\", "Jos\u{e9} \"x\" \\"),
        ] {
            assert_eq!(path(text), expected);
        }
    }

    #[test]
    fn what_is_long_is_cut_however_it_is_written() {
        for text in ["x".repeat(100_000), "\n".repeat(9_000), "é".repeat(9_000)] {
            let shown = method(&text);
            assert_eq!(shown.chars().count(), METHOD_CHARS_MAX + 1);
            assert!(shown.ends_with('…'));
        }
        let whole = "é".repeat(METHOD_CHARS_MAX);
        assert_eq!(method(&whole), whole);
    }
}
