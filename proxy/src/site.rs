//! Which site a request is for, and what it does with requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::request::Parts;
use http::uri::PathAndQuery;
use oci::{Action, Mount, Query, Route, Visibility};

use crate::auth::Principal;
use crate::auth::access::{Access, Wish};
use crate::auth::token::desk::Desk;
use crate::auth::token::vault::Vault;
use crate::config::{self, HostPattern};
use crate::filter::host::Host;
use crate::filter::{self, Refused, registry};
use crate::login::Asking;
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
    /// The hosts of all, as far as a line of the log has room for them.
    served: Vec<String>,
}

/// As many hosts as a line of the log has room for.
const SERVED_SHOWN_MAX: usize = 8;

impl Sites {
    /// Adds a site for its hosts, which no other site has.
    pub(crate) fn add(&mut self, hosts: &[HostPattern], site: Site) {
        let site = Arc::new(site);
        let room = SERVED_SHOWN_MAX.saturating_sub(self.served.len());
        self.served
            .extend(hosts.iter().take(room).map(ToString::to_string));
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
        self.by_name(host.name())
    }

    /// Refuses a host that no site has; the log says which there are.
    pub(crate) fn unknown(&self, host: &Host) -> Refused {
        let served = self.served.join(", ");
        let rejection = Rejection::UnknownHost {
            host: host.authority().into(),
        };
        rejection.because(format!("no site of this host, but of {served}"))
    }

    /// Returns the site that a handshake for this name was made for.
    pub(crate) fn named(&self, server_name: &str) -> Option<&Arc<Site>> {
        let name = server_name.trim_end_matches('.').to_ascii_lowercase();
        self.by_name(&name)
    }

    /// Returns the site that a handshake without a name was made for.
    pub(crate) fn fallback(&self) -> Option<&Arc<Site>> {
        self.any.as_ref().or_else(|| self.all.first())
    }

    fn by_name(&self, name: &str) -> Option<&Arc<Site>> {
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
    /// How long browsers are told to come back with TLS alone.
    pub(crate) hsts: Option<Duration>,
    pub(crate) max_body_size: Option<u64>,
    /// Whether it tells everyone how it is.
    pub(crate) health: bool,
    /// The methods that it passes on beyond those that every site does.
    pub(crate) methods: Box<[Method]>,
    pub(crate) quotas: config::Quotas,
    pub(crate) auth: Option<config::Auth>,
    pub(crate) access: Access,
    /// What it does with tokens, where it is a registry that asks for names.
    pub(crate) desk: Option<Desk>,
}

/// What a request that may go on changes on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    /// What the path names, where it is a registry's.
    pub(crate) route: Option<Route>,
    /// The repositories that a list may name, where it may not name all.
    pub(crate) visible: Option<Visibility>,
    /// What is asked for in place of what was asked for.
    pub(crate) target: Option<PathAndQuery>,
}

impl Site {
    /// Makes the site that `config` describes, in front of `upstream`.
    pub(crate) fn new(
        mut config: config::Site,
        upstream: Arc<Upstream>,
        vault: &Arc<Vault>,
    ) -> Self {
        let hosts = config.hosts.iter().map(|host| host.to_string().into());
        let auth = config.auth.as_mut().filter(|_| upstream.is_registry());
        let desk = auth.map(|auth| {
            let issuer = auth.issuer.take();
            Desk::new(auth.tokens.clone(), hosts.collect(), issuer, vault)
        });
        let name = config.hosts.first().map(ToString::to_string);
        Self {
            name: name.unwrap_or_default().into(),
            upstream,
            hsts: config.hsts,
            max_body_size: config.max_body_size,
            health: config.health,
            methods: config.methods.into(),
            quotas: config.quotas,
            auth: config.auth,
            access: config.access,
            desk,
        }
    }

    /// Returns whether passwords are asked for here.
    pub(crate) fn authenticates(&self) -> bool {
        self.auth.is_some()
    }

    /// Returns how certificates are taken here, if they are.
    pub(crate) fn client_certificates(&self) -> Option<&config::ClientCertificates> {
        self.auth.as_ref()?.certificates.as_ref()
    }

