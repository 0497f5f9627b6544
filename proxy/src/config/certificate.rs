//! A site's `certificate`, read from its files.

use std::path::Path;
use std::sync::Arc;

use settings::{Kind, Section};

use super::site::Surroundings;
use super::{Files, HostPattern};
use crate::acme::storage::site_name;
use crate::tls::{self, CertifiedKey};

const KEY: &str = "certificate";

/// The certificate of a site.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// The name under which it is looked after, if it is.
    pub(crate) managed: Option<String>,
}

/// Reads the certificate of a site; each problem names the key that leads to it.
pub(super) fn read(
    site: &mut Section,
    hosts: &[HostPattern],
    around: Surroundings<'_>,
    warnings: &mut Vec<String>,
) -> Option<Certificate> {
    if site.kind(KEY) == Some(Kind::String) {
        if site.optional::<String>(KEY).as_deref() == Some("acme") {
            return managed(site, hosts, around);
        }
        site.problem(
            KEY,
            "must be \"acme\" or { cert_file = \"…\", key_file = \"…\" }",
        );
        return None;
    }
    let mut section = site.table(KEY)?;
    let mut file = |key| {
        if !section.has(key) {
            section.problem(key, "is missing");
        }
        section.path(key)
    };
    let (cert, key) = (file("cert_file"), file("key_file"));
    let (cert, key) = (cert?, key?);
    if around.files == Files::LeaveAlone {
        return None;
    }
    match CertifiedKey::load(&cert, &key) {
        Ok(certified) => {
            warn(&cert, &certified, hosts, warnings);
            Some(Certificate {
                key: Arc::new(certified),
                managed: None,
            })
        }
        Err(error) => {
            section.problem(blame(&error, &key), error);
            None
        }
    }
}

/// Reads what a CA has issued, or makes something to be shown until it has.
fn managed(site: &Section, hosts: &[HostPattern], around: Surroundings<'_>) -> Option<Certificate> {
    let Some(acme) = around.acme else {
        if !around.acme_failed {
            site.problem(KEY, "\"acme\" needs the table [acme]");
        }
        return None;
    };
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    for host in hosts {
        match host {
            HostPattern::Any => {
                let message = "no CA certifies any host at all: name the hosts instead of \"*\"";
                site.problem("hosts", message);
                return None;
            }
            HostPattern::Wildcard(_) if !acme.has_dns => {
                let message = format!("\"{host}\" can be proven by DNS alone: see [acme.dns]");
                site.problem("hosts", message);
                return None;
            }
            HostPattern::Exact(name) => match name.trim_matches(['[', ']']).parse() {
                Ok(address) => addresses.push(address),
                Err(_) => names.push(name.clone()),
            },
            HostPattern::Wildcard(_) => names.push(host.to_string()),
        }
    }
    if around.files == Files::LeaveAlone {
        return None;
    }
    let name = site_name(&hosts.first()?.to_string());
    let (cert, key) = acme.storage.live(&name);
    match CertifiedKey::load_or_make(&cert, &key, &names, &addresses) {
        Ok(certified) => Some(Certificate {
            key: Arc::new(certified),
            managed: Some(name),
        }),
        Err(error) => {
            site.problem(KEY, error);
            None
        }
    }
}

/// Returns the config key whose file is at fault.
fn blame(error: &tls::Error, key: &Path) -> &'static str {
    if error.path() == Some(key) {
        "key_file"
    } else {
        "cert_file"
    }
}

/// Says what clients will not like about a certificate that can be used all the same.
fn warn(cert: &Path, certified: &CertifiedKey, hosts: &[HostPattern], warnings: &mut Vec<String>) {
    let cert = cert.display();
    if certified.expired() {
        warnings.push(format!("{cert}: expired on {}", certified.not_after()));
    }
    for host in hosts {
        let asked = match host {
            HostPattern::Any => continue,
            HostPattern::Exact(name) => name.clone(),
            HostPattern::Wildcard(parent) => format!("any.{parent}"),
        };
        if !certified.covers(&asked) {
            warnings.push(format!(
                "{cert}: is not made for {host}, clients will refuse it"
            ));
        }
    }
}
