//! What a reload may change: everything but what sockets and threads were made of.

use std::time::Duration;

use crate::config::{Config, Limits, Listener, Tls};
use crate::upstream::UnusablePeer;

/// What was decided once, when the edge was bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fixed {
    listeners: Vec<Listener>,
    tls: Tls,
    workers: usize,
    write_timeout: Duration,
    http2_window: u32,
    http2_max_streams: u32,
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
    /// An upstream's address cannot be connected to, by its form.
    #[error(transparent)]
    Upstream(#[from] UnusablePeer),
}

impl Fixed {
    /// Takes down what `config` says of it.
    pub(crate) fn of(config: &Config) -> Self {
        let Limits {
            write_timeout,
            http2_window,
            http2_max_streams,
            ..
        } = config.limits;
        Self {
            listeners: config.listeners.clone(),
            tls: config.tls.clone(),
            workers: config.workers.get(),
            write_timeout,
            http2_window,
            http2_max_streams,
        }
    }

    /// Names each key in which `other` differs.
    pub(crate) fn compare(&self, other: &Self) -> Result<(), Error> {
        let keys: Vec<&'static str> = [
            ("listener", self.listeners != other.listeners),
            ("tls", self.tls != other.tls),
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
