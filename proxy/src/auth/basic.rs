//! Basic authentication (RFC 7617) against an htpasswd file that is picked up when it changes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs, io};

use arc_swap::ArcSwap;
use openssl::error::ErrorStack;

use super::attempts::{Claim, Scrutiny};
use super::credentials::Login;
use super::htpasswd::{LineError, Users};
use super::remembered::Remembered;
use super::skipped;
use super::{Failure, Origin, Refusal, User};
use crate::watch::Watch;

/// Who may come in to one site, by its htpasswd file.
pub(crate) struct Basic {
    file: PathBuf,
    plain: bool,
    remember_for: Duration,
    loaded: ArcSwap<Loaded>,
    watch: Watch,
}

/// A file as it was read, and who of it was verified since.
struct Loaded {
    users: Users,
    skipped: Vec<LineError>,
    remembered: Remembered,
}

/// Why an htpasswd file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// There is no key to remember credentials by.
    #[error(transparent)]
    OpenSsl(#[from] ErrorStack),
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

impl Basic {
    /// Reads the file for the first time.
    pub(crate) fn load(
        file: PathBuf,
        plain: bool,
        remember_for: Duration,
    ) -> Result<Self, LoadError> {
        let watch = Watch::over([&*file]);
        let loaded = Loaded::read(&file, plain, remember_for)?;
        Ok(Self {
            file,
            plain,
            remember_for,
            loaded: ArcSwap::from_pointee(loaded),
            watch,
        })
    }

    /// Returns whether the file names nobody, so that nobody can come in.
    pub(crate) fn is_empty(&self) -> bool {
        self.loaded.load().users.is_empty()
    }

    /// Returns the lines of the file that cannot be used and are left out, each as a sentence.
    pub(crate) fn skipped(&self) -> Vec<String> {
        let loaded = self.loaded.load();
        let sentence = |line: &LineError| format!("{}: {line}", self.file.display());
        loaded.skipped.iter().map(sentence).collect()
    }

    /// Returns the file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the names of all users of the file.
    pub(crate) fn names(&self) -> Vec<Box<str>> {
        let loaded = self.loaded.load();
        loaded.users.names().map(Into::into).collect()
    }

    /// Returns whether the file names this user.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.loaded.load().users.has(name)
    }

    /// Returns what stands for a user's password as it is now, if there is the user.
    pub(crate) fn stored(&self, name: &str) -> Option<[u8; 32]> {
        self.loaded.load().users.stored(name)
    }

    /// Reads the file again if it looks changed; one that cannot be used changes nothing and is told
    /// once.
    pub(crate) fn refresh(&self) {
        let read = || Loaded::read(&self.file, self.plain, self.remember_for);
        match self.watch.look([&*self.file], read, |_| true) {
            None => {}
            Some(Ok(loaded)) => {
                tracing::info!(file = %self.file.display(), "htpasswd file changed, read again");
                self.loaded.store(Arc::new(loaded));
                skipped::report(&self.skipped());
            }
            Some(Err(error)) => tracing::error!(
                %error,
                "htpasswd file changed and cannot be used, the users stay as they were"
            ),
        }
    }

    /// Says who brings this name and this password.
    pub(crate) async fn authenticate(
        &self,
        login: &Login,
        client: IpAddr,
        scrutiny: Scrutiny<'_>,
    ) -> Result<Arc<User>, Refusal> {
        let Login { name, password } = login;
        let loaded = self.loaded.load_full();
        let fingerprint = loaded.remembered.fingerprint(name, password);
        let remembered = loaded.remembered.user(&fingerprint);
        let scope = self.file.to_string_lossy();
        let claim = Claim {
            scope: &scope,
            name,
            password,
            client,
        };
        // Elsewhere, to be let in at once would tell a guess that is right from those refused.
        if let Some(user) = &remembered
            && scrutiny.attempts.has_proven(claim)
        {
            return Ok(Arc::clone(user));
        }
        let standing = scrutiny.attempts.standing(claim);
        // Each waits for its own turn, and only then for what they share.
        let shared = async {
            if remembered.is_some() {
                return Ok(true);
            }
            let pending = loaded.remembered.pending(fingerprint);
            let verify = || {
                let (loaded, name, password) =
                    (Arc::clone(&loaded), name.clone(), password.clone());
                let hash = move || loaded.users.verify(&name, &password);
                scrutiny.hashing.run(client, standing, hash)
            };
            pending.get_or_try_init(verify).await.copied()
        };
        let right = scrutiny.check(claim, shared).await?;
        // What was right when it came may have been taken away while it waited.
        if self.stored(name) != loaded.users.stored(name) {
            return Err(Refusal::Unauthorized(self.failure(name)));
        }
        if let Some(user) = remembered {
            return Ok(user);
        }
        let user = right.then(|| Arc::new(User::new(name.as_str(), Origin::Password)));
        loaded.remembered.settle(fingerprint, user.as_ref());
        user.ok_or_else(|| Refusal::Unauthorized(self.failure(name)))
    }

    /// Returns what is wrong where somebody of this name is not let in.
    fn failure(&self, name: &str) -> Failure {
        match self.has(name) {
            true => Failure::WrongPassword,
            false => Failure::UnknownUser,
        }
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    fn read(path: &Path, plain: bool, remember_for: Duration) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Read {
            path: path.to_owned(),
            source,
        };
        let text = fs::read(path).map_err(failed)?;
        let (users, skipped) = Users::parse(&String::from_utf8_lossy(&text), plain);
        Ok(Self {
            users,
            skipped,
            remembered: Remembered::new(remember_for)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Instant;

    use tempfile::TempDir;

    use super::*;
    use crate::auth::hashing::WAITING_MAX;
    use crate::auth::{Attempts, Hashing};
    use crate::config::Logins;

    /// `correct horse`
    const RIGHT: &str = "docker:{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=\n";

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn site(text: &str) -> (TempDir, Basic) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("htpasswd");
        fs::write(&file, text).unwrap();
        let basic = Basic::load(file, true, Duration::from_secs(60)).unwrap();
        (folder, basic)
    }

    fn login(name: &str, password: &str) -> Login {
        Login::new(name.as_bytes(), password.as_bytes()).unwrap()
    }

    const LOGINS: Logins = Logins {
        per_address: 3,
        per_user: 5,
        forget_after: Duration::from_secs(60),
    };

    fn scrutiny<'a>(attempts: &'a Attempts, hashing: &'a Hashing) -> Scrutiny<'a> {
        Scrutiny {
            attempts,
            hashing,
            logins: LOGINS,
        }
    }

    async fn ask(basic: &Basic, login: &Login) -> Result<Arc<User>, Refusal> {
        let (attempts, hashing) = (Attempts::default(), Hashing::new(1));
        let scrutiny = scrutiny(&attempts, &hashing);
        basic.authenticate(login, CLIENT, scrutiny).await
    }

    const WRONG: Refusal = Refusal::Unauthorized(Failure::WrongPassword);
    const UNKNOWN: Refusal = Refusal::Unauthorized(Failure::UnknownUser);

    fn docker() -> Arc<User> {
        Arc::new(User::new("docker", Origin::Password))
    }

    #[tokio::test]
    async fn who_is_in_the_file_comes_in() {
        let (_folder, basic) = site(RIGHT);
        let right = login("docker", "correct horse");
        assert_eq!(ask(&basic, &right).await, Ok(docker()));
        for (wrong, why) in [
            (login("docker", "wrong"), WRONG),
            (login("podman", "correct horse"), UNKNOWN),
            (login("", ""), UNKNOWN),
        ] {
            assert_eq!(ask(&basic, &wrong).await, Err(why));
        }
    }

    #[tokio::test]
    async fn only_the_right_password_is_remembered() {
        let (_folder, basic) = site(RIGHT);
        let loaded = basic.loaded.load_full();
        let mut known = Vec::new();
        for password in ["correct horse", "wrong"] {
            let request = login("docker", password);
            drop(ask(&basic, &request).await);
            let print = loaded.remembered.fingerprint("docker", password.as_bytes());
            known.push(loaded.remembered.user(&print).is_some());
        }
        assert_eq!(known, [true, false]);
    }

    #[tokio::test]
    async fn those_who_come_together_share_one_verification() {
        let (_folder, basic) = site(RIGHT);
        let (attempts, hashing) = (Attempts::default(), Hashing::new(1));
        // While another hash is computed, none of these can begin.
        let other = Arc::clone(&hashing.permits).acquire_owned().await.unwrap();
        let request = login("docker", "correct horse");
        let mut together: Vec<_> = (0..5)
            .map(|_| Box::pin(basic.authenticate(&request, CLIENT, scrutiny(&attempts, &hashing))))
            .collect();
        for one in &mut together {
            let waited = tokio::time::timeout(Duration::from_millis(5), one).await;
            assert!(waited.is_err());
        }
        assert_eq!(hashing.waiting.lock().unwrap().len, 1);
        drop(other);
        for one in together {
            assert_eq!(one.await, Ok(docker()));
        }
    }

    #[tokio::test]
    async fn a_password_that_is_changed_while_it_waits_lets_nobody_in() {
        let (folder, basic) = site(RIGHT);
        let (attempts, hashing) = (Attempts::default(), Hashing::new(1));
        let other = Arc::clone(&hashing.permits).acquire_owned().await.unwrap();
        let request = login("docker", "correct horse");
        let mut waiting =
            Box::pin(basic.authenticate(&request, CLIENT, scrutiny(&attempts, &hashing)));
        let waited = tokio::time::timeout(Duration::from_millis(5), &mut waiting).await;
        assert!(waited.is_err());
        fs::write(folder.path().join("htpasswd"), "docker:new\n").unwrap();
        basic.refresh();
        drop(other);
        assert_eq!(waiting.await, Err(WRONG));
    }

    #[tokio::test]
    async fn wrong_passwords_neither_slow_nor_evict_the_right_one() {
        let (_folder, basic) = site(RIGHT);
        let (attempts, hashing) = (Attempts::default(), Hashing::new(1));
        let right = login("docker", "correct horse");
        let (home, office) = (CLIENT, "192.0.2.1".parse().unwrap());
        let ask = async |login: &Login, client: IpAddr| {
            let scrutiny = scrutiny(&attempts, &hashing);
            basic.authenticate(login, client, scrutiny).await
        };
        assert_eq!(ask(&right, home).await, Ok(docker()));
        let mut refused = 0;
        for number in 0..20 {
            let wrong = login("docker", &number.to_string());
            match ask(&wrong, office).await {
                Err(Refusal::Throttled { .. }) => refused += 1,
                other => assert_eq!(other, Err(WRONG)),
            }
        }
        assert_eq!(refused, 17);
        // Where nobody has logged in, a guess that is right looks like any other, remembered or not.
        let guessed = ask(&right, office).await;
        assert!(matches!(guessed, Err(Refusal::Throttled { .. })));
        // Where the user has been before, that is as if nothing had happened; and the password
        // that was right there stays so, remembered or not, whatever else is tried.
        let begin = Instant::now();
        assert_eq!(ask(&right, home).await, Ok(docker()));
        basic.loaded.load().remembered.forget();
        assert_eq!(ask(&right, home).await, Ok(docker()));
        for number in 0..20 {
            drop(ask(&login("docker", &number.to_string()), home).await);
        }
        assert_eq!(ask(&right, home).await, Ok(docker()));
        basic.loaded.load().remembered.forget();
        assert_eq!(ask(&right, home).await, Ok(docker()));
        assert!(begin.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn unknown_users_are_refused_as_others_are() {
        let (_folder, basic) = site(RIGHT);
        let mut outcomes = Vec::new();
        for name in ["docker", "nobody"] {
            let (attempts, hashing) = (Attempts::default(), Hashing::new(1));
            let mut outcome = Vec::new();
            for number in 0..8_u8 {
                let client = [192, 0, 2, number].into();
                let scrutiny = scrutiny(&attempts, &hashing);
                let wrong = login(name, &number.to_string());
                let refused = basic.authenticate(&wrong, client, scrutiny).await;
                outcome.push(match refused {
                    Err(Refusal::Throttled { culprit, .. }) => format!("{culprit:?}"),
                    // Which one it was is in the log alone.
                    Err(Refusal::Unauthorized(_)) => "unauthorized".to_owned(),
                    other => format!("{other:?}"),
                });
            }
            outcomes.push(outcome);
        }
        assert_eq!(outcomes[0], outcomes[1]);
        assert_eq!(outcomes[0].iter().filter(|one| *one == "User").count(), 3);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_told_to_come_back() {
        let (_folder, basic) = site(RIGHT);
        let (attempts, hashing) = (Attempts::default(), Hashing::new(1));
        hashing.waiting.lock().unwrap().len = WAITING_MAX;
        let request = login("docker", "correct horse");
        assert_eq!(
            basic
                .authenticate(&request, CLIENT, scrutiny(&attempts, &hashing))
                .await,
            Err(Refusal::Busy)
        );
        assert_eq!(hashing.waiting.lock().unwrap().len, WAITING_MAX);
    }

    #[tokio::test]
    async fn a_changed_file_forgets_at_once_and_one_that_cannot_be_read_changes_nothing() {
        let (folder, basic) = site(RIGHT);
        let file = folder.path().join("htpasswd");
        let (old, new) = (login("docker", "correct horse"), login("docker", "new"));
        assert_eq!(ask(&basic, &old).await, Ok(docker()));

        fs::write(&file, "docker:new\n").unwrap();
        basic.refresh();
        assert_eq!(ask(&basic, &old).await, Err(WRONG));
        assert_eq!(ask(&basic, &new).await, Ok(docker()));

        // A line that cannot be used is left out, and the others count.
        fs::write(&file, "broken\ndocker:new\n").unwrap();
        basic.refresh();
        assert_eq!(ask(&basic, &new).await, Ok(docker()));
        assert_eq!(basic.skipped().len(), 1);
        fs::remove_file(&file).unwrap();
        basic.refresh();
        assert_eq!(ask(&basic, &new).await, Ok(docker()));

        fs::write(folder.path().join("next"), RIGHT).unwrap();
        fs::rename(folder.path().join("next"), &file).unwrap();
        basic.refresh();
        assert_eq!(ask(&basic, &new).await, Err(WRONG));
        assert_eq!(ask(&basic, &old).await, Ok(docker()));
    }
}
