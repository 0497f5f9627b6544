//! Basic authentication (RFC 7617) against an htpasswd file that is picked up when it changes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, fs, io};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use openssl::error::ErrorStack;
use tokio::sync::Semaphore;

use super::htpasswd::{LineError, Users};
use super::remembered::Remembered;
use super::{Principal, Refusal};

/// Clients disagree on whether the padding is theirs to send.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longer names and passwords are nobody's. SHA-crypt's time grows with the square of a password's
/// length, so one as long as a header may be would keep a core busy for minutes.
const NAME_BYTES_MAX: usize = 255;
const PASSWORD_BYTES_MAX: usize = 1024;

/// The longest line of waiting for a hash. At bcrypt's usual 50 ms each and two cores, the last one
/// waits six seconds; who comes after that is better told so.
const WAITING_MAX: usize = 256;

/// How many of them may be from one client, so that nobody can keep all others out. Whoever comes
/// with credentials that are being verified already takes no place.
const WAITING_MAX_PER_CLIENT: usize = 16;

/// The right to hash: as many at once as there are cores, so that hashing passwords never starves
/// what streams.
#[derive(Debug)]
pub(crate) struct Hashing {
    permits: Arc<Semaphore>,
    waiting: Mutex<Line>,
}

/// Who waits for a hash.
#[derive(Debug, Default)]
struct Line {
    len: usize,
    /// Those who wait, counted by [`neighbours`].
    by_client: HashMap<IpAddr, usize>,
}

impl Hashing {
    /// Lets `at_once` passwords be hashed at once.
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(at_once.max(1))),
            waiting: Mutex::default(),
        }
    }

    /// Runs `work` on a thread where blocking is allowed, when it is its turn.
    async fn run(
        &self,
        client: IpAddr,
        work: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool, Refusal> {
        let _place = Place::take(&self.waiting, neighbours(client))?;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        debug_assert!(permit.is_ok(), "the semaphore is never closed");
        let hash = move || {
            // Held to the end of the work: a client that goes away does not make room for another
            // hash beside one that is still being computed.
            let _permit = permit;
            work()
        };
        // A panic in a hash is a refusal, not a way in.
        Ok(tokio::task::spawn_blocking(hash).await.unwrap_or_default())
    }
}

