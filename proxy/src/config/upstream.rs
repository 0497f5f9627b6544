//! `[[upstream]]`, and the registry as one of them: what stands behind the edge.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use settings::Section;

use super::limits::timeout;
use super::{Limits, RegistryPeer};

/// The name by which a site asks for the registry.
pub(super) const REGISTRY: &str = "registry";

/// A Unix socket's path must fit into the kernel's structure, with a zero after it.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A service behind the edge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    /// The addresses that it answers at, each as good as the other.
    pub(crate) peers: Vec<PeerAddress>,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
    /// It is the registry: it gets the API alone, and who is asking.
    pub(crate) registry: bool,
}

/// Where an upstream listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum PeerAddress {
    /// `127.0.0.1:3000`
    Tcp(SocketAddr),
    /// `unix:/run/x.sock`
    Unix(PathBuf),
}

/// Why a text is no peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum PeerAddressError {
    #[error("must be an address and a port, such as \"127.0.0.1:3000\", or \"unix:/run/x.sock\"")]
    Address,
    #[error("the path of a Unix socket must be absolute and {SOCKET_PATH_BYTES_MAX} bytes at most")]
    Path,
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, PeerAddressError> {
        match text.strip_prefix("unix:") {
            Some(path) if is_socket_path(path) => Ok(Self::Unix(path.into())),
            Some(_) => Err(PeerAddressError::Path),
            None => match text.parse() {
                Ok(address) => Ok(Self::Tcp(address)),
                Err(_) => Err(PeerAddressError::Address),
            },
        }
    }
}

fn is_socket_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= SOCKET_PATH_BYTES_MAX && !path.contains('\0')
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads every `[[upstream]]` and adds the registries.
pub(super) fn read_all(
    root: &mut Section,
    registries: &[RegistryPeer],
    limits: Limits,
) -> Vec<Arc<Upstream>> {
    let registry = |registry: &RegistryPeer| {
        Arc::new(Upstream {
            name: registry.name.clone(),
            peers: vec![PeerAddress::Unix(registry.socket.clone())],
            connect_timeout: limits.upstream_connect_timeout,
            read_timeout: limits.upstream_read_timeout,
            registry: true,
        })
    };
    let mut upstreams: Vec<Arc<Upstream>> = registries.iter().map(registry).collect();
    for mut section in root.tables("upstream") {
        let name: Option<String> = section.required("name");
        let name = name.unwrap_or_default();
        if name == REGISTRY {
            section.problem(
                "name",
                "is the name of the registry that [registry] describes",
            );
        } else if let Some(other) = upstreams.iter().find(|other| other.name == name) {
            let kind = if other.registry {
                "a [[registry.instance]]"
            } else {
                "another upstream"
            };
            section.problem("name", format!("{name:?}: {kind} has it already"));
        }
        let absent = !section.has("peers");
        let peers = section.parsed_list("peers").unwrap_or_default();
        if absent {
            section.problem("peers", "is missing");
        } else if peers.is_empty() && !section.failed() {
            section.problem("peers", "must name one address at least");
        }
        let connect_timeout = timeout(&mut section, "connect_timeout");
        let read_timeout = timeout(&mut section, "read_timeout");
        upstreams.push(Arc::new(Upstream {
            name,
            peers,
            connect_timeout: connect_timeout.unwrap_or(limits.upstream_connect_timeout),
            read_timeout: read_timeout.unwrap_or(limits.upstream_read_timeout),
            registry: false,
        }));
    }
    upstreams
}
