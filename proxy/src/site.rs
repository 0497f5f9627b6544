//! Which site a request is for, and what it does with requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::{Culprit, Presented, Principal, Refusal, Scrutiny};
use crate::config::{self, HostPattern};
use crate::filter::Refused;
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
    /// What the config calls it, such as `site[0]`: how its rules and lists are named in the log.
    pub(crate) key: Box<str>,
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
            key: config.key.into(),
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
        client: IpAddr,
        scrutiny: Scrutiny<'_>,
    ) -> Result<Principal, Refused> {
        let Some(auth) = &self.auth else {
            return Ok(Principal::anonymous());
        };
        let found = match Presented::of(headers) {
            Presented::Login(login) => match &auth.basic {
                Some(basic) => basic.authenticate(login, client, scrutiny).await,
                None => Err(Refusal::WRONG_CREDENTIALS),
            },
            Presented::Nothing => Err(Refusal::NO_CREDENTIALS),
            Presented::Bearer(_) | Presented::Unreadable => Err(Refusal::WRONG_CREDENTIALS),
        };
        found.map(Principal::user).map_err(|refusal| match refusal {
            Refusal::Busy => Rejection::Busy.because("password queue"),
            Refusal::Throttled {
                retry_after,
                culprit,
            } => Rejection::TooManyFailures { retry_after }.because(match culprit {
                Culprit::Address => "limits.logins.per_address",
                Culprit::User => "limits.logins.per_user",
            }),
            Refusal::Unauthorized(why) => Rejection::Unauthorized {
                realm: Arc::clone(&auth.realm),
            }
            .because(why),
        })
    }

    /// Picks up what changed in the files that say who may come in.
    pub(crate) fn refresh(&self) {
        if let Some(basic) = self.auth.as_ref().and_then(|auth| auth.basic.as_ref()) {
            basic.refresh();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn site(registry: bool, hosts: &[&str]) -> (Vec<HostPattern>, Site) {
        let upstream = Arc::new(config::Upstream {
            name: "u".to_owned(),
            peers: vec!["127.0.0.1:1".parse().unwrap()],
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
            registry,
        });
        let hosts: Vec<HostPattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let config = config::Site {
            key: "site[0]".to_owned(),
            hosts: hosts.clone(),
            certificate: None,
            upstream: Arc::clone(&upstream),
            max_body_size: None,
            auth: None,
        };
        let upstream = Arc::new(Upstream::new(&upstream).unwrap());
        (hosts, Site::new(config, upstream))
    }

    fn host(text: &str) -> Host {
        let request = http::Request::builder().header("host", text);
        Host::of(&request.body(()).unwrap().into_parts().0).unwrap()
    }

    #[test]
    fn the_most_particular_site_has_the_host() {
        let mut sites = Sites::default();
        for hosts in [
            &["a.test", "[::1]"][..],
            &["*.a.test"],
            &["b.a.test"],
            &["*"],
        ] {
            let (hosts, site) = site(false, hosts);
            sites.add(&hosts, site);
        }
        assert_eq!(sites.iter().count(), 4);
        for (asked, expected) in [
            ("a.test", "a.test"),
            ("A.TEST:8443", "a.test"),
            ("[::1]:8443", "a.test"),
            ("b.a.test", "b.a.test"),
            ("c.a.test", "*.a.test"),
            ("d.c.a.test", "*"),
            ("other", "*"),
        ] {
            let site = sites.select(&host(asked)).unwrap();
            assert_eq!(&*site.name, expected, "{asked}");
        }
    }

    #[test]
    fn an_unknown_host_has_no_site() {
        let mut sites = Sites::default();
        let (hosts, site) = site(false, &["a.test"]);
        sites.add(&hosts, site);
        assert!(sites.select(&host("b.test")).is_none());
    }

    #[test]
    fn only_the_api_of_a_registry_answers_in_json() {
        for (registry, path, audience) in [
            (true, "/v2/", Audience::RegistryClient),
            (true, "/", Audience::Anyone),
            (false, "/v2/", Audience::Anyone),
        ] {
            let (_, site) = site(registry, &["a.test"]);
            assert_eq!(site.audience(path), audience, "{path}");
        }
    }
}
