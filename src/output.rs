//! What a person or a script reads: answers on stdout, one line for an error on stderr.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rustix::process::geteuid;
use settings::Problems;
use tracing::Level;

use crate::journal;

/// Prints a line of the answer; a closed pipe is an error and no panic.
pub(crate) fn say(line: impl Display) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("write to stdout")
}

/// Tells a person what is going on, beside the answer; nobody may be listening.
pub(crate) fn note(line: impl Display) {
    tell(Level::INFO, format_args!("tidegate: {line}"));
}

/// Tells what is wrong, as [`note`] does.
pub(crate) fn complain(line: impl Display) {
    tell(Level::ERROR, format_args!("tidegate: {line}"));
}

fn tell(level: Level, lines: impl Display) {
    let lines = journal::lines_for(io::stderr(), level, lines);
    writeln!(io::stderr(), "{lines}").ok();
}

/// Prints why the program gives up: each problem of a config in a line of its own.
pub(crate) fn report(error: &anyhow::Error) {
    match error.downcast_ref::<Problems>() {
        Some(problems) => tell(Level::ERROR, problems),
        None => complain(one_line(error)),
    }
}

/// Tells an error with all its causes; some errors tell their cause themselves.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.replace('\n', "; ")
}

/// Hints at root where the system has refused what belongs to the edge's user.
pub(crate) fn hint_at_root<T>(done: Result<T>) -> Result<T> {
    done.map_err(|error| {
        let mut causes = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>());
        let denied = causes.any(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
        if !denied || geteuid().is_root() {
            return error;
        }
        anyhow!("{} (it is not yours: run this with sudo)", one_line(&error))
    })
}

/// Writes a path as one word of a shell command.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let cause = || io::Error::other("no room");
        let told_below = anyhow::Error::new(cause()).context("write x");
        assert_eq!(one_line(&told_below), "write x: no room");
        let told_twice = anyhow::Error::new(cause()).context("write x: no room");
        assert_eq!(one_line(&told_twice), "write x: no room");
    }

    #[test]
    fn paths_survive_a_shell() {
        assert_eq!(shell_word(Path::new("/srv/a-b_c.d")), "/srv/a-b_c.d");
        assert_eq!(shell_word(Path::new("/srv/my data")), "'/srv/my data'");
        assert_eq!(shell_word(Path::new("it's")), r"'it'\''s'");
    }
}
