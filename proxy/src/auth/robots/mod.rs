//! Robots: named credentials for programs, each limited to some repositories and actions.
//!
//! Each is a file in the state directory that the command line writes and removes; the edge looks at
//! the folder every second ([`known`]). What is kept of the secret is a hash, so the files let nobody
//! in.

mod known;

pub(crate) use known::Robots;

pub use super::token::secret::Secret;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use oci::{Action, RepositoryPattern};
use openssl::error::ErrorStack;
use serde::{Deserialize, Serialize};

use super::token::secret::{self, Purpose};
use super::{Actions, Grant, Grants};
use crate::state_dir::{self, StateDir};

const FOLDER: &str = "tokens/robots";

/// No robot's file is longer.
const FILE_BYTES_MAX: u64 = 64 << 10;

const NAME_LEN_MAX: usize = 100;

/// What is in the place of a revoked robot's file, so that the log can tell it from one that never was.
const REVOKED: &str = ".revoked";

/// Of how many robots that is kept: those that were revoked last.
const REVOKED_MAX: usize = 1000;

/// A robot, as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Robot {
    /// Its name, which it logs in with.
    pub name: String,
    /// The hosts of the sites that it may come in to; none is all of them.
    #[serde(default)]
    pub sites: Vec<String>,
    /// Globs of the repositories that it may touch.
    pub repositories: Vec<String>,
    /// What it may do there: `pull`, `push`, `delete`, `catalog` or `*`.
    pub actions: Vec<String>,
    /// What it is for, in an administrator's words.
    #[serde(default)]
    pub description: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it ends, in seconds since 1970.
    #[serde(default)]
    pub expires: Option<u64>,
    /// The SHA-256 of its secret, in hexadecimal.
    #[serde(default)]
    secret_sha256: String,
}

