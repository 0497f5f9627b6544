//! The keys that this edge signs tokens with.
//!
//! ES256: what distribution verifies in all its versions (2.8 knows no `EdDSA`), with signatures short
//! enough for a header. Each key is a file `TIME.pem`, made at TIME: the key, and a certificate of it
//! for those who trust by `rootcertbundle`. A new key is published for an hour before it signs, and an
//! old one verifies until nothing that it signed is valid any more. Remove the files, and within a
//! second the edge has a new key and no token that was signed before is good for anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, fs, io};

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, EncodingKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use serde_json::{Value, json};

use super::jose::{self, KeyError, PublicKey};
use crate::self_signing;
use crate::state_dir::{self, StateDir};
use crate::watch::FolderWatch;

/// How old a key may be when it signs.
const SIGNS_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// How long a key is published before it signs, so that nobody meets a signature of a key that its
/// copy of the key set does not have yet.
const PUBLISHED_AHEAD: Duration = Duration::from_secs(60 * 60);

/// How long a key verifies after the next one began to sign: longer than a token can live.
const VERIFIES_ON: Duration = Duration::from_secs(25 * 60 * 60);

/// No file of a key is longer.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The certificates of all keys, for who trusts by certificate.
const CERTIFICATES: &str = "certificates.pem";

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// A file is no key.
    #[error("{}: {source}", path.display())]
    Key { path: PathBuf, source: KeyError },
    /// The files cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// OpenSSL makes no key.
    #[error(transparent)]
    OpenSsl(#[from] ErrorStack),
}

/// The keys in force, oldest first; there is one at least.
pub(crate) struct Keys {
    folder: PathBuf,
    ring: ArcSwap<Ring>,
    watch: FolderWatch,
    /// Whether the folder could not be used the last time, which was told then.
    damaged: AtomicBool,
}

struct Ring {
    keys: Vec<Arc<Key>>,
}

/// One key.
pub(crate) struct Key {
    /// When it was made, in seconds since 1970.
    made: u64,
    /// The name that libtrust gives it, which tokens carry.
    pub(crate) id: String,
    pub(crate) signing: EncodingKey,
    pub(crate) public: PublicKey,
    certificate: String,
}

impl Keys {
    /// Reads the keys in the state directory, and makes one if there is none.
    pub(crate) fn open(state: &StateDir, now: u64) -> Result<Self, KeysError> {
        jose::install();
        let folder = state.make("tokens/keys").map_err(|source| KeysError::Io {
            path: state.path().to_owned(),
            source,
        })?;
        let ring = Ring::read(&folder, now)?;
        ring.publish(&folder)?;
        Ok(Self {
            folder,
            ring: ArcSwap::from_pointee(ring),
            watch: FolderWatch::default(),
            damaged: AtomicBool::new(false),
        })
    }

    /// Makes, takes up and gives up keys as the time has come; what fails is told once.
    pub(crate) fn refresh(&self, now: u64) {
        let due = self.ring.load().is_due(now);
        self.watch.look(&self.folder, due, || self.read(now));
    }

    /// Takes what is in the folder; returns whether it could be used.
    fn read(&self, now: u64) -> bool {
        let old = self.ring.load_full();
        self.forget_removed(&old);
        let ring = Ring::read(&self.folder, now).and_then(|ring| {
            ring.publish(&self.folder)?;
            Ok(ring)
        });
        let known = self.damaged.swap(ring.is_err(), Ordering::Relaxed);
        match ring {
            Ok(ring) => {
                let ids = |ring: &Ring| -> Vec<String> {
                    ring.keys.iter().map(|key| key.id.clone()).collect()
                };
                if ids(&ring) != ids(&self.ring.load()) {
                    tracing::info!(keys = ring.keys.len(), "the keys of tokens have changed");
                }
                self.ring.store(Arc::new(ring));
                true
            }
            Err(error) => {
                if !known {
                    tracing::error!(%error, "the other keys of tokens stay as they were");
                }
                false
            }
        }
    }

