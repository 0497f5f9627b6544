//! The keys of session tickets: what lets a client go on with a session that nobody keeps here.
//!
//! A ticket is the session itself, encrypted. Whoever has its key can read what is said in sessions
//! of TLS 1.2, so keys of our own making live in memory alone, and not for long. Keys from files are
//! for several edges, and for sessions that outlive a restart; whoever writes the files sees to it
//! that they change.

mod callback;

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;

use crate::watch::Watch;

pub(super) use callback::install;

/// How long a key makes tickets, and again how long it opens them: OpenSSL lets no session go on
/// for longer (`tls1_default_timeout`).
const TURN: Duration = Duration::from_secs(2 * 60 * 60);

/// What may be asked of others for a file with a key in it: nothing.
const OTHERS: u32 = 0o007;

/// Whose tickets are opened.
#[derive(Debug)]
pub(crate) enum TicketKeys {
    /// Our own.
    Made(Mutex<Made>),
    /// Also those of whoever has the files.
    Read(FileKeys),
}

/// Keys that are made here, and take turns.
#[derive(Debug)]
pub(crate) struct Made {
    since: Instant,
    keys: Keys,
}

/// Keys from files, which may change.
#[derive(Debug)]
pub(crate) struct FileKeys {
    files: Vec<PathBuf>,
    keys: ArcSwap<Vec<TicketKey>>,
    watch: Watch,
}

/// The first makes tickets, all of them open them.
type Keys = Arc<Vec<TicketKey>>;

/// One key, or rather two: to encrypt with, and to see that nothing was changed.
#[derive(Clone)]
struct TicketKey {
    /// What a ticket says its key by.
    name: [u8; 16],
    /// For AES-CBC: 16 or 32 bytes.
    cipher: Box<[u8]>,
    /// For HMAC with SHA-256.
    mac: Box<[u8]>,
}

/// Why a file gives no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    #[error("{}: has {found} bytes; a key has 80 random ones, or 48", path.display())]
    Length { path: PathBuf, found: usize },
    #[error("{}: anyone may read it, and with it what is said in sessions: chmod o= it", path.display())]
    Open { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

impl TicketKeys {
    /// Makes keys for this process alone.
    pub(crate) fn make() -> Result<Self, super::Error> {
        let keys = Arc::new(vec![TicketKey::random()?]);
        let since = Instant::now();
        Ok(Self::Made(Mutex::new(Made { since, keys })))
    }

    /// Reads a key from each of these files.
    pub(crate) fn load(files: Vec<PathBuf>) -> Result<Self, KeyFileError> {
        let watch = Watch::over(&files);
        let keys = ArcSwap::from_pointee(read_all(&files)?);
        Ok(Self::Read(FileKeys { files, keys, watch }))
    }

    /// Reads the files again if they look changed.
    pub(crate) fn refresh(&self) {
        let Self::Read(read) = self else { return };
        let may_pass = |error: &KeyFileError| matches!(error, KeyFileError::Read { .. });
        let keys = || read_all(&read.files);
        match read.watch.look(&read.files, keys, may_pass) {
            None => {}
            Some(Ok(keys)) => {
                read.keys.store(Arc::new(keys));
                tracing::info!("the keys of session tickets changed, read again");
            }
            Some(Err(error)) => tracing::error!(
                %error,
                "the keys of session tickets changed and cannot be used, they stay as they were"
            ),
        }
    }

    /// Returns the keys of this moment.
    fn now(&self) -> Keys {
        match self {
            Self::Made(made) => {
                let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
                made.at(Instant::now())
            }
            Self::Read(read) => read.keys.load_full(),
        }
    }
}

impl Made {
    fn at(&mut self, now: Instant) -> Keys {
        let age = now.saturating_duration_since(self.since);
        if age >= TURN {
            match TicketKey::random() {
                Ok(key) => {
                    let before = self.keys.first().filter(|_| age < 2 * TURN);
                    self.keys = Arc::new(
                        [Some(&key), before]
                            .into_iter()
                            .flatten()
                            .cloned()
                            .collect(),
                    );
                    self.since = now;
                }
                Err(error) => tracing::error!(%error, "no new key for session tickets"),
            }
        }
        Arc::clone(&self.keys)
    }
}

impl TicketKey {
    fn random() -> Result<Self, ErrorStack> {
        let mut bytes = [0; 80];
        rand_bytes(&mut bytes)?;
        Self::parse(&bytes).ok_or_else(ErrorStack::get)
    }

    /// Takes the bytes of a file as nginx does (`ssl_session_ticket_key`).
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (name, keys) = bytes.split_first_chunk()?;
        let (cipher, mac) = match keys.len() {
            32 => keys.split_at(16),
            64 => {
                let (mac, cipher) = keys.split_at(32);
                (cipher, mac)
            }
            _ => return None,
        };
        Some(Self {
            name: *name,
            cipher: cipher.into(),
            mac: mac.into(),
        })
    }

    fn read(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::Read {
            path: path.to_owned(),
            source,
        };
        let path = path.to_owned();
        let mode = std::fs::metadata(&path).map_err(failed)?.mode();
        if mode & OTHERS != 0 {
            return Err(KeyFileError::Open { path });
        }
        let bytes = std::fs::read(&path).map_err(failed)?;
        let found = bytes.len();
        Self::parse(&bytes).ok_or(KeyFileError::Length { path, found })
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("TicketKey").finish_non_exhaustive()
    }
}

fn read_all(files: &[PathBuf]) -> Result<Vec<TicketKey>, KeyFileError> {
    files.iter().map(|file| TicketKey::read(file)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_take_turns_and_the_one_before_still_opens() {
        let TicketKeys::Made(made) = TicketKeys::make().unwrap() else {
            panic!()
        };
        let mut made = made.into_inner().unwrap();
        let start = made.since;
        let mut names = |after: Duration| -> Vec<[u8; 16]> {
            let keys = made.at(start + after);
            keys.iter().map(|key| key.name).collect()
        };
        let first = names(Duration::ZERO);
        assert_eq!(names(TURN - Duration::from_secs(1)), first);
        let second = names(TURN);
        assert_eq!((second.len(), second[1]), (2, first[0]));
        let third = names(TURN * 2);
        assert_eq!((third.len(), third[1]), (2, second[0]));
        // Nobody came for a long time.
        let late = names(TURN * 9);
        assert!(late.len() == 1 && !third.contains(&late[0]));
    }

    #[test]
    fn files_are_read_as_nginx_reads_them_and_again_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8], mode: u32| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let long: Vec<u8> = (0..80).collect();
        let (a, b) = (file("a", &long, 0o600), file("b", &long[..48], 0o640));
        let keys = TicketKeys::load(vec![a, b]).unwrap();
        let now = keys.now();
        let (first, second) = (&now[0], &now[1]);
        assert_eq!(
            (&first.name[..], &*first.mac, &*first.cipher),
            (&long[..16], &long[16..48], &long[48..])
        );
        assert_eq!(
            (&second.name[..], &*second.cipher, &*second.mac),
            (&long[..16], &long[16..32], &long[32..48])
        );

        let other: Vec<u8> = (1..81).collect();
        file("a", &other, 0o600);
        keys.refresh();
        assert_eq!(keys.now()[0].name, other[..16]);
        file("a", b"short", 0o600);
        keys.refresh();
        assert_eq!(keys.now()[0].name, other[..16]);

        for (path, told) in [
            (file("c", &long, 0o604), "anyone may read it"),
            (file("d", &long[1..], 0o600), "has 79 bytes"),
            (folder.path().join("none"), "No such file"),
        ] {
            let error = TicketKeys::load(vec![path]).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
