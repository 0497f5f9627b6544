//! `tidegate htpasswd`: who may log in.
//!
//! The file is Apache's: `user:hash` a line. Lines that are not touched stay byte for byte as they
//! are, comments and other hash formats included.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use proxy::htpasswd::Users;

use crate::files::{self, Staged};
use crate::kept_password::KeptPassword;
use crate::look;
use crate::output::{hint_at_root, say};
use crate::password::Password;

/// Each step doubles the time that one guess takes; ten is what bcrypt's users settled on.
const COST: u32 = 10;

/// Apache's own limit.
const USER_BYTES_MAX: usize = 255;

/// What to do with which file.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Add a user, or set a user's new password.
    ///
    /// Prompts for the password on a terminal; otherwise reads it from stdin.
    Add {
        #[command(flatten)]
        entry: Entry,
        /// Generate a random passphrase and print it once.
        #[arg(long)]
        random: bool,
        /// The bcrypt cost: each step doubles the time that one guess takes.
        #[arg(long, default_value_t = COST, value_parser = clap::value_parser!(u32).range(4..=17))]
        cost: u32,
    },
    /// Remove a user.
    Remove {
        #[command(flatten)]
        entry: Entry,
    },
    /// List the users, one per line.
    List {
        /// The htpasswd file.
        file: PathBuf,
    },
    /// Verify a user's password as the edge would; exits with 1 if it is wrong.
    ///
    /// Prompts for the password on a terminal; otherwise reads it from stdin.
    Verify {
        #[command(flatten)]
        entry: Entry,
    },
}

/// One user of one file.
#[derive(Args)]
pub(crate) struct Entry {
    /// The htpasswd file.
    file: PathBuf,
    /// The user's name.
    user: String,
}

/// Runs `tidegate htpasswd`.
pub(crate) fn run(command: &Command) -> Result<()> {
    hint_at_root(obey(command))
}

fn obey(command: &Command) -> Result<()> {
    match command {
        Command::Add {
            entry: Entry { file, user },
            random,
            cost,
        } => {
            check_user(user)?;
            let password = if *random {
                Password::random()?
            } else {
                Password::ask(user)?
            };
            let kept = KeptPassword::of(file, user);
            add(file, user, &password, *cost)?;
            if let Some(kept) = kept {
                kept.follow(file, user, random.then_some(&password))?;
            }
            look::edge_of_users(file);
            if *random {
                say(password.reveal())
            } else {
                Ok(())
            }
        }
        Command::Remove {
            entry: Entry { file, user },
        } => {
            let kept = KeptPassword::of(file, user);
            remove(file, user)?;
            if let Some(kept) = kept {
                kept.follow(file, user, None)?;
            }
            look::edge_of_users(file);
            Ok(())
        }
        Command::List { file } => users(&read(file)?).try_for_each(say),
        Command::Verify {
            entry: Entry { file, user },
        } => verify(file, user),
    }
}

/// What to add to a usage error, for those who know Apache's `htpasswd`.
pub(crate) const USAGE: &str = "tip: the password is asked for on a terminal, else read from stdin: printf %s \"$PASSWORD\" | tidegate \
     htpasswd add FILE USER; it is hashed with bcrypt, as by Apache's -B";

/// Says why `user` could not be a user of an htpasswd file.
pub(crate) fn check_user(user: &str) -> Result<()> {
    ensure!(!user.is_empty(), "the user name is empty");
    ensure!(
        !user.contains(':'),
        "{user:?}: a user name has no \":\", it ends the name"
    );
    ensure!(
        !user.chars().any(char::is_control),
        "{user:?}: a user name has no control characters"
    );
    ensure!(
        !user.starts_with('#'),
        "{user:?}: a line that starts with \"#\" is a comment"
    );
    ensure!(
        user.trim() == user,
        "{user:?}: a user name neither starts nor ends with a space"
    );
    ensure!(
        user.len() <= USER_BYTES_MAX,
        "a user name has {USER_BYTES_MAX} bytes at most, this one {}",
        user.len()
    );
    Ok(())
}

/// The line of an htpasswd file that lets `user` in with `password`.
pub(crate) fn entry(user: &str, password: &Password) -> Result<String> {
    entry_with_cost(user, password, COST)
}

fn entry_with_cost(user: &str, password: &Password, cost: u32) -> Result<String> {
    let hash = bcrypt::hash_with_result(password.reveal(), cost).context("hash the password")?;
    // `2y` is the name that Apache and nginx know bcrypt by.
    Ok(format!(
        "{user}:{}\n",
        hash.format_for_version(bcrypt::Version::TwoY)
    ))
}

/// The users of an htpasswd file's text, in its order.
pub(crate) fn users(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(user_of)
}

