//! Robots: named credentials for programs, each limited to some repositories and actions.
//!
//! Each is a file in the state directory that the command line writes and removes; the edge looks at
//! the folder every second. What is kept of the secret is a hash, so the files let nobody in.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use oci::{Action, RepositoryPattern};
use openssl::error::ErrorStack;
use serde::{Deserialize, Serialize};

use super::token::secret::{self, Hashed, Purpose};
use super::{Actions, Grant, Grants, Origin, Principal, ROBOT_PREFIX, User};
use crate::state_dir::{self, StateDir};
use crate::watch::FolderWatch;

pub use super::token::secret::Secret;

const FOLDER: &str = "tokens/robots";

/// No robot's file is longer.
const FILE_BYTES_MAX: u64 = 64 << 10;

const NAME_LEN_MAX: usize = 100;

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
    #[error("{0:?}: is no action (pull, push, delete, catalog or *)")]
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
            Ok(()) => Ok(secret),
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
        let path = state.path().join(FOLDER).join(format!("{name}.json"));
        match state_dir::remove(&path) {
            Ok(true) => Ok(()),
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
                return Err(wrong("a robot is no user, so write its name".to_owned()));
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

/// Returns whether a robot can be called so, and a file.
fn is_name(name: &str) -> bool {
    let holds = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(holds)
        && name.len() <= NAME_LEN_MAX
}

/// The robots that the edge knows at this moment.
#[derive(Debug)]
pub(crate) struct Robots {
    state: StateDir,
    known: ArcSwap<HashMap<String, Arc<Known>>>,
    watch: FolderWatch,
    /// What could not be read the last time, which was told then.
    damaged: Mutex<Vec<String>>,
}

/// A robot, ready to be asked for.
#[derive(Debug)]
pub(crate) struct Known {
    robot: Robot,
    secret: Hashed,
    principal: Principal,
}

impl Robots {
    /// Knows none until the first [`Robots::refresh`].
    pub(crate) fn new(state: StateDir) -> Self {
        Self {
            state,
            known: ArcSwap::default(),
            watch: FolderWatch::default(),
            damaged: Mutex::default(),
        }
    }

    /// Reads the folder again if it looks changed.
    pub(crate) fn refresh(&self) {
        let folder = self.state.path().join(FOLDER);
        self.watch.look(&folder, false, || self.read());
    }

    /// Takes what is in the folder; returns whether all of it could be read.
    fn read(&self) -> bool {
        // Whatever cannot be read is no robot: one that was revoked must not live on by it.
        let (robots, damaged) =
            Robot::list(&self.state).unwrap_or_else(|unreadable| (Vec::new(), vec![unreadable]));
        let known = robots.into_iter().filter_map(Known::of);
        let known: HashMap<String, Arc<Known>> = known
            .map(|known| (known.robot.name.clone(), Arc::new(known)))
            .collect();
        self.known.store(Arc::new(known));
        let damaged: Vec<String> = damaged.iter().map(ToString::to_string).collect();
        let mut told = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        for error in damaged.iter().filter(|error| !told.contains(error)) {
            tracing::error!(error, "a robot cannot be read, and is let in no more");
        }
        *told = damaged;
        told.is_empty()
    }

    /// Returns whether there is a robot of that name.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.known.load().contains_key(name)
    }

    /// Returns the robot that comes with this name and password to the site of one of `hosts`.
    pub(crate) fn verify(
        &self,
        name: &str,
        password: &[u8],
        hosts: &[Box<str>],
        now: u64,
    ) -> Option<Arc<Known>> {
        let presented = Secret::parse(password, Purpose::Robot)?.hashed();
        let known = self.named(name, hosts, now)?;
        openssl::memcmp::eq(&presented, &known.secret).then_some(known)
    }

    /// Returns the robot that is called so in logs and tokens, or by its own name, if it may come in
    /// to the site of one of `hosts`.
    pub(crate) fn find(&self, name: &str, hosts: &[Box<str>], now: u64) -> Option<Arc<Known>> {
        self.named(name.strip_prefix(ROBOT_PREFIX).unwrap_or(name), hosts, now)
    }

    fn named(&self, name: &str, hosts: &[Box<str>], now: u64) -> Option<Arc<Known>> {
        let known = self.known.load();
        let known = known.get(name)?;
        let sites = &known.robot.sites;
        let here = sites.is_empty() || hosts.iter().any(|host| sites.iter().any(|s| **s == **host));
        (here && !known.robot.is_over(now)).then(|| Arc::clone(known))
    }
}

