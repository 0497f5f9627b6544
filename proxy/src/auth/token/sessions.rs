//! Refresh tokens: what `docker login` keeps in the place of the password.
//!
//! Each is a file in the state directory, named by the hash of the token, so that it survives a
//! restart and lets nobody in who reads it. Whoever removes the file has revoked the token: the edge
//! looks at the folder every second. It dies with the password that it was given for.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::secret::{self, Hashed, Purpose, Secret};
use crate::state_dir::{self, StateDir};
use crate::watch::FolderWatch;

const FOLDER: &str = "tokens/sessions";

const FILE_BYTES_MAX: u64 = 16 << 10;

/// More of one user replace the oldest.
const OF_ONE_USER_MAX: usize = 50;

/// More than this in all are refused: whoever logs in does so without one.
const SESSIONS_MAX: usize = 20_000;

/// How often the folder is looked at though nothing has changed in it: what is over is removed.
const LOOK_ANYWAY_SECS: u64 = 60;

/// What one refresh token stands for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Session {
    /// Whose it is.
    pub user: String,
    /// How the user logged in: `password` or `robot`.
    pub origin: String,
    /// The service that it is for.
    pub service: String,
    /// What the client calls itself.
    #[serde(default)]
    pub client: String,
    /// Where the login came from.
    #[serde(default)]
    pub address: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// What stands for the password at that time.
    pub(crate) credential: String,
}

impl Session {
    /// Returns the refresh tokens that are kept, with the name that each is revoked by.
    ///
    /// # Errors
    /// What the system says.
    pub fn list(state: &StateDir) -> io::Result<Vec<(String, Self)>> {
        let files = state_dir::read_all(&state.path().join(FOLDER), ".json", FILE_BYTES_MAX)?;
        let session = |(name, text): (String, Vec<u8>)| {
            let session = serde_json::from_slice(&text).ok()?;
            Some((name.get(..16)?.to_owned(), session))
        };
        Ok(files.into_iter().filter_map(session).collect())
    }

