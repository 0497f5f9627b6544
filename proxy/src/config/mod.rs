//! What the operator wrote, read and proven: a [`Config`], or every problem at once.
//!
//! The files that it names (certificates, keys, htpasswd) are read here too, so that a check says
//! all there is to say. Nothing here opens a socket; `[registry]` and `[log]` are read by others.

mod certificate;
mod host_pattern;
mod limits;
mod listener;
mod site;
mod upstream;

use std::net::IpAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use ipnet::IpNet;
use settings::Section;

pub(crate) use host_pattern::HostPattern;
pub(crate) use limits::Limits;
pub(crate) use listener::{Listener, Tls, TlsVersion};
pub(crate) use site::{Auth, Site};
pub(crate) use upstream::{PeerAddress, Upstream};

/// Long enough for the upload of a large layer over a slow line.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// More threads than this only wait for each other.
const WORKERS_MAX: usize = 256;

/// Where the registry beside the edge listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegistryPeer {
    /// The path of its Unix socket.
    pub socket: PathBuf,
}

/// What an edge needs to know to start, or to go on differently.
#[derive(Debug)]
pub struct Config {
    pub(crate) drain_timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) sites: Vec<Site>,
    pub(crate) tls: Tls,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) workers: NonZero<usize>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads everything of the file but `[log]` and `[registry]`; `registry` is what the latter
    /// says, where there is one.
    ///
    /// `None` means that problems were noted in `root`'s document.
    pub fn read(root: &mut Section, registry: Option<&RegistryPeer>) -> Option<Self> {
        let drain_timeout = root.duration("drain_timeout");
        let workers = root.optional("workers");
        if workers.is_some_and(|workers: NonZero<usize>| workers.get() > WORKERS_MAX) {
            root.problem("workers", format!("must be {WORKERS_MAX} at most"));
        }
        let trusted_proxies = networks(root);
        let limits = root.table("limits").map(Limits::read);
        let tls = root.table("tls").map(Tls::read);
        let listeners = listener::read_all(root);
        let upstreams = upstream::read_all(root, registry, limits.unwrap_or_default());
        let mut warnings = Vec::new();
        let tls_listens = listeners.iter().any(|listener| listener.tls);
        let sites = site::read_all(root, &upstreams, tls_listens, &mut warnings);
        let config = Self {
            drain_timeout: drain_timeout.unwrap_or(DRAIN_TIMEOUT),
            limits: limits.unwrap_or_default(),
            listeners,
            sites,
            tls: tls.unwrap_or_default(),
            trusted_proxies,
            workers: workers
                .unwrap_or_else(|| available_parallelism().unwrap_or(NonZero::<usize>::MIN)),
            warnings,
        };
        (!root.failed()).then_some(config)
    }

    /// Returns what is allowed and yet worth an operator's look, such as a certificate whose time
    /// is over.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Reads the proxies that are trusted; a single address is a network of one.
fn networks(root: &mut Section) -> Vec<IpNet> {
    let key = "trusted_proxies";
    let texts: Vec<String> = root.optional(key).unwrap_or_default();
    let network = |(index, text): (usize, &String)| {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        let parsed: Result<IpNet, _> = text.parse().or_else(|_no_net| address());
        if parsed.is_err() {
            let message = format!("{text:?}: is no address and no network such as \"10.0.0.0/8\"");
            root.problem(&format!("{key}[{index}]"), message);
        }
        parsed.ok()
    };
    texts.iter().enumerate().filter_map(network).collect()
}
