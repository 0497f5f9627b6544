//! `[[site]]`: which hosts are served, with which certificate, to whom, by what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use settings::{Section, nearest, suggestion};

use super::certificate::Certificate;
use super::upstream::REGISTRY;
use super::{Auth, Files, HostPattern, KeyType, Quotas, Upstream, access, auth, certificate};
use crate::acme::Storage;
use crate::auth::access::Access;
use crate::auth::token::Scheme;
use crate::auth::{Basic, Groups};
use crate::filter;
use crate::tls::ClientAuth;

/// A set of hosts and what is done with their requests.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) hosts: Vec<HostPattern>,
    /// One for each type of key.
    pub(crate) certificates: Vec<Certificate>,
    /// How long browsers are told to come back with TLS alone.
    pub(crate) hsts: Option<Duration>,
    /// Where its requests go.
    pub(crate) upstream: Arc<Upstream>,
    /// The longest body that is let through; without one, any.
    pub(crate) max_body_size: Option<u64>,
    /// Whether it tells everyone how it is.
    pub(crate) health: bool,
    /// The methods that are passed on beyond those that every site passes on.
    pub(crate) methods: Vec<Method>,
    /// How many requests are taken.
    pub(crate) quotas: Quotas,
    /// How to log in; without it, nobody has a name.
    pub(crate) auth: Option<Auth>,
    /// Who may do what.
    pub(crate) access: Access,
}

impl Site {
    /// Returns whose certificates are taken, if any.
    pub(crate) fn clients(&self) -> Option<Arc<ClientAuth>> {
        let certificates = self.auth.as_ref()?.certificates.as_ref()?;
        Some(Arc::clone(&certificates.authorities))
    }

    /// Returns the lines of its files of users and groups that are left out.
    pub(super) fn skipped_lines(&self) -> Vec<String> {
        let basic = self.auth.as_ref().and_then(|auth| auth.basic.as_ref());
        let mut lines = basic.map(Basic::skipped).unwrap_or_default();
        lines.extend(self.access.groups.skipped());
        lines
    }

    /// Returns whether its certificates are looked after here.
    pub(super) fn is_managed(&self) -> bool {
        let mut certificates = self.certificates.iter();
        certificates.any(|certificate| certificate.upkeep.is_some())
    }

    /// Returns whether a key is needed here to sign tokens with.
    pub(super) fn hands_out_tokens(&self) -> bool {
        let auth = self.auth.as_ref().filter(|_| self.upstream.registry);
        auth.is_some_and(|auth| auth.tokens.scheme != Scheme::Basic && auth.issuer.is_none())
    }
}

/// What a site is read amid.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) upstreams: &'a [Arc<Upstream>],
    pub(super) tls_listens: bool,
    pub(super) acme: Option<AroundAcme<'a>>,
    /// There is an `[acme]`, and something is wrong with it.
    pub(super) acme_failed: bool,
    pub(super) files: Files,
}

/// What of `[acme]` matters to a site.
#[derive(Clone, Copy)]
pub(super) struct AroundAcme<'a> {
    pub(super) storage: &'a Storage,
    pub(super) has_dns: bool,
    pub(super) key_types: &'a [KeyType],
}

/// Reads every `[[site]]`.
pub(super) fn read_all(
    root: &mut Section,
    around: Surroundings<'_>,
    warnings: &mut Vec<String>,
) -> Vec<Site> {
    let mut taken: HashMap<HostPattern, String> = HashMap::new();
    let sections = root.tables("site");
    if sections.is_empty() && !root.failed() {
        root.problem("site", "there is none, so nothing would be served");
    }
    let read = |section| read(section, around, &mut taken, warnings);
    sections.into_iter().filter_map(read).collect()
}

