//! What stands behind a site: where to connect, and what to do when that fails.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;

use crate::config::{self, PeerAddress};

/// How long a connection is kept for the next request. Shorter than any server's own patience, so
/// that a request does not meet a connection in the moment it is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A service behind the edge, at one or more addresses.
#[derive(Debug)]
pub(crate) struct Upstream {
    registry: bool,
    socket: Option<Socket>,
    /// Made once: each request gets a copy.
    peers: Vec<HttpPeer>,
    next: AtomicUsize,
}

/// The Unix socket of a registry, for who talks to it without Pingora's connector.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
}

/// Says that there can be nobody at an address.
#[derive(Debug, thiserror::Error)]
#[error("upstream {address}: {source}")]
pub struct UnusablePeer {
    address: String,
    source: Box<pingora::Error>,
}

impl Upstream {
    /// Makes the upstream that `config` describes.
    pub(crate) fn new(config: &config::Upstream) -> Result<Self, UnusablePeer> {
        let peers: Result<Vec<HttpPeer>, UnusablePeer> = config
            .peers
            .iter()
            .map(|address| peer(address, config))
            .collect();
        let socket = config.peers.iter().find_map(|address| match address {
            PeerAddress::Unix(path) if config.registry => Some(Socket {
                path: path.clone(),
                connect_timeout: config.connect_timeout,
                read_timeout: config.read_timeout,
            }),
            PeerAddress::Unix(_) | PeerAddress::Tcp(_) => None,
        });
        Ok(Self {
            registry: config.registry,
            socket,
            peers: peers?,
            next: AtomicUsize::new(0),
        })
    }

    /// Returns whether it is the registry.
    pub(crate) fn is_registry(&self) -> bool {
        self.registry
    }

    /// Returns its socket, where it is the registry.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    /// Returns how many addresses there are to try.
    pub(crate) fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Takes a request's turn: which address it starts with.
    pub(crate) fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the address for the given try of a request.
    pub(crate) fn peer(&self, turn: usize, tries: usize) -> Option<HttpPeer> {
        let index = turn.wrapping_add(tries).checked_rem(self.peers.len())?;
        self.peers.get(index).cloned()
    }
}

fn peer(address: &PeerAddress, config: &config::Upstream) -> Result<HttpPeer, UnusablePeer> {
    let mut peer = match address {
        PeerAddress::Tcp(address) => HttpPeer::new(address, false, String::new()),
        PeerAddress::Unix(path) => {
            let peer = HttpPeer::new_uds(&path.to_string_lossy(), false, String::new());
            peer.map_err(|source| UnusablePeer {
                address: address.to_string(),
                source,
            })?
        }
    };
    let options = &mut peer.options;
    options.connection_timeout = Some(config.connect_timeout);
    options.total_connection_timeout = Some(config.connect_timeout);
    options.read_timeout = Some(config.read_timeout);
    options.write_timeout = Some(config.read_timeout);
    options.idle_timeout = Some(IDLE_TIMEOUT);
    Ok(peer)
}
