//! What a reload changes: everything but what sockets and threads were made of, which is named.

use std::net::SocketAddr;
use std::time::Duration;

use crate::auth::token::vault::VaultError;
use crate::config::{Config, Limits, Listener};
use crate::limits::transfers::Shares;
use crate::state::{State, Unusable};
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
            state_dir: config.state_dir_written.clone(),
            workers: config.workers.get(),
            write_timeout,
            http2_window,
            http2_max_streams,
            transfers,
        }
    }

    /// Returns where what the edge makes itself is kept.
    pub(crate) fn state_dir(&self) -> &StateDir {
        &self.state_dir
    }

    /// Returns what the streams of HTTP/2 connections may have.
    pub(crate) fn shares(&self) -> Shares {
        self.transfers
    }

    /// Names each key in which `wanted` differs, which takes effect with a restart.
    pub(crate) fn differences(&self, wanted: &Self) -> Vec<&'static str> {
        [
            ("listener", self.listeners != wanted.listeners),
            ("metrics.address", self.metrics != wanted.metrics),
            ("state_dir", self.state_dir != wanted.state_dir),
            ("workers", self.workers != wanted.workers),
            (
                "limits.write_timeout",
                self.write_timeout != wanted.write_timeout,
            ),
            (
                "limits.http2_window",
                self.http2_window != wanted.http2_window,
            ),
            (
                "limits.http2_max_streams",
                self.http2_max_streams != wanted.http2_max_streams,
            ),
            (
                "limits.http2_max_transfers",
                self.transfers.connection != wanted.transfers.connection,
            ),
            (
                "limits.max_transfers_per_address",
                self.transfers.address != wanted.transfers.address,
            ),
            (
                "limits.max_transfers",
                self.transfers.process != wanted.transfers.process,
            ),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// Makes a state that was built for `wanted` fit the sockets and threads that there are, so that all
    /// else of it can take the place of the state in force.
    pub(crate) fn fit(&self, state: &mut State, wanted: &Self, in_force: &State) {
        // Who may connect is the new config's word, for each socket that it still names.
        let lists = self.listeners.iter().zip(&in_force.listeners).enumerate();
        let lists = lists.map(|(index, (bound, before))| {
            let now = wanted.index_of(*bound, index);
            let list = now.and_then(|index| state.listeners.get(index));
            list.unwrap_or(before).clone()
        });
        state.listeners = lists.collect();
        if wanted.metrics.is_none() {
            state.metrics = in_force.metrics.clone();
        }
        state.limits.write_timeout = self.write_timeout;
        state.limits.http2_window = self.http2_window;
        state.limits.http2_max_streams = self.http2_max_streams;
        state.limits.transfers = self.transfers;
    }

    /// Finds a listener among these: at its old place, or the first that is like it, or at least has its
    /// address.
    fn index_of(&self, listener: (SocketAddr, bool, bool), index: usize) -> Option<usize> {
        if self.listeners.get(index) == Some(&listener) {
            return Some(index);
        }
        let mut listeners = self.listeners.iter();
        let like = listeners.position(|other| *other == listener);
        let has_address = |other: &(SocketAddr, bool, bool)| other.0 == listener.0;
        like.or_else(|| self.listeners.iter().position(has_address))
    }
}

fn fixed(listener: &Listener) -> (SocketAddr, bool, bool) {
    (listener.address, listener.tls, listener.proxy_protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

    fn fixed(listeners: &[(u16, bool)]) -> Fixed {
        let listener = |&(port, tls)| ((LOCALHOST, port).into(), tls, false);
        Fixed {
            listeners: listeners.iter().map(listener).collect(),
            metrics: None,
            state_dir: StateDir::new("/state"),
            workers: 1,
            write_timeout: Duration::ZERO,
            http2_window: 0,
            http2_max_streams: 0,
            transfers: Limits::default().transfers,
        }
    }

    #[test]
    fn each_listener_finds_its_own_in_the_new_config() {
        let bound = fixed(&[(80, false), (443, true), (444, true), (0, true), (0, true)]);
        let wanted = fixed(&[(443, true), (80, true), (8080, false), (0, true), (0, true)]);
        let found: Vec<_> = bound
            .listeners
            .iter()
            .enumerate()
            .map(|(index, listener)| wanted.index_of(*listener, index))
            .collect();
        assert_eq!(found, [Some(1), Some(0), None, Some(3), Some(4)]);
    }

    #[test]
    fn what_differs_is_named_and_nothing_else() {
        let before = fixed(&[(443, true)]);
        assert!(before.differences(&before).is_empty());
        let wanted = Fixed {
            workers: 2,
            ..fixed(&[(444, true)])
        };
        assert_eq!(before.differences(&wanted), ["listener", "workers"]);
    }
}
