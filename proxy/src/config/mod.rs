//! What the operator wrote, read and proven: a [`Config`], or every problem at once.
//!
//! The files that it names (certificates, keys, htpasswd) are read here too, so that a check says
//! all there is to say. Nothing here opens a socket; `[registry]` and `[log]` are read by others.

mod access;
mod acme;
mod addresses;
mod auth;
mod certificate;
mod client_certificates;
mod host_pattern;
mod limits;
mod listener;
mod logins;
mod metrics;
mod parts;
mod quotas;
mod site;
mod tokens;
mod unmatched;
mod upstream;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use settings::{Purpose, Section};

pub use acme::KeyType;
pub(crate) use acme::{Acme, Authority, Challenge, DnsHook};
pub(crate) use auth::Auth;
pub(crate) use client_certificates::ClientCertificates;
pub(crate) use host_pattern::HostPattern;
pub(crate) use limits::Limits;
pub(crate) use listener::{Listener, Tls, TlsVersion, is_meant};
pub(crate) use logins::{FORGET_AFTER_MAX, Logins};
pub(crate) use metrics::Metrics;
pub use parts::{read_hosts, read_key_types, read_state_dir};
pub(crate) use quotas::{Quota, Quotas};
pub(crate) use site::Site;
pub(crate) use upstream::{PeerAddress, Upstream};

use crate::acme::{Storage, Trouble};
use crate::filter::addresses::Network;
use crate::state_dir::StateDir;

/// Long enough for the upload of a large layer over a slow line.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// More threads than this only wait for each other.
const WORKERS_MAX: usize = 256;

/// Where a registry beside the edge listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegistryPeer {
    /// The name by which a site asks for it.
    pub name: String,
    /// The path of its Unix socket.
    pub socket: PathBuf,
}

/// Whether the files that keys name are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Files {
    LeaveAlone,
    Read,
}