fn read(
    mut section: Section,
    around: Surroundings<'_>,
    taken: &mut HashMap<HostPattern, String>,
    warnings: &mut Vec<String>,
) -> Option<Site> {
    let hosts = hosts(&mut section, taken);
    if around.tls_listens && !section.has("certificate") {
        section.problem(
            "certificate",
            "is missing, and there is a listener with tls = true",
        );
    }
    let certificates = certificate::read(&mut section, &hosts, around, warnings);
    let hsts = section.duration("hsts").filter(|time| !time.is_zero());
    let upstream = upstream(&mut section, around.upstreams);
    let quotas = section.table("limits").map(Quotas::read);
    let max_body_size = section.size("max_body_size").filter(|size| *size > 0);
    let health = section.optional("health").unwrap_or_default();
    let methods = methods(&mut section, upstream.as_deref());
    let authenticates = section.has("auth");
    let mut groups = Groups::default();
    let auth = section
        .table("auth")
        .and_then(|auth| auth::Written::read(auth, &hosts, &mut groups, around.files, warnings));
    let access = access::Around {
        authenticates,
        passwords: auth.as_ref().is_some_and(auth::Written::has_passwords),
        registry: upstream.as_ref().is_none_or(|upstream| upstream.registry),
        groups,
    };
    let access = access::read(&mut section, access);
    if let Some(auth) = &auth {
        auth.warn_of_nobody(&section, &access, warnings);
    }
    let auth = auth.map(|auth| {
        let registry = upstream.as_ref().is_none_or(|upstream| upstream.registry);
        auth.settle(&section, registry, access.rules.admit_anonymous())
    });
    let upstream = upstream?;
    if !authenticates && upstream.registry && access.rules.is_empty() {
        warnings.push(format!(
            "{}: has no [site.auth] and no rule: anyone who reaches it may push to the registry and delete from it",
            section.name()
        ));
    }
    Some(Site {
        hosts,
        certificates,
        hsts,
        upstream,
        max_body_size,
        health,
        methods,
        quotas: quotas.unwrap_or_default(),
        auth,
        access,
    })
}

fn hosts(section: &mut Section, taken: &mut HashMap<HostPattern, String>) -> Vec<HostPattern> {
    if !section.has("hosts") {
        section.problem("hosts", "is missing");
    }
    let hosts: Vec<HostPattern> = section.parsed_list("hosts").unwrap_or_default();
    if hosts.is_empty() && !section.failed() {
        section.problem("hosts", "must name one host at least; \"*\" is any");
    }
    for host in &hosts {
        if let Some(site) = taken.insert(host.clone(), section.name().to_owned()) {
            section.problem("hosts", format!("\"{host}\" is a host of {site} already"));
        }
    }
    hosts
}

fn methods(section: &mut Section, upstream: Option<&Upstream>) -> Vec<Method> {
    const KEY: &str = "allow_methods";
    let methods: Vec<Method> = section.parsed_list(KEY).unwrap_or_default();
    if !methods.is_empty() && upstream.is_some_and(|upstream| upstream.registry) {
        section.problem(KEY, "is for other upstreams: a registry has its own");
    }
    for (at, method) in methods.iter().enumerate() {
        if *method == Method::CONNECT {
            section.problem(KEY, "\"CONNECT\" is never passed on");
        } else if filter::methods::is_common(method) {
            section.problem(KEY, format!("\"{method}\" is passed on everywhere"));
        } else if method
            .as_str()
            .bytes()
            .any(|byte| byte.is_ascii_lowercase())
        {
            section.problem(KEY, format!("\"{method}\": methods are in capital letters"));
        } else if methods.iter().take(at).any(|other| other == method) {
            section.problem(KEY, format!("\"{method}\" is there twice"));
        }
    }
    methods
}

fn upstream(section: &mut Section, upstreams: &[Arc<Upstream>]) -> Option<Arc<Upstream>> {
    let name: String = section.required("upstream")?;
    let found = upstreams.iter().find(|upstream| upstream.name == name);
    if found.is_none() {
        let message = if name == REGISTRY {
            "there is no [registry] whose address could be read".to_owned()
        } else {
            let names = upstreams.iter().map(|upstream| upstream.name.as_str());
            let near = nearest(&name, names);
            format!("unknown upstream \"{name}\"{}", suggestion(near))
        };
        section.problem("upstream", message);
    }
    found.cloned()
}
