//! Which credentials were right a moment ago, so that bcrypt is paid once and not on each request.
//!
//! What is kept is a keyed hash of name and password; the key is random and lives as long as the
//! loaded file does, so a new file forgets everything and a memory dump is worth little.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use moka::sync::Cache;
use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;
use sha2::Sha256;
use tokio::sync::OnceCell;

use super::User;

/// More users than this at once are let in all the same; some pay for bcrypt again.
const REMEMBERED_MAX: u64 = 10_000;

/// How long a verification may be shared: far longer than one takes, so that this only cleans up
/// after clients who went away in the middle of one.
const PENDING_FOR: Duration = Duration::from_secs(60);

/// A keyed hash of a name and a password.
pub(super) type Fingerprint = [u8; 32];

/// The credentials that were found right, and those being verified now.
pub(super) struct Remembered {
    /// Keyed once: OpenSSL's takes most of its time to get ready.
    hmac: Hmac<Sha256>,
    right: Cache<Fingerprint, Arc<User>>,
    pending: Cache<Fingerprint, Arc<OnceCell<bool>>>,
}

impl Remembered {
    /// Remembers nobody yet, and each for `remember_for`.
    pub(super) fn new(remember_for: Duration) -> Result<Self, ErrorStack> {
        let mut key = [0; 64];
        rand_bytes(&mut key)?;
        Ok(Self {
            hmac: Hmac::new(&key.into()),
            right: Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_live(remember_for)
                .build(),
            pending: Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_live(PENDING_FOR)
                .build(),
        })
    }

    /// Returns what stands for a name and a password in here.
    pub(super) fn fingerprint(&self, name: &str, password: &[u8]) -> Fingerprint {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        let hmac = self.hmac.clone();
        hmac.chain_update(name.len().to_be_bytes())
            .chain_update(name)
            .chain_update(password)
            .finalize()
            .into_bytes()
            .into()
    }

    /// Returns whose credentials these were found to be not long ago.
    pub(super) fn user(&self, fingerprint: &Fingerprint) -> Option<Arc<User>> {
        self.right.get(fingerprint)
    }

    /// Returns where all who bring these credentials now wait for the one verification.
    pub(super) fn pending(&self, fingerprint: Fingerprint) -> Arc<OnceCell<bool>> {
        self.pending.get_with(fingerprint, Arc::default)
    }

    /// Ends the wait: right credentials are remembered, wrong ones are not.
    pub(super) fn settle(&self, fingerprint: Fingerprint, user: Option<&Arc<User>>) {
        if let Some(user) = user {
            self.right.insert(fingerprint, Arc::clone(user));
        }
        self.pending.invalidate(&fingerprint);
    }

    /// Forgets everyone, as time does.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.right.invalidate_all();
    }
}
