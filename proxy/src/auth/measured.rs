//! What the benchmarks time from outside, and nobody else needs.

use std::time::Duration;

use http::HeaderMap;
use openssl::error::ErrorStack;

use super::remembered::Remembered;
use super::{Origin, Presented, User};

/// A password that was right a moment ago.
pub struct KnownPassword(Remembered);

impl KnownPassword {
    /// Remembers it.
    ///
    /// # Errors
    /// OpenSSL's, when it has no random numbers.
    pub fn new(name: &str, password: &[u8]) -> Result<Self, ErrorStack> {
        let remembered = Remembered::new(Duration::from_secs(3600))?;
        let user = User {
            name: name.into(),
            origin: Origin::Password,
            groups: Box::default(),
        };
        let fingerprint = remembered.fingerprint(name, password);
        remembered.settle(fingerprint, Some(&user.into()));
        Ok(Self(remembered))
    }

    /// Whether a request brings it: all that a password costs, but for the first time.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let Presented::Login(login) = Presented::of(headers) else {
            return false;
        };
        let fingerprint = self.0.fingerprint(&login.name, &login.password);
        self.0.user(&fingerprint).is_some()
    }
}
