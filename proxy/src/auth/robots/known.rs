//! The robots that the edge knows, as their files are at this moment.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::{FOLDER, Robot, Secret};
use crate::auth::token::secret::{self, Hashed, Purpose};
use crate::auth::{Failure, Login, Origin, Principal, ROBOT_PREFIX, User};
use crate::state_dir::StateDir;
use crate::watch::FolderWatch;

/// The robots that the edge knows at this moment.
#[derive(Debug)]
pub(crate) struct Robots {
    state: StateDir,
    known: ArcSwap<HashMap<String, Arc<Known>>>,
    /// Those of the robots that were, which the log tells from those that never were.
    revoked: ArcSwap<HashSet<String>>,
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
            revoked: ArcSwap::default(),
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
        self.revoked
            .store(Arc::new(super::revoked(&self.state).unwrap_or_default()));
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

    /// Returns what was wrong where [`Robots::verify`] has let nobody in; `None` where it was nothing of
    /// a robot's at all.
    pub(crate) fn failure(&self, login: &Login, hosts: &[Box<str>], now: u64) -> Option<Failure> {
        let presented = Secret::parse(&login.password, Purpose::Robot).map(|it| it.hashed());
        let known = self.known.load();
        let Some(known) = known.get(&login.name) else {
            let was_there = self.revoked.load().contains(&login.name);
            let unknown = presented.map(|_secret| Failure::UnknownRobot);
            return was_there.then_some(Failure::RevokedRobot).or(unknown);
        };
        match presented {
            Some(presented) if openssl::memcmp::eq(&presented, &known.secret) => {
                known.obstacle(hosts, now)
            }
            Some(_) | None => Some(Failure::WrongRobotSecret),
        }
    }

    /// Returns why the robot that is called so in logs and tokens does not come in, or by its own name.
    pub(crate) fn absence(&self, name: &str, hosts: &[Box<str>], now: u64) -> Option<Failure> {
        let name = name.strip_prefix(ROBOT_PREFIX).unwrap_or(name);
        match self.known.load().get(name) {
            Some(known) => known.obstacle(hosts, now),
            None if self.revoked.load().contains(name) => Some(Failure::RevokedRobot),
            None => Some(Failure::UnknownRobot),
        }
    }

    /// Returns the robot that is called so in logs and tokens, or by its own name, if it may come in
    /// to the site of one of `hosts`.
    pub(crate) fn find(&self, name: &str, hosts: &[Box<str>], now: u64) -> Option<Arc<Known>> {
        self.named(name.strip_prefix(ROBOT_PREFIX).unwrap_or(name), hosts, now)
    }

    fn named(&self, name: &str, hosts: &[Box<str>], now: u64) -> Option<Arc<Known>> {
        let known = self.known.load();
        let known = known.get(name)?;
        known
            .obstacle(hosts, now)
            .is_none()
            .then(|| Arc::clone(known))
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

    /// Returns what keeps it from coming in to the site of one of `hosts`, whatever its secret is.
    fn obstacle(&self, hosts: &[Box<str>], now: u64) -> Option<Failure> {
        let sites = &self.robot.sites;
        let here = sites.is_empty() || hosts.iter().any(|host| sites.iter().any(|s| **s == **host));
        if self.robot.is_over(now) {
            Some(Failure::ExpiredRobot)
        } else {
            (!here).then_some(Failure::RobotElsewhere)
        }
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

    use oci::Action;

    use super::*;
    use crate::auth::robots::RobotError;
    use crate::auth::robots::tests::robot;

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

        let failure = |name: &str, password: &str| {
            let login = Login::new(name.as_bytes(), password.as_bytes()).unwrap();
            robots.failure(&login, &hosts, 200).map(Failure::name)
        };
        assert_eq!(failure("ci", other.reveal()), Some("wrong robot secret"));
        assert_eq!(failure("ci", "password"), Some("wrong robot secret"));
        assert_eq!(failure("ci2", secret.reveal()), Some("unknown robot"));
        assert_eq!(failure("ci2", "password"), None);

        Robot::revoke(&state, "ci").unwrap();
        robots.refresh();
        assert!(verify("ci", secret.reveal()).is_none());
        assert_eq!(failure("ci", secret.reveal()), Some("revoked robot"));
        assert_eq!(failure("ci2", secret.reveal()), Some("unknown robot"));
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
        let login = Login::new(b"short", secret.reveal().as_bytes()).unwrap();
        let failure = |host: &str, now| robots.failure(&login, &[host.into()], now);
        assert_eq!(failure("b.test", 300), Some(Failure::ExpiredRobot));
        assert_eq!(failure("a.test", 299), Some(Failure::RobotElsewhere));
    }
}
