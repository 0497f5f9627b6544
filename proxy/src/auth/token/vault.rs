//! What the edge keeps for tokens in its state directory, opened once for all sites.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use hmac::{Hmac, KeyInit as _, Mac as _};
use openssl::rand::rand_bytes;
use sha2::Sha256;

use super::issuer::{Fetched, Source};
use super::keys::{Keys, KeysError};
use super::secret;
use super::sessions::Sessions;
use super::used::{Thing, Used};
use crate::auth::Origin;
use crate::auth::robots::Robots;
use crate::state_dir::{self, StateDir};

const SECRET_BYTES: usize = 32;

/// Why no tokens can be handed out.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The files cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The state directory.
        path: std::path::PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no key to sign with.
    #[error("{0}")]
    Keys(String),
}

impl From<KeysError> for VaultError {
    fn from(error: KeysError) -> Self {
        Self::Keys(error.to_string())
    }
}

/// What the state directory holds for tokens.
pub(crate) struct Vault {
    state: StateDir,
    /// There once a site hands out tokens.
    keys: RwLock<Option<Arc<Keys>>>,
    secret: OnceLock<Hmac<Sha256>>,
    pub(crate) robots: Robots,
    pub(crate) sessions: Sessions,
    pub(crate) used: Used,
    /// What comes from URLs, for as long as a site asks for it.
    fetched: Mutex<Vec<Weak<Fetched>>>,
}

impl Vault {
    /// Reads what is there, and makes nothing.
    pub(crate) fn new(state: &StateDir) -> Self {
        let vault = Self {
            state: state.clone(),
            keys: RwLock::default(),
            secret: OnceLock::new(),
            robots: Robots::new(state.clone()),
            sessions: Sessions::new(state.clone()),
            used: Used::new(state.clone()),
            fetched: Mutex::default(),
        };
        vault.refresh();
        vault
    }

    /// Makes ready to hand out tokens: there is a key, and there is a secret.
    pub(crate) fn prepare(&self) -> Result<(), VaultError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.is_none() {
            let secret = self.open_secret().map_err(|source| VaultError::Io {
                path: self.state.path().to_owned(),
                source,
            })?;
            self.secret.set(secret).ok();
            *keys = Some(Arc::new(Keys::open(&self.state, now())?));
        }
        Ok(())
    }

    fn open_secret(&self) -> io::Result<Hmac<Sha256>> {
        let path = self.state.make("tokens")?.join("secret");
        let bytes = match state_dir::read(&path, 1024) {
            Ok(bytes) if bytes.len() == SECRET_BYTES => bytes,
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "tokens/secret is not 32 bytes long: remove it for a new one",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = vec![0; SECRET_BYTES];
                rand_bytes(&mut bytes)?;
                state_dir::create(&path, &bytes)?;
                bytes
            }
            Err(error) => return Err(error),
        };
        Hmac::new_from_slice(&bytes).map_err(io::Error::other)
    }

    /// Picks up what has changed in the folder, and what the time has changed.
    pub(crate) fn refresh(&self) {
        let now = now();
        self.robots.refresh();
        self.sessions.refresh(now);
        if let Some(keys) = self.keys() {
            keys.refresh(now);
        }
        if self.used.is_due(now) {
            let sessions = self.sessions.ids();
            self.used.write(now, |thing| match thing {
                Thing::Robot(name) => self.robots.exists(name),
                Thing::Session(id) => sessions.contains(id),
            });
        }
    }

    /// Returns what comes from `source`, which is fetched in the background and outlives a reload.
    pub(crate) fn fetched(&self, source: &Source) -> Arc<Fetched> {
        let mut all = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|fetched| fetched.strong_count() > 0);
        let mut known = all.iter().filter_map(Weak::upgrade);
        known
            .find(|fetched| fetched.source == *source)
            .unwrap_or_else(|| {
                let fetched = Arc::new(Fetched::new(source.clone()));
                all.push(Arc::downgrade(&fetched));
                fetched
            })
    }

    /// Returns what is to be fetched now.
    pub(crate) fn to_fetch(&self) -> Vec<Arc<Fetched>> {
        let all = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.iter().filter_map(Weak::upgrade);
        known.filter(|fetched| fetched.is_due(now())).collect()
    }

    /// Returns the keys, once there are some.
    pub(crate) fn keys(&self) -> Option<Arc<Keys>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// Returns what stands for a credential in what is handed out: it changes with the password
    /// whose `digest` it is, and says nothing about it.
    pub(crate) fn fingerprint(&self, origin: Origin, name: &str, digest: &[u8]) -> Option<String> {
        let hmac = self.secret.get()?.clone();
        let sum = hmac
            .chain_update([origin as u8])
            .chain_update(name.len().to_be_bytes())
            .chain_update(name)
            .chain_update(digest)
            .finalize()
            .into_bytes();
        Some(secret::hex(sum.get(..16)?))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Returns the time, in seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