    /// Gives up at once every key whose file is gone, whatever the others are like.
    fn forget_removed(&self, ring: &Ring) {
        let there = |key: &&Arc<Key>| {
            let file = self.folder.join(format!("{}.pem", key.made));
            !matches!(fs::symlink_metadata(file), Err(error) if error.kind() == io::ErrorKind::NotFound)
        };
        let kept: Vec<Arc<Key>> = ring.keys.iter().filter(there).cloned().collect();
        if kept.len() < ring.keys.len() {
            self.ring.store(Arc::new(Ring { keys: kept }));
        }
    }

    /// Returns the key that signs at `now`.
    pub(crate) fn signing(&self, now: u64) -> Option<Arc<Key>> {
        self.ring.load().signing(now).cloned()
    }

    /// Returns the key of that name.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Key>> {
        let ring = self.ring.load();
        ring.keys.iter().find(|key| key.id == id).cloned()
    }

    /// Returns the keys for whoever verifies tokens of this edge (RFC 7517).
    pub(crate) fn key_set(&self) -> Value {
        let ring = self.ring.load();
        let keys: Vec<Value> = ring
            .keys
            .iter()
            .filter_map(|key| key.public.to_jwk(&key.id).ok())
            .collect();
        json!({ "keys": keys })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Ring {
    /// Reads the folder, with a new key where one is needed and without those whose time is over.
    fn read(folder: &Path, now: u64) -> Result<Self, KeysError> {
        let failed = |source| KeysError::Io {
            path: folder.to_owned(),
            source,
        };
        let files = state_dir::read_all(folder, ".pem", FILE_BYTES_MAX).map_err(failed)?;
        let mut keys = Vec::new();
        for (name, pem) in files {
            // Other names are no keys of ours.
            if let Ok(made) = name.parse() {
                let path = folder.join(format!("{name}.pem"));
                let key =
                    Key::read(made, &pem).map_err(|source| KeysError::Key { path, source })?;
                keys.push(Arc::new(key));
            }
        }
        keys.sort_by_key(|key| key.made);
        let mut ring = Self { keys };
        if ring.needs_new(now) {
            let made = ring.keys.last().map_or(now, |last| now.max(last.made + 1));
            let pem = Key::generate()?;
            let path = folder.join(format!("{made}.pem"));
            state_dir::create(&path, &pem).map_err(failed)?;
            let key = Key::read(made, &pem).map_err(|source| KeysError::Key { path, source })?;
            tracing::info!(id = key.id, "made a key for tokens");
            ring.keys.push(Arc::new(key));
        }
        while ring.oldest_is_over(now) {
            let over = ring.keys.remove(0);
            state_dir::remove(&folder.join(format!("{}.pem", over.made))).map_err(failed)?;
            tracing::info!(id = over.id, "gave up a key of tokens");
        }
        Ok(ring)
    }

    /// Writes the certificates beside the keys' folder, for who trusts by them.
    fn publish(&self, folder: &Path) -> Result<(), KeysError> {
        let path = folder.with_file_name(CERTIFICATES);
        let text: String = self.keys.iter().map(|key| &*key.certificate).collect();
        if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        state_dir::replace(&path, text.as_bytes()).map_err(|source| KeysError::Io { path, source })
    }

    fn signing(&self, now: u64) -> Option<&Arc<Key>> {
        let ready = |key: &&Arc<Key>| key.made + PUBLISHED_AHEAD.as_secs() <= now;
        // The first key of all signs at once.
        self.keys
            .iter()
            .rev()
            .find(ready)
            .or_else(|| self.keys.first())
    }

    fn needs_new(&self, now: u64) -> bool {
        let until = SIGNS_FOR - PUBLISHED_AHEAD;
        self.keys
            .last()
            .is_none_or(|last| last.made + until.as_secs() <= now)
    }

    fn oldest_is_over(&self, now: u64) -> bool {
        let long = PUBLISHED_AHEAD + VERIFIES_ON;
        self.keys
            .get(1)
            .is_some_and(|next| next.made + long.as_secs() <= now)
    }

    fn is_due(&self, now: u64) -> bool {
        self.needs_new(now) || self.oldest_is_over(now)
    }
}

impl Key {
    /// Makes a key and its certificate, as PEM.
    fn generate() -> Result<Vec<u8>, ErrorStack> {
        let key = self_signing::key()?;
        let certificate = certify(&key)?;
        Ok([key.private_key_to_pem_pkcs8()?, certificate.to_pem()?].concat())
    }

    fn read(made: u64, pem: &[u8]) -> Result<Self, KeyError> {
        let key = PKey::private_key_from_pem(pem)?;
        let public = PKey::public_key_from_der(&key.public_key_to_der()?)?;
        let public = PublicKey::new(public, Some(Algorithm::ES256))?;
        let certificate = X509::from_pem(pem)?.to_pem()?;
        Ok(Self {
            made,
            id: public.libtrust_id()?,
            signing: jose::encoding(&key)?,
            public,
            certificate: String::from_utf8_lossy(&certificate).into_owned(),
        })
    }
}

/// Certifies a key by itself. Nobody looks at more than the key in it; it ends long after the key.
fn certify(key: &PKey<Private>) -> Result<X509, ErrorStack> {
    let mut builder = self_signing::begin(key, "Tidegate tokens", 3650)?;
    builder.sign(key, MessageDigest::sha256())?;
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;
    const START: u64 = 1_700_000_000;

    fn ids(keys: &Keys) -> Vec<String> {
        keys.ring
            .load()
            .keys
            .iter()
            .map(|key| key.id.clone())
            .collect()
    }

    #[test]
    fn a_key_is_made_once_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        let first = ids(&Keys::open(&state, START).unwrap());
        let keys = Keys::open(&state, START + DAY).unwrap();
        assert_eq!((ids(&keys), first.len()), (first.clone(), 1));
        assert_eq!(keys.signing(START + DAY).unwrap().id, first[0]);
        let set = keys.key_set();
        assert_eq!(set["keys"][0]["kid"], *first[0]);
        assert_eq!(set["keys"][0]["alg"], "ES256");
        assert_eq!(set["keys"][0].get("d"), None);
        let pem = fs::read(folder.path().join("tokens/certificates.pem")).unwrap();
        assert_eq!(X509::stack_from_pem(&pem).unwrap().len(), 1);
        assert!(!String::from_utf8(pem).unwrap().contains("PRIVATE"));
    }

    #[test]
    fn keys_take_turns_with_an_overlap() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(&StateDir::new(folder.path()), START).unwrap();
        let first = ids(&keys).remove(0);
        keys.refresh(START + 89 * DAY);
        assert_eq!(ids(&keys), std::slice::from_ref(&first));
        // The second is published an hour before it signs.
        let published = START + 90 * DAY - 3600;
        keys.refresh(published);
        let both = ids(&keys);
        assert_eq!((both.len(), &both[0]), (2, &first));
        assert_eq!(keys.signing(published + 3599).unwrap().id, first);
        assert_eq!(keys.signing(published + 3600).unwrap().id, both[1]);
        assert!(keys.find(&first).is_some());
        // The first verifies until its last token is over.
        keys.refresh(published + DAY);
        assert_eq!(ids(&keys), both);
        keys.refresh(published + DAY + 2 * 3600);
        assert_eq!(ids(&keys), both[1..]);
        assert!(keys.find(&first).is_none());
    }

    #[test]
    fn a_key_that_is_taken_away_is_good_no_more_whatever_else_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(&StateDir::new(folder.path()), START).unwrap();
        let leaked = ids(&keys).remove(0);
        let files = folder.path().join("tokens/keys");
        fs::write(files.join("1.pem"), "no key").unwrap();
        fs::remove_file(files.join(format!("{START}.pem"))).unwrap();
        keys.refresh(START + 1);
        assert!(keys.find(&leaked).is_none());
        // What is repaired in place leaves the folder as it looks.
        fs::write(files.join("1.pem"), Key::generate().unwrap()).unwrap();
        keys.refresh(START + 2);
        assert!(keys.signing(START + 2).is_some());
    }

    #[test]
    fn without_files_there_is_a_new_key() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(&StateDir::new(folder.path()), START).unwrap();
        let first = ids(&keys);
        let files = folder.path().join("tokens/keys");
        fs::remove_file(files.join(format!("{START}.pem"))).unwrap();
        keys.refresh(START + 1);
        let second = ids(&keys);
        assert_eq!(second.len(), 1);
        assert_ne!(first, second);
        // What is no key changes nothing.
        fs::write(files.join("1.pem"), "no key").unwrap();
        keys.refresh(START + 2);
        assert_eq!(ids(&keys), second);
    }
}
