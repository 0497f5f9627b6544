//! Who is asking: a [`Principal`], or a refusal.
//!
//! Passwords are checked here and nowhere else. What a principal may do in which repository is not
//! decided here yet: whoever is let in may do anything.

mod basic;
pub mod htpasswd;
pub(crate) mod identity;
mod md5_crypt;
mod remembered;

use std::sync::Arc;

pub(crate) use basic::{Basic, Hashing};

/// Who was let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Principal {
    /// The site asks nobody for a name.
    Anonymous,
    /// A user whose password was right.
    User(Arc<str>),
}

impl Principal {
    /// Returns the user's name.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::User(name) => Some(name),
        }
    }
}

/// Why nobody was let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// So many passwords wait to be hashed that one more would wait too long.
    Busy,
    /// No credentials, or wrong ones.
    Unauthorized,
}
