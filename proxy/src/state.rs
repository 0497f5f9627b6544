//! What the edge serves by at this moment, swapped as a whole.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};

use crate::acme::{Answers, Managed, Plan, Record, Storage};
use crate::auth::token::vault::Vault;
use crate::config::{Config, Limits};
use crate::filter::addresses::{Addresses, Network};
use crate::refusals::know_rule;
use crate::site::{Site, Sites};
use crate::tls::accept::Acceptor;
use crate::tls::{self, CertStore, CertifiedKey, Presented, TicketKeys};
use crate::upstream::{UnusablePeer, Upstreams};

/// Everything that a reload replaces. A request keeps the one that it began with.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) acceptor: Acceptor,
    tickets: Arc<TicketKeys>,
    pub(crate) certificates: CertStore,
    /// What a CA is answered at this moment: the same for each state.
    pub(crate) answers: Answers,
    /// Every certificate, with the name of its site.
    keys: Vec<(String, Arc<CertifiedKey>)>,
    /// Which certificates are looked after.
    pub(crate) plan: Option<Arc<Plan>>,
    pub(crate) drain_timeout: Duration,
    pub(crate) limits: Limits,
    /// Whether the access log has the names that were tried in vain.
    pub(crate) logs_login_names: bool,
    /// Who may connect to each listener, in the order of the config.
    pub(crate) listeners: Vec<Addresses>,
    /// Who may ask for metrics.
    pub(crate) metrics: Addresses,
    pub(crate) sites: Sites,
    pub(crate) trusted_proxies: Box<[Network]>,
    /// What stands behind the edge.
    pub(crate) upstreams: Upstreams,
}

impl State {
    /// Builds the state that `config` describes, to take the place of `in_force`, if there is one.
    pub(crate) fn build(
        config: Config,
        vault: &Arc<Vault>,
        answers: &Answers,
        tickets: &Arc<TicketKeys>,
        in_force: Option<&Self>,
    ) -> Result<Self, Unusable> {
        let tickets = config.tls.ticket_keys.as_ref().unwrap_or(tickets);
        let tickets = Arc::clone(tickets);
        let upstreams = Upstreams::new(&config.upstreams, in_force.map(|state| &state.upstreams))?;
        let mut certificates = CertStore::default();
        let mut sites = Sites::default();
        let mut keys = Vec::new();
        let mut managed = Vec::new();
        let mut asking = Vec::new();
        for site in config.sites {
            let hosts = site.hosts.clone();
            if !site.certificates.is_empty() {
                let certified = site.certificates.iter();
                let certified: Vec<_> = certified.map(|one| Arc::clone(&one.key)).collect();
                let presented = Presented::new(certified.clone(), site.clients());
                asking.extend(hosts.iter().filter(|_| presented.asks()).cloned());
                for host in &hosts {
                    certificates.add(host, &presented);
                }
                let name = hosts.first().map(ToString::to_string).unwrap_or_default();
                keys.extend(certified.into_iter().map(|key| (name.clone(), key)));
            }
            for certificate in &site.certificates {
                managed.extend(certificate.upkeep.as_ref().map(|upkeep| Managed {
                    name: upkeep.name.clone(),
                    hosts: hosts.iter().map(ToString::to_string).collect(),
                    certificate: Arc::clone(&certificate.key),
                    key_type: upkeep.key_type,
                }));
            }
            site.access.denial_keys().for_each(|key| know_rule(&key));
            // There is one: sites are read with the same list.
            if let Some(upstream) = upstreams.named(&site.upstream.name) {
                let upstream = Arc::clone(upstream);
                sites.add(&hosts, Site::new(site, upstream, vault));
            }
        }
        Ok(Self {
            acceptor: Acceptor::new(&config.tls, &tickets, &asking)?,
            tickets,
            certificates,
            answers: answers.clone(),
            keys,
            plan: config.acme.filter(|_| !managed.is_empty()).map(|acme| {
                Arc::new(Plan {
                    acme,
                    storage: Storage::new(config.state_dir),
                    sites: managed,
                    plain: config.listeners.iter().any(|listener| !listener.tls),
                })
            }),
            drain_timeout: config.drain_timeout,
            limits: config.limits,
            logs_login_names: config.logs_login_names,
            listeners: config
                .listeners
                .into_iter()
                .map(|listener| listener.addresses)
                .collect(),
            metrics: config
                .metrics
                .map(|metrics| metrics.addresses)
                .unwrap_or_default(),
            sites,
            trusted_proxies: config.trusted_proxies,
            upstreams,
        })
    }

    /// Picks up certificates, and keys of session tickets, that changed on disk.
    pub(crate) fn refresh_certificates(&self) {
        self.tickets.refresh();
        for (_, key) in &self.keys {
            match key.refresh() {
                Ok(true) => {
                    let (file, expires) = (key.file().display(), key.not_after());
                    tracing::info!(%file, expires, "a certificate was replaced");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "a changed certificate cannot be used, the one before stays");
                }
            }
        }
    }

    /// Returns how each certificate stands. It reads files.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let standing = |(site, key): &(String, Arc<CertifiedKey>)| {
            let plan = self.plan.as_ref();
            let managed = plan.and_then(|plan| {
                let mut sites = plan.sites.iter();
                let managed = sites.find(|site| Arc::ptr_eq(&site.certificate, key))?;
                Some((managed.key_type, plan.storage.record(&managed.name)))
            });
            Standing {
                site: site.clone(),
                // A placeholder stands in for a key of any type.
                key_type: match managed {
                    Some((key_type, _)) => key_type.name().to_owned(),
                    None => key.key_type(),
                },
                expires: match key.validity() {
                    Ok((_, until)) if !key.is_placeholder() => Some(until),
                    Ok(_) | Err(_) => None,
                },
                record: managed.map(|(_, record)| record.unwrap_or_default()),
            }
        };
        self.keys.iter().map(standing).collect()
    }

    /// Returns whether `address` is a proxy whose word counts.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let mut proxies = self.trusted_proxies.iter();
        proxies.any(|network| network.contains(address))
    }
}

/// How a certificate stands.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The first host of its site.
    pub(crate) site: String,
    pub(crate) key_type: String,
    /// Until when it is good; never for a placeholder.
    pub(crate) expires: Option<SystemTime>,
    /// What came of its orders, if it is looked after.
    pub(crate) record: Option<Record>,
}

/// Why no state can be built by a config.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("tls: {0}")]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Upstream(#[from] UnusablePeer),
}

/// The state of this moment.
#[derive(Debug)]
pub(crate) struct Current(ArcSwap<State>);

impl Current {
    /// Starts with `state`.
    pub(crate) fn new(state: State) -> Self {
        Self(ArcSwap::from_pointee(state))
    }

    /// Borrows the state for a moment.
    pub(crate) fn load(&self) -> Guard<Arc<State>> {
        self.0.load()
    }

    /// Takes the state for as long as a request lasts.
    pub(crate) fn take(&self) -> Arc<State> {
        self.0.load_full()
    }

    /// Puts `state` in its place, for all that begins from now on.
    pub(crate) fn swap(&self, state: State) {
        self.0.store(Arc::new(state));
    }
}