    /// Returns who reads a refusal of a request for `path`.
    pub(crate) fn audience(&self, path: &str) -> Audience {
        if self.upstream.is_registry() && Route::covers(path) {
            Audience::RegistryClient
        } else {
            Audience::Anyone
        }
    }

    /// Refuses a method that is not passed on here.
    pub(crate) fn admit_method(&self, parts: &Parts) -> Result<(), Refused> {
        filter::methods::check(parts, self.upstream.is_registry(), &self.methods)
    }

    /// Refuses an address that the site's lists keep out, whoever it is.
    pub(crate) fn admit_address(&self, client: IpAddr) -> Result<(), Refused> {
        let admitted = self.access.admit(client);
        admitted.map_err(|denial| Rejection::Denied.because(denial.because()))
    }

    /// Decides whether the principal may do what the request asks for.
    pub(crate) fn authorize(
        &self,
        principal: &Principal,
        asking: &Asking<'_>,
    ) -> Result<Admission, Refused> {
        let Asking { parts, client, .. } = *asking;
        let decide = |action| {
            let wish = Wish {
                principal,
                client,
                action,
            };
            let decided = self.access.decide(&wish);
            decided.map_err(|denial| self.deny(denial, &wish, asking))
        };
        let route = self.upstream.is_registry().then(|| registry::route(parts));
        let route = match route {
            Some(Ok(route)) => route,
            // What names nothing is told to those alone who may come in.
            Some(Err(rejection)) => {
                decide(None)?;
                return Err(rejection.into());
            }
            None => return decide(None).map(|_rule| Admission::default()),
        };
        let action = route.action(&parts.method);
        decide(action.map(|action| (action, route.repository())))?;
        let mut admission = Admission::default();
        if route == Route::Catalog {
            admission.visible = self.access.visible(principal, client);
        }
        let asks = parts.method == Method::POST && matches!(route, Route::Uploads { .. });
        let query = Query::parse(parts.uri.query().filter(|_| asks));
        let may_mount = match Mount::of(&query) {
            Some(Mount { from: None, .. }) => self.access.is_unrestricted(principal),
            Some(Mount { from, .. }) => decide(Some((Action::Pull, from.as_ref()))).is_ok(),
            None => true,
        };
        if !may_mount {
            // There is always one; were there none, the request could not go on.
            let target = filter::mount::without(parts).ok_or(Rejection::BadRequest)?;
            admission.target = Some(target);
        }
        admission.route = Some(route);
        Ok(admission)
    }

    /// Returns how many lines of which of its files are left out.
    pub(crate) fn skipped_lines(&self) -> [(&'static str, usize); 2] {
        let basic = self.auth.as_ref().and_then(|auth| auth.basic.as_ref());
        let users = basic.map_or(0, |basic| basic.skipped().len());
        [
            ("htpasswd", users),
            ("group", self.access.groups.skipped().len()),
        ]
    }

    /// Picks up what changed in the files that say who may come in.
    pub(crate) fn refresh(&self) {
        self.access.groups.refresh();
        if let Some(basic) = self.auth.as_ref().and_then(|auth| auth.basic.as_ref()) {
            basic.refresh();
        }
        if let Some(certificates) = self.client_certificates() {
            certificates.authorities.refresh();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::StateDir;

    fn site(registry: bool, hosts: &[&str]) -> (Vec<HostPattern>, Site) {
        let upstream = Arc::new(config::Upstream {
            name: "u".to_owned(),
            peers: vec!["unix:/nonexistent".parse().unwrap()],
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
            registry,
        });
        let hosts: Vec<HostPattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let config = config::Site {
            hosts: hosts.clone(),
            certificates: Vec::new(),
            hsts: None,
            upstream: Arc::clone(&upstream),
            max_body_size: None,
            health: false,
            methods: Vec::new(),
            quotas: config::Quotas::default(),
            auth: None,
            access: Access::default(),
        };
        let upstream = Arc::new(Upstream::new(&upstream, None).unwrap());
        let vault = Arc::new(Vault::new(&StateDir::new("/nonexistent")));
        (hosts, Site::new(config, upstream, &vault))
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