/// A place in the line, given up when dropped.
struct Place<'a> {
    line: &'a Mutex<Line>,
    client: IpAddr,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a Mutex<Line>, client: IpAddr) -> Result<Self, Refusal> {
        let mut line = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let own = line.by_client.get(&client).copied().unwrap_or_default();
        if line.len >= WAITING_MAX || own >= WAITING_MAX_PER_CLIENT {
            return Err(Refusal::Busy);
        }
        line.len += 1;
        line.by_client.insert(client, own + 1);
        Ok(Self {
            line: waiting,
            client,
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.len -= 1;
        if let Entry::Occupied(mut own) = line.by_client.entry(self.client) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

/// Returns the first address of those that one client has: an IPv6 network of 64 bits is handed out
/// to a single line.
fn neighbours(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            Ipv6Addr::from_bits(network).into()
        }
    }
}

/// Who may come in to one site, by its htpasswd file.
pub(crate) struct Basic {
    file: PathBuf,
    plain: bool,
    remember_for: Duration,
    loaded: ArcSwap<Loaded>,
    /// What the file looked like when it was last tried; `None` when it was not there.
    seen: Mutex<Option<Stamp>>,
}

/// A file as it was read, and who of it was verified since.
struct Loaded {
    users: Users,
    remembered: Remembered,
}

/// Why an htpasswd file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Lines of it cannot be used.
    #[error("{}: {}", path.display(), join(lines))]
    Lines {
        path: PathBuf,
        lines: Vec<LineError>,
    },
    /// There is no key to remember credentials by.
    #[error(transparent)]
    OpenSsl(#[from] ErrorStack),
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

fn join(lines: &[LineError]) -> String {
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

impl LoadError {
    /// Returns a sentence for each thing that is wrong.
    pub(crate) fn problems(&self) -> Vec<String> {
        match self {
            Self::Lines { path, lines } => lines
                .iter()
                .map(|line| format!("{}: {line}", path.display()))
                .collect(),
            Self::OpenSsl(_) | Self::Read { .. } => vec![self.to_string()],
        }
    }
}

impl Basic {
    /// Reads the file for the first time.
    pub(crate) fn load(
        file: PathBuf,
        plain: bool,
        remember_for: Duration,
    ) -> Result<Self, LoadError> {
        // The stamp comes first: what changes after it is seen the next time.
        let seen = Mutex::new(Stamp::of(&file).ok());
        let loaded = Loaded::read(&file, plain, remember_for)?;
        Ok(Self {
            file,
            plain,
            remember_for,
            loaded: ArcSwap::from_pointee(loaded),
            seen,
        })
    }

    /// Returns whether the file names nobody, so that nobody can come in.
    pub(crate) fn is_empty(&self) -> bool {
        self.loaded.load().users.is_empty()
    }

    /// Reads the file again if it looks changed; a file that cannot be used changes nothing and is
    /// told once.
    pub(crate) fn refresh(&self) {
        let stamp = Stamp::of(&self.file).ok();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamp {
            return;
        }
        *seen = stamp;
        match Loaded::read(&self.file, self.plain, self.remember_for) {
            Ok(loaded) => {
                tracing::info!(file = %self.file.display(), "htpasswd file changed, read again");
                self.loaded.store(Arc::new(loaded));
            }
            Err(error) => tracing::error!(
                %error,
                "htpasswd file changed and cannot be used, the users stay as they were"
            ),
        }
    }

    /// Says who is asking.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        hashing: &Hashing,
    ) -> Result<Principal, Refusal> {
        let (name, password) = credentials(headers).ok_or(Refusal::Unauthorized)?;
        let loaded = self.loaded.load_full();
        let Ok(fingerprint) = loaded.remembered.fingerprint(&name, &password) else {
            return Err(Refusal::Unauthorized);
        };
        if loaded.remembered.knows(&fingerprint) {
            return Ok(Principal::User(name.into()));
        }
        let pending = loaded.remembered.pending(fingerprint);
        let verify = || {
            let (loaded, name) = (Arc::clone(&loaded), name.clone());
            hashing.run(client, move || loaded.users.verify(&name, &password))
        };
        let right = *pending.get_or_try_init(verify).await?;
        loaded.remembered.settle(fingerprint, right);
        if right {
            Ok(Principal::User(name.into()))
        } else {
            Err(Refusal::Unauthorized)
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
        let text = fs::read_to_string(path).map_err(failed)?;
        let users = Users::parse(&text, plain).map_err(|lines| LoadError::Lines {
            path: path.to_owned(),
            lines,
        })?;
        Ok(Self {
            users,
            remembered: Remembered::new(remember_for)?,
        })
    }
}

/// What tells one state of a file from the next: written in place or replaced by a rename.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Returns the name and the password of a request that brings both, once.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = decoded.split_at_checked(colon)?;
    let password = password.get(1..)?;
    if name.len() > NAME_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
        return None;
    }
    let name = String::from_utf8(name.to_vec()).ok()?;
    Some((name, password.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::HeaderValue;
    use tempfile::TempDir;

    use super::*;

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

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn basic_header(name: &str, password: &str) -> HeaderMap {
        let text = BASE64.encode(format!("{name}:{password}"));
        headers(&[&format!("Basic {text}")])
    }

    async fn ask(basic: &Basic, headers: &HeaderMap) -> Result<Principal, Refusal> {
        basic.authenticate(headers, CLIENT, &Hashing::new(1)).await
    }

    fn docker() -> Principal {
        Principal::User("docker".into())
    }

    #[test]
    fn credentials_are_read_as_clients_write_them() {
        for (values, expected) in [
            (&["Basic ZG9ja2VyOnB3"][..], Some(("docker", "pw"))),
            (&["basic  ZG9ja2VyOnB3 "], Some(("docker", "pw"))),
            (&["BASIC ZG9ja2VyOg=="], Some(("docker", ""))),
            (&["Basic ZG9ja2VyOg"], Some(("docker", ""))),
            (&["Basic OnB3"], Some(("", "pw"))),
            (&["Basic ZG9ja2VyOmE6Yg=="], Some(("docker", "a:b"))),
            (&["Basic ZG9ja2Vy"], None),
            (&["Basic ***"], None),
            (&["Basic"], None),
            (&["Bearer ZG9ja2VyOnB3"], None),
            (&["Basic ZG9ja2VyOnB3", "Basic ZG9ja2VyOnB3"], None),
            (&[], None),
        ] {
            let found = credentials(&headers(values));
            let found = found
                .as_ref()
                .map(|(name, password)| (name.as_str(), std::str::from_utf8(password).unwrap()));
            assert_eq!(found, expected, "{values:?}");
        }
    }

    #[test]
    fn credentials_have_a_length_that_can_be_hashed() {
        for (name, password, read) in [
            (NAME_BYTES_MAX, PASSWORD_BYTES_MAX, true),
            (NAME_BYTES_MAX + 1, 1, false),
            (1, PASSWORD_BYTES_MAX + 1, false),
        ] {
            let header = basic_header(&"n".repeat(name), &"p".repeat(password));
            assert_eq!(credentials(&header).is_some(), read, "{name} {password}");
        }
    }

    #[tokio::test]
    async fn who_is_in_the_file_comes_in() {
        let (_folder, basic) = site(RIGHT);
        let right = basic_header("docker", "correct horse");
        assert_eq!(ask(&basic, &right).await, Ok(docker()));
        for wrong in [
            basic_header("docker", "wrong"),
            basic_header("podman", "correct horse"),
            basic_header("", ""),
            HeaderMap::new(),
        ] {
            assert_eq!(ask(&basic, &wrong).await, Err(Refusal::Unauthorized));
        }
    }

    #[tokio::test]
    async fn only_the_right_password_is_remembered() {
        let (_folder, basic) = site(RIGHT);
        let loaded = basic.loaded.load_full();
        let mut known = Vec::new();
        for password in ["correct horse", "wrong"] {
            let request = basic_header("docker", password);
            drop(ask(&basic, &request).await);
            let print = loaded.remembered.fingerprint("docker", password.as_bytes());
            known.push(loaded.remembered.knows(&print.unwrap()));
        }
        assert_eq!(known, [true, false]);
    }

    #[tokio::test]
    async fn those_who_come_together_share_one_verification() {
        let (_folder, basic) = site(RIGHT);
        let hashing = Hashing::new(1);
        // While another hash is computed, none of these can begin.
        let other = Arc::clone(&hashing.permits).acquire_owned().await.unwrap();
        let request = basic_header("docker", "correct horse");
        let mut together: Vec<_> = (0..5)
            .map(|_| Box::pin(basic.authenticate(&request, CLIENT, &hashing)))
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
    async fn a_line_that_is_too_long_is_told_to_come_back() {
        let (_folder, basic) = site(RIGHT);
        let hashing = Hashing::new(1);
        hashing.waiting.lock().unwrap().len = WAITING_MAX;
        let request = basic_header("docker", "correct horse");
        assert_eq!(
            basic.authenticate(&request, CLIENT, &hashing).await,
            Err(Refusal::Busy)
        );
        assert_eq!(hashing.waiting.lock().unwrap().len, WAITING_MAX);
    }

    #[test]
    fn no_client_fills_the_line_alone() {
        let line = Mutex::default();
        let take = |client: &str| Place::take(&line, neighbours(client.parse().unwrap()));
        for (client, neighbour, other) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::2:0:0:1", "2001:db8:0:1::1"),
        ] {
            let mut places: Vec<_> = (0..WAITING_MAX_PER_CLIENT).map(|_| take(client)).collect();
            assert!(places.iter().all(Result::is_ok));
            assert!(take(neighbour).is_err());
            assert!(take(other).is_ok());
            places.pop();
            assert!(take(neighbour).is_ok());
        }
        assert_eq!(line.lock().unwrap().len, 0);
        assert!(line.lock().unwrap().by_client.is_empty());
    }

    #[tokio::test]
    async fn a_changed_file_forgets_at_once_and_a_broken_one_changes_nothing() {
        let (folder, basic) = site(RIGHT);
        let file = folder.path().join("htpasswd");
        let (old, new) = (
            basic_header("docker", "correct horse"),
            basic_header("docker", "new"),
        );
        assert_eq!(ask(&basic, &old).await, Ok(docker()));

        fs::write(&file, "docker:new\n").unwrap();
        basic.refresh();
        assert_eq!(ask(&basic, &old).await, Err(Refusal::Unauthorized));
        assert_eq!(ask(&basic, &new).await, Ok(docker()));

        fs::write(&file, "broken\n").unwrap();
        basic.refresh();
        assert_eq!(ask(&basic, &new).await, Ok(docker()));
        fs::remove_file(&file).unwrap();
        basic.refresh();
        assert_eq!(ask(&basic, &new).await, Ok(docker()));

        fs::write(folder.path().join("next"), RIGHT).unwrap();
        fs::rename(folder.path().join("next"), &file).unwrap();
        basic.refresh();
        assert_eq!(ask(&basic, &new).await, Err(Refusal::Unauthorized));
        assert_eq!(ask(&basic, &old).await, Ok(docker()));
    }
}
