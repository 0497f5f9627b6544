//! What a reload may change: everything but what sockets and threads were made of.

use std::net::SocketAddr;
use std::time::Duration;

use crate::auth::token::vault::VaultError;
use crate::config::{Config, Limits, Listener};
use crate::limits::transfers::Shares;
use crate::state::Unusable;
use crate::state_dir::StateDir;
use crate::tls;
use crate::upstream::UnusablePeer;

/// What was decided once, when the edge was bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fixed {
    /// Of each its address, whether it speaks TLS, and whether the PROXY protocol.
    listeners: Vec<(SocketAddr, bool, bool)>,
    metrics: Option<SocketAddr>,
    state_dir: StateDir,
    workers: usize,
    write_timeout: Duration,
    http2_window: u32,
    http2_max_streams: u32,
    transfers: Shares,
}

/// Why a config cannot take the place of the one in force, which stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What sockets and threads were made of has changed.
    #[error("{}: changed, which needs a restart", keys.join(", "))]
    NeedsRestart {
        /// The keys of the config that cannot change while the edge runs.
        keys: Vec<&'static str>,
    },
    /// No tokens can be handed out.
    #[error("state_dir: {0}")]
    Tokens(#[from] VaultError),
    /// TLS cannot be set up.
    #[error("tls: {0}")]
    Tls(#[from] tls::Error),
    /// An upstream's address cannot be connected to, by its form.
    #[error(transparent)]
    Upstream(#[from] UnusablePeer),
}

impl From<Unusable> for Error {
    fn from(error: Unusable) -> Self {
        match error {
            Unusable::Tls(error) => error.into(),
            Unusable::Upstream(error) => error.into(),
        }
    }
}

impl Fixed {
    /// Takes down what `config` says of it.
    pub(crate) fn of(config: &Config) -> Self {
        let Limits {
            write_timeout,
            http2_window,
            http2_max_streams,
            transfers,
            ..
        } = config.limits;
        Self {
            listeners: config.listeners.iter().map(fixed).collect(),
            metrics: config.metrics.as_ref().map(|metrics| metrics.address),
            state_dir: config.state_dir.clone(),
            workers: config.workers.get(),
            write_timeout,
            http2_window,
            http2_max_streams,
            transfers,
        }
    }

    /// Returns what the streams of HTTP/2 connections may have.
    pub(crate) fn shares(&self) -> Shares {
        self.transfers
    }

    /// Names each key in which `other` differs.
    pub(crate) fn compare(&self, other: &Self) -> Result<(), Error> {
        let keys: Vec<&'static str> = [
            ("listener", self.listeners != other.listeners),
            ("metrics.address", self.metrics != other.metrics),
            ("state_dir", self.state_dir != other.state_dir),
            ("workers", self.workers != other.workers),
            (
                "limits.write_timeout",
                self.write_timeout != other.write_timeout,
            ),
            (
                "limits.http2_window",
                self.http2_window != other.http2_window,
            ),
            (
                "limits.http2_max_streams",
                self.http2_max_streams != other.http2_max_streams,
            ),
            (
                "limits.http2_max_transfers",
                self.transfers.connection != other.transfers.connection,
            ),
            (
                "limits.max_transfers_per_address",
                self.transfers.address != other.transfers.address,
            ),
            (
                "limits.max_transfers",
                self.transfers.process != other.transfers.process,
            ),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect();
        if keys.is_empty() {
            Ok(())
        } else {
            Err(Error::NeedsRestart { keys })
        }
    }
}

fn fixed(listener: &Listener) -> (SocketAddr, bool, bool) {
    (listener.address, listener.tls, listener.proxy_protocol)
}