    /// Removes the refresh tokens for which `wanted` holds, by their name and what they stand for;
    /// returns how many.
    ///
    /// # Errors
    /// What the system says.
    pub fn revoke(state: &StateDir, wanted: impl Fn(&str, &Self) -> bool) -> io::Result<usize> {
        let folder = state.path().join(FOLDER);
        let mut removed = 0;
        for (name, text) in state_dir::read_all(&folder, ".json", FILE_BYTES_MAX)? {
            let session = serde_json::from_slice(&text).ok();
            let id = name.get(..16).unwrap_or(&name);
            if session.is_some_and(|session| wanted(id, &session))
                && state_dir::remove(&folder.join(format!("{name}.json")))?
            {
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn is_over(&self, now: u64) -> bool {
        self.expires <= now
    }
}

/// The refresh tokens that the edge knows at this moment.
#[derive(Debug)]
pub(crate) struct Sessions {
    state: StateDir,
    /// One begins at a time, or many at once would be more than there may be.
    beginning: Mutex<()>,
    known: Mutex<HashMap<Hashed, Arc<Session>>>,
    watch: FolderWatch,
    /// When the folder was last looked into.
    looked: AtomicU64,
}

impl Sessions {
    /// Knows none until the first [`Sessions::refresh`].
    pub(crate) fn new(state: StateDir) -> Self {
        Self {
            state,
            beginning: Mutex::default(),
            known: Mutex::default(),
            watch: FolderWatch::default(),
            looked: AtomicU64::new(0),
        }
    }

    /// Takes up what is in the folder, forgets what is not, and removes what is over.
    pub(crate) fn refresh(&self, now: u64) {
        let folder = self.state.path().join(FOLDER);
        let due = now >= self.looked.load(Ordering::Relaxed) + LOOK_ANYWAY_SECS;
        self.watch.look(&folder, due, || {
            self.looked.store(now, Ordering::Relaxed);
            if let Err(error) = self.read(&folder, now) {
                // Tried again when it is looked at anyway.
                tracing::error!(%error, folder = %folder.display(), "cannot be read");
            }
            true
        });
    }

    fn read(&self, folder: &Path, now: u64) -> io::Result<()> {
        // What is known has had its file before, so that whatever has none by now has lost it.
        let before: Vec<(Hashed, bool)> = {
            let known = self.known();
            let each = known.iter();
            each.map(|(hash, session)| (*hash, session.is_over(now)))
                .collect()
        };
        let names = state_dir::names(folder, ".json")?;
        let there: HashSet<Hashed> = names
            .iter()
            .filter_map(|name| secret::unhex(name))
            .collect();
        for (hash, over) in before {
            if over {
                state_dir::remove(&self.path(&hash)).ok();
            }
            if over || !there.contains(&hash) {
                self.known().remove(&hash);
            }
        }
        for hash in there {
            if self.known().contains_key(&hash) {
                continue;
            }
            let text = state_dir::read(&self.path(&hash), FILE_BYTES_MAX);
            let session = text
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok());
            match session {
                Some(session) if Session::is_over(&session, now) => {
                    state_dir::remove(&self.path(&hash)).ok();
                }
                Some(session) => {
                    self.known().insert(hash, Arc::new(session));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Keeps a session and returns the token for it; `None` when there are too many. This waits for
    /// the disk.
    pub(crate) fn begin(&self, session: Session) -> io::Result<Option<Secret>> {
        let _alone = self
            .beginning
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let token = Secret::random(Purpose::Refresh)?;
        let hash = token.hashed();
        let mut own: Vec<(u64, Hashed)> = Vec::new();
        {
            let known = self.known();
            if known.len() >= SESSIONS_MAX {
                return Ok(None);
            }
            let of_user = known.iter().filter(|(_, other)| {
                (&other.user, &other.origin) == (&session.user, &session.origin)
            });
            own.extend(of_user.map(|(hash, other)| (other.created, *hash)));
        }
        self.state.make(FOLDER)?;
        own.sort_unstable();
        let too_many = (own.len() + 1).saturating_sub(OF_ONE_USER_MAX);
        for (_, oldest) in own.iter().take(too_many) {
            state_dir::remove(&self.path(oldest))?;
            self.known().remove(oldest);
        }
        let text = serde_json::to_vec_pretty(&session).unwrap_or_default();
        state_dir::create(&self.path(&hash), &text)?;
        self.known().insert(hash, Arc::new(session));
        Ok(Some(token))
    }

    /// Returns what a refresh token stands for, if it is one that still holds.
    pub(crate) fn find(&self, token: &str, now: u64) -> Option<(String, Arc<Session>)> {
        let hash = Secret::parse(token.as_bytes(), Purpose::Refresh)?.hashed();
        let session = self.known().get(&hash).map(Arc::clone)?;
        let id = secret::hex(&hash).get(..16)?.to_owned();
        (!session.is_over(now)).then_some((id, session))
    }

    /// Returns the names that the sessions are revoked by.
    pub(crate) fn ids(&self) -> HashSet<String> {
        let hex = |hash: &Hashed| secret::hex(hash.get(..8).unwrap_or_default());
        self.known().keys().map(hex).collect()
    }

    fn path(&self, hash: &Hashed) -> PathBuf {
        let folder = self.state.path().join(FOLDER);
        folder.join(format!("{}.json", secret::hex(hash)))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Hashed, Arc<Session>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(user: &str, created: u64) -> Session {
        Session {
            user: user.to_owned(),
            origin: "password".to_owned(),
            service: "a.test".to_owned(),
            client: "docker".to_owned(),
            address: "127.0.0.1".to_owned(),
            created,
            expires: created + 1000,
            credential: "c".to_owned(),
        }
    }

    #[test]
    fn a_refresh_token_survives_a_restart_and_ends_with_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        let sessions = Sessions::new(state.clone());
        sessions.refresh(100);
        let token = sessions.begin(session("alice", 100)).unwrap().unwrap();
        let (_, found) = sessions.find(token.reveal(), 200).unwrap();
        assert_eq!(found.user, "alice");
        assert!(sessions.find(token.reveal(), 1100).is_none());
        assert!(sessions.find("tgr_", 200).is_none());
        assert!(
            sessions
                .find(&token.reveal().replace("tgr_", "tgt_"), 200)
                .is_none()
        );

        let sessions = Sessions::new(state.clone());
        assert!(sessions.find(token.reveal(), 200).is_none());
        sessions.refresh(200);
        assert!(sessions.find(token.reveal(), 200).is_some());
        for (name, text) in state_dir::read_all(&folder.path().join(FOLDER), "", 9999).unwrap() {
            assert!(!name.contains(token.reveal()));
            assert!(!String::from_utf8(text).unwrap().contains("tgr_"));
        }
        sessions.refresh(1100);
        assert_eq!(Session::list(&state).unwrap(), []);
    }

    #[test]
    fn who_removes_the_file_has_revoked_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        let sessions = Sessions::new(state.clone());
        let alice = sessions.begin(session("alice", 100)).unwrap().unwrap();
        let bob = sessions.begin(session("bob", 101)).unwrap().unwrap();
        let listed = Session::list(&state).unwrap();
        assert_eq!(listed.len(), 2);
        let removed = Session::revoke(&state, |_, session| session.user == "alice").unwrap();
        assert_eq!(removed, 1);
        sessions.refresh(200);
        assert!(sessions.find(alice.reveal(), 200).is_none());
        let (id, _) = sessions.find(bob.reveal(), 200).unwrap();
        assert_eq!(Session::revoke(&state, |name, _| name == id).unwrap(), 1);
        sessions.refresh(300);
        assert!(sessions.find(bob.reveal(), 300).is_none());
    }

    #[test]
    fn the_sessions_of_one_user_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::new(StateDir::new(folder.path()));
        let begin = |at: u64| sessions.begin(session("alice", 100 + at)).unwrap().unwrap();
        let tokens: Vec<Secret> = (0..=OF_ONE_USER_MAX as u64).map(begin).collect();
        let hold = |token: &Secret| sessions.find(token.reveal(), 200).is_some();
        assert!(!hold(&tokens[0]));
        assert_eq!(
            tokens.iter().filter(|token| hold(token)).count(),
            OF_ONE_USER_MAX
        );
    }
}
