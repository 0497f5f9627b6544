//! Which site a request is for, and what it does with requests.

use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::{Hashing, Principal, Refusal};
use crate::config::{self, HostPattern};
use crate::filter::host::Host;
use crate::respond::{Audience, Rejection};
use crate::upstream::Upstream;

/// The sites of one state, found by host.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    exact: HashMap<Box<str>, Arc<Site>>,
    /// By the name after `*.`.
    wildcard: HashMap<Box<str>, Arc<Site>>,
    any: Option<Arc<Site>>,
    all: Vec<Arc<Site>>,
}

impl Sites {
    /// Adds a site for its hosts, which no other site has.
    pub(crate) fn add(&mut self, hosts: &[HostPattern], site: Site) {
        let site = Arc::new(site);
        for host in hosts {
            match host {
                HostPattern::Any => self.any = Some(Arc::clone(&site)),
                HostPattern::Exact(name) => {
                    self.exact.insert(name.as_str().into(), Arc::clone(&site));
                }
                HostPattern::Wildcard(parent) => {
                    self.wildcard
                        .insert(parent.as_str().into(), Arc::clone(&site));
                }
            }
        }
        self.all.push(site);
    }

    /// Returns the site of a host: its own, the one for all names beside it, or the one for any.
    pub(crate) fn select(&self, host: &Host) -> Option<&Arc<Site>> {
        let name = host.name();
        let exact = self.exact.get(name);
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        exact.or_else(wildcard).or(self.any.as_ref())
    }

    /// Visits each site once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.all.iter()
    }
}

/// What is done with the requests for some hosts.
#[derive(Debug)]
pub(crate) struct Site {
    /// The first of its hosts: what the access log calls it.
    pub(crate) name: Box<str>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) max_body_size: Option<u64>,
    auth: Option<config::Auth>,
}

impl Site {
    /// Makes the site that `config` describes, in front of `upstream`.
    pub(crate) fn new(config: config::Site, upstream: Arc<Upstream>) -> Self {
        let name = config.hosts.first().map(ToString::to_string);
        Self {
            name: name.unwrap_or_default().into(),
            upstream,
            max_body_size: config.max_body_size,
            auth: config.auth,
        }
    }

    /// Returns whether passwords are asked for here.
    pub(crate) fn authenticates(&self) -> bool {
        self.auth.is_some()
    }

    /// Returns who reads a refusal of a request for `path`.
    pub(crate) fn audience(&self, path: &str) -> Audience {
        if self.upstream.is_registry() && oci::Route::covers(path) {
            Audience::RegistryClient
        } else {
            Audience::Anyone
        }
    }

    /// Says who is asking, or why that is not good enough.
    pub(crate) async fn authenticate(
        &self,
        headers: &http::HeaderMap,
        hashing: &Hashing,
    ) -> Result<Principal, Rejection> {
        let Some(auth) = &self.auth else {
            return Ok(Principal::Anonymous);
        };
        match auth.basic.authenticate(headers, hashing).await {
            Ok(principal) => Ok(principal),
            Err(Refusal::Busy) => Err(Rejection::Busy),
            Err(Refusal::Unauthorized) => Err(Rejection::Unauthorized {
                realm: Arc::clone(&auth.realm),
            }),
        }
    }

    /// Picks up what changed in the files that say who may come in.
    pub(crate) fn refresh(&self) {
        if let Some(auth) = &self.auth {
            auth.basic.refresh();
        }
    }
}
