//! Why an edge cannot start, or go on.

use std::io;
use std::net::SocketAddr;

use crate::auth::token::vault::VaultError;
use crate::state::Unusable;
use crate::{tls, upstream};

/// Why an edge cannot start, or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is taken, or not ours to listen at.
    #[error("listen at {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Serving ended without being asked to.
    #[error("serving ended by itself")]
    Ended,
    /// The threads that do the work cannot be started.
    #[error("start the worker threads: {0}")]
    Runtime(#[source] io::Error),
    /// No tokens can be handed out.
    #[error("state_dir: {0}")]
    Tokens(#[from] VaultError),
    /// TLS cannot be set up.
    #[error("tls: {0}")]
    Tls(#[from] tls::Error),
    /// An upstream's address cannot be connected to, by its form.
    #[error(transparent)]
    Upstream(#[from] upstream::UnusablePeer),
}

impl From<Unusable> for Error {
    fn from(error: Unusable) -> Self {
        match error {
            Unusable::Tls(error) => error.into(),
            Unusable::Upstream(error) => error.into(),
        }
    }
}
