//! What stands behind a site: where to connect, and what to do when that fails.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pingora::upstreams::peer::{HttpPeer, Peer as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{self, PeerAddress};
use crate::outage::Outage;
use crate::sentence::sentence;

/// How long a connection is kept for the next request. Shorter than any server's own patience, so
/// that a request does not meet a connection in the moment it is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to learn whether a service takes connections.
const TRIAL_PATIENCE: Duration = Duration::from_secs(1);

/// A service behind the edge.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Whether it answers; it outlives a reload.
    pub(crate) outage: Arc<Outage>,
    place: Place,
}

/// Where it is.
#[derive(Debug)]
enum Place {
    /// The registry, which is spoken to without Pingora's connector.
    Registry(Socket),
    /// Whatever else, at one or more addresses.
    Other {
        /// Made once: each request gets a copy.
        peers: Vec<HttpPeer>,
        addresses: Vec<PeerAddress>,
        next: AtomicUsize,
    },
}

/// The Unix socket of a registry.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
    /// What it last said of itself; locked while it is asked.
    pub(crate) readiness: Arc<Mutex<Option<Readiness>>>,
}

/// What a registry has said of itself.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    /// When.
    pub(crate) at: Instant,
    /// Why it is not ready, a line for each reason.
    pub(crate) problems: Arc<[String]>,
}

/// Everything that stands behind the edge, by name, in the order of the config.
#[derive(Debug)]
pub(crate) struct Upstreams(Vec<(Box<str>, Arc<Upstream>)>);

impl Upstreams {
    /// Makes those that `configs` describe.
    ///
    /// Whether one is lost is known from those `in_force`.
    pub(crate) fn new(
        configs: &[Arc<config::Upstream>],
        in_force: Option<&Self>,
    ) -> Result<Self, UnusablePeer> {
        let made = configs.iter().map(|config| {
            let before = in_force.and_then(|before| before.named(&config.name));
            let outage = before.map(|upstream| Arc::clone(&upstream.outage));
            let upstream = Arc::new(Upstream::new(config, outage)?);
            Ok((config.name.as_str().into(), upstream))
        });
        Ok(Self(made.collect::<Result<_, _>>()?))
    }

    /// Returns the one of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.iter().find(|(known, _)| *known == name).map(|it| it.1)
    }

    /// Visits each with its name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Upstream>)> {
        self.0.iter().map(|(name, upstream)| (&**name, upstream))
    }
}

/// Says that there can be nobody at an address.
#[derive(Debug, thiserror::Error)]
#[error("upstream {address}: {}", sentence(source, None))]
pub struct UnusablePeer {
    address: String,
    source: Box<pingora::Error>,
}

impl Upstream {
    /// Makes the upstream that `config` describes, of which it is known that it is lost, if `outage` says
    /// so.
    pub(crate) fn new(
        config: &config::Upstream,
        outage: Option<Arc<Outage>>,
    ) -> Result<Self, UnusablePeer> {
        Ok(Self {
            outage: outage.unwrap_or_else(|| Arc::new(Outage::new(&config.name))),
            place: Place::of(config)?,
        })
    }

    /// Returns the registry's socket, where it is the registry.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match &self.place {
            Place::Registry(socket) => Some(socket),
            Place::Other { .. } => None,
        }
    }

    /// Returns whether it is the registry.
    pub(crate) fn is_registry(&self) -> bool {
        self.socket().is_some()
    }

    /// Returns how many addresses there are to try.
    pub(crate) fn peer_count(&self) -> usize {
        self.peers().len()
    }

    /// Takes a request's turn: which address it starts with.
    pub(crate) fn turn(&self) -> usize {
        match &self.place {
            Place::Registry(_) => 0,
            Place::Other { next, .. } => next.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Returns the address for the given try of a request.
    pub(crate) fn peer(&self, turn: usize, tries: usize) -> Option<HttpPeer> {
        let peers = self.peers();
        let index = turn.wrapping_add(tries).checked_rem(peers.len())?;
        peers.get(index).cloned()
    }

    /// Returns where the last of so many tries went.
    pub(crate) fn tried(&self, turn: usize, tries: usize) -> Option<String> {
        match &self.place {
            Place::Registry(socket) => Some(socket.path.display().to_string()),
            Place::Other { .. } => {
                let peer = self.peer(turn, tries.checked_sub(1)?)?;
                Some(peer.address().to_string())
            }
        }
    }

    /// Tries whether somebody takes connections at one address at least, at all of them at once.
    pub(crate) async fn takes_connections(&self) -> bool {
        let addresses = match &self.place {
            Place::Registry(_) => &[],
            Place::Other { addresses, .. } => addresses.as_slice(),
        };
        let mut trials = JoinSet::new();
        for address in addresses.iter().cloned() {
            trials.spawn(async move {
                let connected = timeout(TRIAL_PATIENCE, async {
                    match address {
                        PeerAddress::Tcp(address) => TcpStream::connect(address).await.map(drop),
                        PeerAddress::Unix(path) => UnixStream::connect(path).await.map(drop),
                    }
                });
                matches!(connected.await, Ok(Ok(())))
            });
        }
        while let Some(connected) = trials.join_next().await {
            if connected.unwrap_or_default() {
                return true;
            }
        }
        false
    }

    fn peers(&self) -> &[HttpPeer] {
        match &self.place {
            Place::Registry(_) => &[],
            Place::Other { peers, .. } => peers,
        }
    }
}

impl Place {
    fn of(config: &config::Upstream) -> Result<Self, UnusablePeer> {
        // The registry's, too: it is made to learn whether there can be anybody.
        let peers = config.peers.iter().map(|address| peer(address, config));
        let peers = peers.collect::<Result<_, _>>()?;
        if let (true, [PeerAddress::Unix(path)]) = (config.registry, config.peers.as_slice()) {
            return Ok(Self::Registry(Socket {
                path: path.clone(),
                connect_timeout: config.connect_timeout,
                read_timeout: config.read_timeout,
                readiness: Arc::default(),
            }));
        }
        Ok(Self::Other {
            peers,
            addresses: config.peers.clone(),
            next: AtomicUsize::new(0),
        })
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
