//! `[[site]]`: which hosts are served, with which certificate, to whom, by what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use settings::Section;

use super::upstream::REGISTRY;
use super::{Files, HostPattern, Quotas, Upstream, access, certificate};
use crate::auth::access::Access;
use crate::auth::{Basic, Groups};
use crate::tls::CertifiedKey;

/// As long as a person would not be surprised that a deleted user still gets in, were it not that a
/// changed file is noticed at once anyway.
const REMEMBER_FOR: Duration = Duration::from_secs(10 * 60);

/// The longest that a credential may be remembered.
const REMEMBER_FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A set of hosts and what is done with their requests.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) certificate: Option<Arc<CertifiedKey>>,
    /// Where its requests go.
    pub(crate) upstream: Arc<Upstream>,
    /// The longest body that is let through; without one, any.
    pub(crate) max_body_size: Option<u64>,
    /// How many requests are taken.
    pub(crate) quotas: Quotas,
    /// How to log in; without it, nobody has a name.
    pub(crate) auth: Option<Auth>,
    /// Who may do what.
    pub(crate) access: Access,
}

/// `[site.auth]`
#[derive(Debug)]
pub(crate) struct Auth {
    /// What the password is asked for.
    pub(crate) realm: Arc<str>,
    /// Users and passwords.
    pub(crate) basic: Option<Basic>,
}

/// What a site is read amid.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) upstreams: &'a [Arc<Upstream>],
    pub(super) tls_listens: bool,
    pub(super) files: Files,
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
    let certificate = certificate::read(&mut section, &hosts, around.files, warnings);
    let upstream = upstream(&mut section, around.upstreams);
    let quotas = section.table("limits").map(Quotas::read);
    let max_body_size = section.size("max_body_size").filter(|size| *size > 0);
    let authenticates = section.has("auth");
    let mut groups = Groups::default();
    let auth = section
        .table("auth")
        .and_then(|auth| read_auth(auth, &mut groups, around.files, warnings));
    let access = access::Around {
        authenticates,
        registry: upstream.as_ref().is_none_or(|upstream| upstream.registry),
        groups,
    };
    let access = access::read(&mut section, access);
    let upstream = upstream?;
    if !authenticates && upstream.registry && access.rules.is_empty() {
        warnings.push(format!(
            "{}: has no [site.auth] and no rule: anyone who reaches it may push to the registry and delete from it",
            section.name()
        ));
    }
    Some(Site {
        hosts,
        certificate,
        upstream,
        max_body_size,
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

fn upstream(section: &mut Section, upstreams: &[Arc<Upstream>]) -> Option<Arc<Upstream>> {
    let name: String = section.required("upstream")?;
    let found = upstreams.iter().find(|upstream| upstream.name == name);
    if found.is_none() {
        let message = if name == REGISTRY {
            "there is no [registry] whose address could be read".to_owned()
        } else {
            format!("unknown upstream \"{name}\"")
        };
        section.problem("upstream", message);
    }
    found.cloned()
}

fn read_auth(
    mut section: Section,
    groups: &mut Groups,
    files: Files,
    warnings: &mut Vec<String>,
) -> Option<Auth> {
    let realm: Option<String> = section.optional("realm");
    let realm = realm.unwrap_or_else(|| "Registry".to_owned());
    if realm.chars().any(char::is_control) {
        section.problem("realm", "must not hold control characters");
    }
    let remember_for = section.duration("remember_for").unwrap_or(REMEMBER_FOR);
    if remember_for > REMEMBER_FOR_MAX {
        section.problem("remember_for", "must be 24 hours at most");
    }
    let plain = section
        .optional("insecure_plain_passwords")
        .unwrap_or_default();
    if let Some(file) = section.path("group_file")
        && files == Files::Read
    {
        match Groups::load(file) {
            Ok(loaded) => *groups = loaded,
            Err(error) => section.problem("group_file", error),
        }
    }
    if !section.has("htpasswd_file") {
        section.problem("htpasswd_file", "is missing");
    }
    let file = section.path("htpasswd_file")?;
    if files == Files::LeaveAlone {
        return None;
    }
    match Basic::load(file.clone(), plain, remember_for.min(REMEMBER_FOR_MAX)) {
        Ok(basic) => {
            if basic.is_empty() {
                let file = file.display();
                warnings.push(format!("{file}: names no user, so nobody can come in"));
            }
            Some(Auth {
                realm: realm.into(),
                basic: Some(basic),
            })
        }
        Err(error) => {
            for problem in error.problems() {
                section.problem("htpasswd_file", problem);
            }
            None
        }
    }
}
