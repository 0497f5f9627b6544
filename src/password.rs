//! Where a password comes from, and what may be one.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// bcrypt sees no further; a longer password would match with a wrong ending.
const BYTES_MAX: usize = 72;

/// The digits of base32 after Crockford: none is mistaken for another when read aloud.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A password that bcrypt can keep: not empty, no control characters, 72 bytes at most.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Password(String);

impl Password {
    /// Takes `text` as a password, or says why it cannot be one.
    pub(crate) fn new(text: String) -> Result<Self> {
        ensure!(!text.is_empty(), "the password is empty");
        ensure!(
            text.len() <= BYTES_MAX,
            "the password has {} bytes, bcrypt takes {BYTES_MAX} at most",
            text.len()
        );
        ensure!(
            !text.chars().any(char::is_control),
            "the password has a control character"
        );
        Ok(Self(text))
    }

    /// Makes a passphrase of 125 random bits: five groups of five letters and digits.
    pub(crate) fn random() -> Result<Self> {
        let mut bytes = [0_u8; 25];
        let length = getrandom(&mut bytes, GetRandomFlags::empty()).context("read random bytes")?;
        ensure!(length == bytes.len(), "read random bytes: too few");
        let groups: Vec<String> = bytes.chunks(5).map(group).collect();
        Ok(Self(groups.join("-")))
    }

    /// Reads the first line of a file.
    pub(crate) fn read_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::new(first_line(&text)).with_context(|| path.display().to_string())
    }

    /// Asks twice on a terminal, without echo; reads one line where stdin is none.
    pub(crate) fn ask(user: &str) -> Result<Self> {
        if !io::stdin().is_terminal() {
            return Self::read_stdin();
        }
        let first = Self::new(prompt(&format!("Password for {user}: "))?)?;
        let second = prompt("The same again: ")?;
        ensure!(first.0 == second, "the two passwords differ");
        Ok(first)
    }

    /// Asks once on a terminal, without echo; reads one line where stdin is none.
    pub(crate) fn ask_once(user: &str) -> Result<Self> {
        if !io::stdin().is_terminal() {
            return Self::read_stdin();
        }
        Self::new(prompt(&format!("Password for {user}: "))?)
    }

    fn read_stdin() -> Result<Self> {
        let mut text = String::new();
        io::stdin()
            .lock()
            .read_to_string(&mut text)
            .context("read the password from stdin")?;
        let line = first_line(&text);
        if text.trim_end_matches(['\r', '\n']) != line {
            bail!("the password on stdin has more than one line");
        }
        Self::new(line)
    }

    /// The password itself; nothing else gives it away.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Turns five random bytes into five digits; the modulus is fair, 32 divides 256.
fn group(bytes: &[u8]) -> String {
    bytes
        .iter()
        .filter_map(|byte| DIGITS.get(usize::from(byte % 32)))
        .map(|digit| char::from(*digit))
        .collect()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Asks on the terminal and reads an answer that is not shown.
fn prompt(question: &str) -> Result<String> {
    let mut error = io::stderr();
    write!(error, "{question}")
        .and_then(|()| error.flush())
        .context("write to the terminal")?;
    let hidden = HiddenInput::start()?;
    let mut answer = String::new();
    let length = io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("read the password")?;
    drop(hidden);
    ensure!(length > 0, "no password given");
    Ok(first_line(&answer))
}

/// While it lives, the terminal shows nothing of what is typed but the end of the line.
struct HiddenInput {
    before: Termios,
}

impl HiddenInput {
    fn start() -> Result<Self> {
        let before = tcgetattr(io::stdin()).context("read the terminal's settings")?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        // Flush: what was typed before the question is no answer to it.
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).context("hide the password")?;
        Ok(Self { before })
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        tcsetattr(io::stdin(), OptionalActions::Drain, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_passphrases_are_long_readable_and_never_the_same() {
        let first = Password::random().unwrap();
        assert_ne!(first, Password::random().unwrap());
        let groups: Vec<&str> = first.reveal().split('-').collect();
        assert_eq!(groups.len(), 5);
        assert!(groups.iter().all(|group| group.len() == 5));
        assert!(
            first
                .reveal()
                .bytes()
                .all(|byte| byte == b'-' || DIGITS.contains(&byte))
        );
    }

    #[test]
    fn what_bcrypt_would_cut_or_nobody_can_type_is_no_password() {
        assert!(Password::new(String::new()).is_err());
        assert!(Password::new("a\nb".to_owned()).is_err());
        assert!(Password::new("a\0b".to_owned()).is_err());
        assert!(Password::new("x".repeat(72)).is_ok());
        let error = Password::new("x".repeat(73)).unwrap_err().to_string();
        assert_eq!(error, "the password has 73 bytes, bcrypt takes 72 at most");
    }

    #[test]
    fn debug_output_hides_the_password() {
        let password = Password::new("tell nobody".to_owned()).unwrap();
        assert_eq!(format!("{password:?}"), "Password(…)");
    }

    #[test]
    fn file_may_end_in_a_newline_of_either_kind() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for ending in ["", "\n", "\r\n"] {
            fs::write(file.path(), format!("pass phrase{ending}")).unwrap();
            assert_eq!(
                Password::read_file(file.path()).unwrap().reveal(),
                "pass phrase"
            );
        }
    }
}