impl Known {
    fn of(robot: Robot) -> Option<Self> {
        let (Some(secret), Ok(grants)) = (secret::unhex(&robot.secret_sha256), robot.grants())
        else {
            tracing::error!(robot = robot.name, "the file of this robot is damaged");
            return None;
        };
        let user = User::new(format!("{ROBOT_PREFIX}{}", robot.name), Origin::Robot);
        Some(Self {
            principal: Principal::user(Arc::new(user)).limited_to(Arc::new(grants)),
            robot,
            secret,
        })
    }

    /// Returns it as one who asks.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.robot.name
    }

    /// Returns what changes with its secret.
    pub(crate) fn secret(&self) -> &Hashed {
        &self.secret
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn robot(name: &str, repositories: &[&str], actions: &[&str]) -> Result<Robot, RobotError> {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Robot::new(name, owned(repositories), owned(actions), 100)
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

    #[test]
    fn a_damaged_file_is_the_end_of_its_robot_and_of_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        for name in ["ci", "build"] {
            let robot = robot(name, &["**"], &["pull"]).unwrap();
            robot.keep(&state).unwrap();
        }
        let robots = Robots::new(state.clone());
        robots.refresh();
        let known = || ["ci", "build"].map(|name| robots.exists(name));
        assert_eq!(known(), [true, true]);
        let file = folder.path().join(FOLDER).join("build.json");
        let good = fs::read(&file).unwrap();
        fs::write(&file, "{").unwrap();
        Robot::revoke(&state, "ci").unwrap();
        robots.refresh();
        assert_eq!(known(), [false, false]);
        let (listed, damaged) = Robot::list(&state).unwrap();
        assert_eq!((listed.len(), damaged.len()), (0, 1));
        // Repaired in place, it leaves the folder as it looks.
        fs::write(&file, good).unwrap();
        robots.refresh();
        assert_eq!(known(), [false, true]);
        fs::remove_dir_all(folder.path().join(FOLDER)).unwrap();
        robots.refresh();
        assert_eq!(known(), [false, false]);
        assert!(matches!(
            Robot::revoke(&state, "../build"),
            Err(RobotError::None(_))
        ));
    }

    #[test]
    fn a_robot_comes_in_with_its_secret_until_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        let robots = Robots::new(state.clone());
        robots.refresh();
        let secret = robot("ci", &["team/*"], &["pull", "push"])
            .unwrap()
            .keep(&state)
            .unwrap();
        let again = robot("ci", &["a"], &["pull"]).unwrap().keep(&state);
        assert!(matches!(again, Err(RobotError::Exists(_))));
        robots.refresh();
        let hosts = ["a.test".into()];
        let verify =
            |name: &str, password: &str| robots.verify(name, password.as_bytes(), &hosts, 200);
        let known = verify("ci", secret.reveal()).unwrap();
        assert_eq!(known.principal().name(), Some("robot:ci"));
        let grants = known.principal().grants().unwrap();
        let allows = |action, name: &str| grants.allow(action, Some(&name.parse().unwrap()));
        assert!(allows(Action::Push, "team/app"));
        assert!(!allows(Action::Delete, "team/app"));
        assert!(!allows(Action::Pull, "other/app"));
        assert!(!grants.allow(Action::Catalog, None));
        let other = Secret::random(Purpose::Robot).unwrap();
        for (name, password) in [
            ("ci2", secret.reveal()),
            ("robot:ci", secret.reveal()),
            ("", secret.reveal()),
            ("ci", other.reveal()),
            ("ci", "password"),
            ("ci", ""),
        ] {
            assert!(verify(name, password).is_none(), "{name}");
        }
        let file = fs::read_to_string(folder.path().join("tokens/robots/ci.json")).unwrap();
        assert!(
            !file.contains(secret.reveal()) && !file.contains("tgt_"),
            "{file}"
        );

        Robot::revoke(&state, "ci").unwrap();
        robots.refresh();
        assert!(verify("ci", secret.reveal()).is_none());
        for name in ["ci", "../robots/ci", ""] {
            assert!(matches!(
                Robot::revoke(&state, name),
                Err(RobotError::None(_))
            ));
        }
    }

    #[test]
    fn a_robot_has_its_time_and_its_sites() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        let mut short = robot("short", &["a"], &["pull"]).unwrap();
        short.expires = Some(300);
        short.sites = vec!["b.test".to_owned()];
        let secret = short.keep(&state).unwrap();
        let robots = Robots::new(state);
        robots.refresh();
        let comes_in = |host: &str, now| {
            let hosts = [host.into()];
            robots
                .verify("short", secret.reveal().as_bytes(), &hosts, now)
                .is_some()
        };
        assert!(comes_in("b.test", 299));
        assert!(!comes_in("b.test", 300));
        assert!(!comes_in("a.test", 299));
    }
}