fn add(file: &Path, user: &str, password: &Password, cost: u32) -> Result<()> {
    let entry = entry_with_cost(user, password, cost)?;
    let _lock = files::lock(files::directory(file))?;
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("read {}", file.display()))?,
    };
    Staged::write_secret(file, with_entry(&text, user, &entry).as_bytes())?.replace()
}

fn remove(file: &Path, user: &str) -> Result<()> {
    let _lock = files::lock(files::directory(file))?;
    let text = read(file)?;
    ensure!(
        users(&text).any(|known| known == user),
        "{}: no user {user:?}",
        file.display()
    );
    Staged::write_secret(file, with_entry(&text, user, "").as_bytes())?.replace()
}

/// Whether there is an entry for `user`.
pub(crate) fn knows(file: &Path, user: &str) -> Result<bool> {
    Ok(users(&read(file)?).any(|known| known == user))
}

/// Whether `user` may log in with `password`, by the edge's own reading of the file.
pub(crate) fn lets_in(file: &Path, user: &str, password: &Password) -> Result<bool> {
    let (users, _skipped) = Users::parse(&read(file)?, false);
    Ok(users.verify(user, password.reveal().as_bytes()))
}

fn verify(file: &Path, user: &str) -> Result<()> {
    ensure!(knows(file, user)?, "{}: no user {user:?}", file.display());
    let password = Password::ask_once(user)?;
    ensure!(
        lets_in(file, user, &password)?,
        "{}: wrong password for {user:?}",
        file.display()
    );
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

/// The text with `entry` in the place of the user's first line, or at its end.
fn with_entry(text: &str, user: &str, entry: &str) -> String {
    let mut entry = Some(entry);
    let mut result = String::with_capacity(text.len() + 128);
    for line in text.split_inclusive('\n') {
        if user_of(line.trim_end_matches(['\r', '\n'])) == Some(user) {
            result.push_str(entry.take().unwrap_or_default());
        } else {
            result.push_str(line);
        }
    }
    if let Some(entry) = entry.filter(|entry| !entry.is_empty()) {
        if !result.is_empty() && !result.ends_with('\n') {
            result.push('\n');
        }
        result.push_str(entry);
    }
    result
}

/// The user that a line lets in; none for comments and blank lines.
fn user_of(line: &str) -> Option<&str> {
    let (user, _) = line.split_once(':')?;
    (!user.is_empty() && !user.starts_with('#')).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ops\nann:$apr1$x\n\nbob:{SHA}y\n";

    #[test]
    fn new_user_goes_to_the_end_and_other_lines_stay() {
        assert_eq!(with_entry(FILE, "eve", "eve:h\n"), format!("{FILE}eve:h\n"));
        assert_eq!(with_entry("ann:x", "eve", "eve:h\n"), "ann:x\neve:h\n");
        assert_eq!(with_entry("", "eve", "eve:h\n"), "eve:h\n");
    }

    #[test]
    fn known_user_is_replaced_in_place_and_only_once() {
        assert_eq!(
            with_entry(FILE, "ann", "ann:h\n"),
            "# ops\nann:h\n\nbob:{SHA}y\n"
        );
        assert_eq!(with_entry("a:1\nb:2\na:3\n", "a", "a:h\n"), "a:h\nb:2\n");
    }

    #[test]
    fn removed_user_leaves_the_rest_as_it_was() {
        assert_eq!(with_entry(FILE, "bob", ""), "# ops\nann:$apr1$x\n\n");
        assert_eq!(with_entry("a:1\r\nb:2", "b", ""), "a:1\r\n");
    }

    #[test]
    fn comments_are_no_users() {
        assert_eq!(
            users("# a:b\nann:x\n:y\nbob:z").collect::<Vec<_>>(),
            ["ann", "bob"]
        );
    }

    #[test]
    fn names_that_would_break_the_file_are_refused() {
        for bad in ["", "a:b", "a\nb", "#a", " a", "a "] {
            assert!(check_user(bad).is_err(), "{bad:?}");
        }
        assert!(check_user(&"x".repeat(256)).is_err());
        assert!(check_user("docker").is_ok());
        assert!(check_user("Jörg Ö").is_ok());
    }

    #[test]
    fn entry_is_bcrypt_under_the_name_that_apache_knows() {
        let password = Password::new("open sesame".to_owned()).unwrap();
        let entry = entry_with_cost("ann", &password, 4).unwrap();
        let hash = entry.strip_prefix("ann:").unwrap().trim_end();
        assert!(hash.starts_with("$2y$04$"), "{hash}");
        assert!(bcrypt::verify("open sesame", hash).unwrap());
    }
}
