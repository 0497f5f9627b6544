//! Who is asking, and what they may do: a [`Principal`], or a refusal.
//!
//! Authentication finds out who it is: [`basic`] by a password, `certificate` by what the handshake
//! has verified, `token` by a signature. Authorisation is `rules` for what the config says and
//! [`Grants`] for what a credential is limited to. Nothing here sends a reply or knows a status.

pub(crate) mod access;
pub(crate) mod attempts;
mod basic;
pub(crate) mod certificate;
mod credentials;
pub(crate) mod failure;
mod grants;
mod groups;
mod hashing;
pub mod htpasswd;
pub(crate) mod identity;
mod md5_crypt;
mod measured;
mod remembered;
pub mod robots;
pub(crate) mod rules;
pub(crate) mod skipped;
pub(crate) mod token;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use attempts::{Attempts, Culprit, Scrutiny};
pub(crate) use basic::Basic;
pub(crate) use credentials::{Login, Presented};
pub(crate) use failure::{Failed, Failure};
pub(crate) use grants::{Actions, Grant, Grants};
pub(crate) use groups::Groups;
pub(crate) use hashing::Hashing;
pub use measured::KnownPassword;

/// Who is asking.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Principal {
    user: Option<Arc<User>>,
    grants: Option<Arc<Grants>>,
}

/// Somebody with a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct User {
    pub(crate) name: Box<str>,
    pub(crate) origin: Origin,
    /// From the group file, or the certificate's organizational units.
    pub(crate) groups: Box<[Box<str>]>,
}

/// How the names of robots begin in logs and for the registry: nobody else may have such a name.
pub(crate) const ROBOT_PREFIX: &str = "robot:";

/// How a name was proven.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Origin {
    /// By a client certificate.
    Certificate,
    /// By a token of another server, which says what it is good for.
    Issuer,
    /// By a password of the htpasswd file.
    Password,
    /// By a token that an administrator made for a program.
    Robot,
}

impl Principal {
    /// Returns nobody in particular.
    pub(crate) fn anonymous() -> Self {
        Self {
            user: None,
            grants: None,
        }
    }

    /// Returns a user whose credentials are limited by nothing.
    pub(crate) fn user(user: Arc<User>) -> Self {
        Self {
            user: Some(user),
            grants: None,
        }
    }

    /// Limits what may be done with these credentials.
    pub(crate) fn limited_to(mut self, grants: Arc<Grants>) -> Self {
        self.grants = Some(grants);
        self
    }

    /// Returns the user, where there is one.
    pub(crate) fn as_user(&self) -> Option<&User> {
        self.user.as_deref()
    }

    /// Returns the user's name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.as_user().map(|user| &*user.name)
    }

    /// Returns what the credentials are limited to.
    pub(crate) fn grants(&self) -> Option<&Grants> {
        self.grants.as_deref()
    }

    /// Returns whether nothing was presented that says anything.
    pub(crate) fn is_nobody(&self) -> bool {
        self.user.is_none() && self.grants.is_none()
    }
}

impl User {
    /// Returns a user of no group.
    pub(crate) fn new(name: impl Into<Box<str>>, origin: Origin) -> Self {
        Self {
            name: name.into(),
            origin,
            groups: Box::default(),
        }
    }
}

/// Why nobody was let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// So many passwords wait to be hashed that one more would wait too long.
    Busy,
    /// Too much has failed here of late, or for this user.
    Throttled {
        /// When there will be room for another try.
        retry_after: Duration,
        culprit: Culprit,
    },
    /// Wrong credentials.
    Unauthorized(Failure),
}