/// Why a robot cannot be made, listed or revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RobotError {
    /// There is no such action.
    #[error("{0:?}: is not a valid action (pull, push, delete, catalog or *)")]
    Action(String),
    /// There is one of the name.
    #[error("there is a robot {0:?} already: revoke it first")]
    Exists(String),
    /// The files cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The name could not be a file's.
    #[error(
        "{0:?}: a robot's name has letters, digits, \".\", \"_\" and \"-\", begins with a letter \
         or a digit, and has {NAME_LEN_MAX} characters at most"
    )]
    Name(String),
    /// There is no robot of the name.
    #[error("there is no robot {0:?}")]
    None(String),
    /// Nothing could be done with it.
    #[error("a robot needs a repository and an action at least")]
    Nothing,
    /// There is no randomness.
    #[error(transparent)]
    OpenSsl(#[from] ErrorStack),
    /// It is no pattern of repositories.
    #[error("{text:?}: {why}")]
    Pattern {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Robot {
    /// Makes a robot with no secret yet, once everything about it holds.
    ///
    /// # Errors
    /// What of it does not.
    pub fn new(
        name: &str,
        repositories: Vec<String>,
        actions: Vec<String>,
        created: u64,
    ) -> Result<Self, RobotError> {
        if !is_name(name) {
            return Err(RobotError::Name(name.to_owned()));
        }
        if repositories.is_empty() || actions.is_empty() {
            return Err(RobotError::Nothing);
        }
        let robot = Self {
            name: name.to_owned(),
            sites: Vec::new(),
            repositories,
            actions,
            description: String::new(),
            created,
            expires: None,
            secret_sha256: String::new(),
        };
        robot.grants().map(|_grants| robot)
    }

    /// Gives the robot a secret and keeps it in the state directory; the secret is not seen again.
    ///
    /// # Errors
    /// [`RobotError::Exists`] when there is one of that name; otherwise what the system says.
    pub fn keep(mut self, state: &StateDir) -> Result<Secret, RobotError> {
        let secret = Secret::random(Purpose::Robot)?;
        self.secret_sha256 = secret::hex(&secret.hashed());
        let folder = state.make(FOLDER).map_err(|source| RobotError::Io {
            path: state.path().to_owned(),
            source,
        })?;
        let path = folder.join(format!("{}.json", self.name));
        let text = serde_json::to_vec_pretty(&self).unwrap_or_default();
        match state_dir::create(&path, &text) {
            Ok(()) => {
                // Were it left there, the robot would count all the same.
                state_dir::remove(&folder.join(format!("{}{REVOKED}", self.name))).ok();
                Ok(secret)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(RobotError::Exists(self.name))
            }
            Err(source) => Err(RobotError::Io { path, source }),
        }
    }

    /// Returns the robots that are kept, by name, and what stands in the way of others: a file that
    /// is damaged is the end of that robot and of no other.
    ///
    /// # Errors
    /// What the system says of the folder.
    pub fn list(state: &StateDir) -> Result<(Vec<Self>, Vec<RobotError>), RobotError> {
        let folder = state.path().join(FOLDER);
        let failed = |source| RobotError::Io {
            path: folder.clone(),
            source,
        };
        let (mut robots, mut damaged) = (Vec::new(), Vec::new());
        for name in state_dir::names(&folder, ".json").map_err(failed)? {
            let path = folder.join(format!("{name}.json"));
            match Self::read(&path) {
                Ok(robot) => robots.push(robot),
                // Removed in this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => damaged.push(RobotError::Io { path, source }),
            }
        }
        Ok((robots, damaged))
    }

    fn read(path: &Path) -> io::Result<Self> {
        let text = state_dir::read(path, FILE_BYTES_MAX)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Removes a robot: it is let in no more.
    ///
    /// # Errors
    /// [`RobotError::None`] when there is none of that name; otherwise what the system says.
    pub fn revoke(state: &StateDir, name: &str) -> Result<(), RobotError> {
        // A name is a file's here; anything else is no robot's.
        if !is_name(name) {
            return Err(RobotError::None(name.to_owned()));
        }
        let folder = state.path().join(FOLDER);
        let path = folder.join(format!("{name}.json"));
        match state_dir::remove(&path) {
            Ok(true) => {
                // It is revoked, whether or not there is room for that.
                remember_revoked(&folder, name).ok();
                Ok(())
            }
            Ok(false) => Err(RobotError::None(name.to_owned())),
            Err(source) => Err(RobotError::Io { path, source }),
        }
    }

    /// Returns whether its time is over.
    pub fn is_over(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn grants(&self) -> Result<Grants, RobotError> {
        let mut actions = Actions::default();
        for name in &self.actions {
            let action = Actions::named(name).ok_or_else(|| RobotError::Action(name.clone()))?;
            actions.insert(action);
        }
        let pattern = |text: &String| {
            let wrong = |why: String| RobotError::Pattern {
                text: text.clone(),
                why,
            };
            let repositories = text
                .parse::<RepositoryPattern>()
                .map_err(|error| wrong(error.to_string()))?;
            if repositories.names_user() {
                return Err(wrong("a robot is not a user, so write its name".to_owned()));
            }
            Ok(Grant {
                repositories,
                actions,
            })
        };
        let repositories: Result<Vec<Grant>, RobotError> =
            self.repositories.iter().map(pattern).collect();
        Ok(Grants {
            repositories: repositories?.into(),
            catalog: actions.contains(Action::Catalog),
        })
    }
}

/// Notes that a robot was revoked, and forgets of others those that were revoked first.
fn remember_revoked(folder: &Path, name: &str) -> io::Result<()> {
    state_dir::replace(&folder.join(format!("{name}{REVOKED}")), b"")?;
    let names = state_dir::names(folder, REVOKED)?;
    let Some(surplus) = names.len().checked_sub(REVOKED_MAX) else {
        return Ok(());
    };
    let mut by_age = Vec::new();
    for name in names {
        let path = folder.join(format!("{name}{REVOKED}"));
        by_age.push((path.metadata()?.modified()?, path));
    }
    by_age.sort();
    for (_, path) in by_age.into_iter().take(surplus) {
        state_dir::remove(&path)?;
    }
    Ok(())
}

/// Returns the names of the robots that were revoked not long ago.
fn revoked(state: &StateDir) -> io::Result<HashSet<String>> {
    let names = state_dir::names(&state.path().join(FOLDER), REVOKED)?;
    Ok(names.into_iter().collect())
}

/// Returns whether a robot can be called so, and a file.
fn is_name(name: &str) -> bool {
    let holds = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(holds)
        && name.len() <= NAME_LEN_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn robot(
        name: &str,
        repositories: &[&str],
        actions: &[&str],
    ) -> Result<Robot, RobotError> {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Robot::new(name, owned(repositories), owned(actions), 100)
    }

    #[test]
    fn of_revoked_robots_a_bounded_number_is_remembered_until_they_are_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        let make = |name: &str| robot(name, &["a"], &["pull"]).unwrap().keep(&state);
        make("ci").unwrap();
        let robots = state.path().join(FOLDER);
        for number in 0..REVOKED_MAX {
            let path = robots.join(format!("old-{number}{REVOKED}"));
            let file = std::fs::File::create(path).unwrap();
            let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            file.set_modified(then).unwrap();
        }
        Robot::revoke(&state, "ci").unwrap();
        let known = revoked(&state).unwrap();
        assert_eq!(known.len(), REVOKED_MAX);
        assert!(known.contains("ci") && known.contains("old-1") && !known.contains("old-0"));
        make("ci").unwrap();
        assert!(!revoked(&state).unwrap().contains("ci"));
    }

    #[test]
    fn only_robots_that_can_be_are_made() {
        for (name, repositories, actions, holds) in [
            ("ci", &["team/**"][..], &["pull", "push"][..], true),
            ("Ci-1.x_y", &["**"], &["*"], true),
            ("", &["a"], &["pull"], false),
            ("../x", &["a"], &["pull"], false),
            (".x", &["a"], &["pull"], false),
            ("a:b", &["a"], &["pull"], false),
            ("a b", &["a"], &["pull"], false),
            ("ci", &[], &["pull"], false),
            ("ci", &["a"], &[], false),
            ("ci", &["a"], &["fly"], false),
            ("ci", &["A"], &["pull"], false),
            ("ci", &["${user}/**"], &["pull"], false),
        ] {
            let made = robot(name, repositories, actions);
            assert_eq!(made.is_ok(), holds, "{name:?} {repositories:?} {actions:?}");
        }
    }
}