/// What an edge needs to know to start, or to go on differently.
#[derive(Debug)]
pub struct Config {
    /// How certificates are obtained.
    pub(crate) acme: Option<Acme>,
    pub(crate) drain_timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) listeners: Vec<Listener>,
    /// Whether the access log has the names that were tried in vain.
    pub(crate) logs_login_names: bool,
    /// Where figures are told, if anywhere.
    pub(crate) metrics: Option<Metrics>,
    pub(crate) sites: Vec<Site>,
    pub(crate) state_dir: StateDir,
    /// What the file says it is, which counts from the next start on.
    pub(crate) state_dir_written: StateDir,
    pub(crate) tls: Tls,
    pub(crate) trusted_proxies: Box<[Network]>,
    /// Every one, whether a site names it or not.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    pub(crate) workers: NonZero<usize>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads everything of the file but `[log]` and `[registry]`; `registries` are what the
    /// latter describes. The files that it names are read too.
    ///
    /// `None` means that problems were noted in `root`'s document.
    pub fn read(root: &mut Section, registries: &[RegistryPeer]) -> Option<Self> {
        Self::read_with(root, registries, Files::Read, None)
    }

    /// As [`Config::read`], for an edge that runs with this `state_dir` and keeps it.
    pub fn read_again(
        root: &mut Section,
        registries: &[RegistryPeer],
        state_dir: &StateDir,
    ) -> Option<Self> {
        Self::read_with(root, registries, Files::Read, Some(state_dir))
    }

    /// Checks every key, but leaves alone the files that they name: they are not for the eyes of
    /// the registry's user.
    ///
    /// What is returned has nothing to serve.
    pub fn read_keys(root: &mut Section, registries: &[RegistryPeer]) -> Option<Self> {
        let mut config = Self::read_with(root, registries, Files::LeaveAlone, None)?;
        config.listeners.clear();
        config.sites.clear();
        Some(config)
    }

    fn read_with(
        root: &mut Section,
        registries: &[RegistryPeer],
        files: Files,
        kept: Option<&StateDir>,
    ) -> Option<Self> {
        let drain_timeout = limits::wait(root, "drain_timeout");
        let workers = root.optional("workers");
        if workers.is_some_and(|workers: NonZero<usize>| workers.get() > WORKERS_MAX) {
            root.problem("workers", format!("must be {WORKERS_MAX} at most"));
        }
        let trusted_proxies = addresses::networks(root, "trusted_proxies");
        let limits = root.table("limits").map(Limits::read).unwrap_or_default();
        let tls = root
            .table("tls")
            .map(|table| Tls::read(table, files))
            .unwrap_or_default();
        let listeners = listener::read_all(root, &trusted_proxies);
        let upstreams = upstream::read_all(root, registries, limits);
        let mut warnings = Vec::new();
        if trusted_proxies.iter().any(Network::is_everywhere) {
            warnings.push(
                "trusted_proxies: holds every address, so that every client may say whom it is from"
                    .to_owned(),
            );
        }
        let metrics = root.table("metrics");
        let metrics = metrics.and_then(|own| Metrics::read(own, &listeners, &mut warnings));
        let state_dir_written = read_state_dir(root);
        let state_dir = kept.unwrap_or(&state_dir_written).clone();
        let storage = Storage::new(state_dir.clone());
        let acme = root.table("acme").map(|table| Acme::read(table, files));
        let surroundings = site::Surroundings {
            upstreams: &upstreams,
            tls_listens: listeners.iter().any(|listener| listener.tls),
            acme: acme.as_ref().map(|acme| site::AroundAcme {
                storage: &storage,
                has_dns: acme.dns.is_some(),
                key_types: &acme.key_types,
            }),
            acme_failed: root.has("acme") && acme.is_none(),
            files,
        };
        let sites = site::read_all(root, surroundings, &mut warnings);
        warn_of_the_unused(&upstreams, &sites, &mut warnings);
        // Sites may have a file in common.
        let mut told = HashSet::new();
        warnings.retain(|warning| told.insert(warning.clone()));
        let keeps = |site: &Site| site.hands_out_tokens() || site.is_managed();
        if files == Files::Read && sites.iter().any(keeps) {
            check_state_dir(root, &state_dir);
        }
        let one_per_core = || available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let config = Self {
            acme,
            drain_timeout: drain_timeout.unwrap_or(DRAIN_TIMEOUT),
            limits,
            listeners,
            logs_login_names: true,
            metrics,
            sites,
            state_dir,
            state_dir_written,
            tls,
            trusted_proxies,
            upstreams,
            workers: workers.unwrap_or_else(one_per_core),
            warnings,
        };
        (!root.failed()).then_some(config)
    }

    /// Says whether the access log has the names that were tried in vain; it has, if nobody says so.
    pub fn log_login_names(&mut self, wanted: bool) {
        self.logs_login_names = wanted;
    }

    /// Returns whether a key is needed to sign tokens with.
    pub(crate) fn hands_out_tokens(&self) -> bool {
        self.sites.iter().any(Site::hands_out_tokens)
    }

    /// Returns whether there is a certificate to be obtained.
    pub fn looks_after_certificates(&self) -> bool {
        self.sites.iter().any(Site::is_managed)
    }

    /// Returns what is wrong with the certificates that are looked after.
    pub fn certificate_troubles(&self) -> Vec<Trouble> {
        let storage = Storage::new(self.state_dir.clone());
        let certificates = self.sites.iter().flat_map(|site| &site.certificates);
        certificates
            .filter_map(|certificate| {
                let name = &certificate.upkeep.as_ref()?.name;
                Trouble::of(name, &certificate.key, &storage.record(name).ok()?)
            })
            .collect()
    }

    /// Returns the certificates whose time is over and which nobody renews here, each as a sentence. The
    /// edge serves them all the same: a client may accept one, and none accepts a closed port.
    pub fn expired_certificates(&self) -> Vec<String> {
        let certificates = self.sites.iter().flat_map(|site| &site.certificates);
        let own = certificates.filter(|certificate| certificate.upkeep.is_none());
        let expired = own.filter(|certificate| certificate.key.expired());
        let mut told: Vec<_> = expired
            .map(|certificate| {
                let (file, end) = (
                    certificate.key.file().display(),
                    certificate.key.not_after(),
                );
                format!("{file}: expired on {end}, so clients refuse it: replace it")
            })
            .collect();
        // Sites may share a file.
        told.sort_unstable();
        told.dedup();
        told
    }

    /// Returns the lines of files of users and groups that cannot be used and are left out, each as a
    /// sentence.
    pub fn skipped_lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.sites.iter().flat_map(Site::skipped_lines).collect();
        // Sites may share a file.
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    /// Returns what is allowed and yet worth an operator's look, such as a certificate whose time
    /// is over soon.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns whether one of its listeners, the one for metrics included, is the socket at `bound`.
    pub fn listens_at(&self, bound: SocketAddr) -> bool {
        let listeners = self.listeners.iter().map(|listener| listener.address);
        let metrics = self.metrics.iter().map(|metrics| metrics.address);
        let mut addresses = listeners.chain(metrics);
        addresses.any(|address| is_meant(bound, address))
    }
}

/// Checks that this process's user can keep something in the folder.
fn check_state_dir(root: &Section, state_dir: &StateDir) {
    if state_dir.is_made_by_unit() {
        return;
    }
    if let Err(error) = state_dir.check() {
        let path = state_dir.path();
        let message = settings::denied(path, Purpose::Write).unwrap_or_else(|| {
            let user = settings::current_user();
            format!(
                "{}: user {user} cannot keep anything there: {error}",
                path.display()
            )
        });
        root.problem("state_dir", message);
    }
}

/// Warns of registries that nobody can reach.
fn warn_of_the_unused(upstreams: &[Arc<Upstream>], sites: &[Site], warnings: &mut Vec<String>) {
    for upstream in upstreams.iter().filter(|upstream| upstream.registry) {
        if !sites
            .iter()
            .any(|site| Arc::ptr_eq(&site.upstream, upstream))
        {
            let name = &upstream.name;
            warnings.push(format!(
                "registry {name:?}: is no site's upstream, so nobody can reach it"
            ));
        }
    }
}
