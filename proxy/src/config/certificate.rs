//! A site's `certificate`: one or, for keys of different types, several, read from their files.

use std::path::Path;
use std::sync::Arc;

use settings::{Kind, Purpose, Section};

use super::site::Surroundings;
use super::{Files, HostPattern, KeyType};
use crate::acme::Storage;
use crate::tls::{self, CertifiedKey};

const KEY: &str = "certificate";

/// A certificate of a site.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// How it is looked after, if it is.
    pub(crate) upkeep: Option<Upkeep>,
}

/// How a certificate is looked after.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// What its files are called.
    pub(crate) name: String,
    pub(crate) key_type: KeyType,
}

/// Reads the certificates of a site; each problem names the key that leads to it.
pub(super) fn read(
    site: &mut Section,
    hosts: &[HostPattern],
    around: Surroundings<'_>,
    warnings: &mut Vec<String>,
) -> Vec<Certificate> {
    match site.kind(KEY) {
        Some(Kind::String) => {
            if site.optional::<String>(KEY).as_deref() == Some("acme") {
                return managed(site, hosts, around).unwrap_or_default();
            }
            site.problem(
                KEY,
                "must be \"acme\", { cert_file = \"…\", key_file = \"…\" }, or a list of these, one for \
                 each type of key",
            );
            Vec::new()
        }
        Some(Kind::Array) => several(site, hosts, around, warnings),
        _ => {
            let section = site.table(KEY);
            let read = section.and_then(|section| from_files(section, hosts, around, warnings));
            read.into_iter().collect()
        }
    }
}

/// Reads one certificate for each type of key.
fn several(
    site: &mut Section,
    hosts: &[HostPattern],
    around: Surroundings<'_>,
    warnings: &mut Vec<String>,
) -> Vec<Certificate> {
    let mut certificates: Vec<Certificate> = Vec::new();
    let sections = site.tables(KEY);
    if sections.is_empty() {
        site.problem(KEY, "must name one pair at least");
    }
    for section in sections {
        let name = section.name().to_owned();
        let Some(certificate) = from_files(section, hosts, around, warnings) else {
            continue;
        };
        let algorithm = certificate.key.algorithm();
        let mut others = certificates.iter();
        if others.any(|other| other.key.algorithm() == algorithm) {
            let message = format!("{name}: there is one for a key of {algorithm} already");
            site.problem(KEY, message);
        }
        certificates.push(certificate);
    }
    certificates
}

fn from_files(
    mut section: Section,
    hosts: &[HostPattern],
    around: Surroundings<'_>,
    warnings: &mut Vec<String>,
) -> Option<Certificate> {
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
    let readable = [("cert_file", &cert), ("key_file", &key)]
        .map(|(name, file)| section.permits(name, file, Purpose::Read));
    if readable != [true; 2] {
        return None;
    }
    match CertifiedKey::load(&cert, &key) {
        Ok(certified) => {
            warn(&cert, &certified, hosts, warnings);
            Some(Certificate {
                key: Arc::new(certified),
                upkeep: None,
            })
        }
        Err(error) => {
            section.problem(blame(&error, &key), error);
            None
        }
    }
}

/// Reads what a CA has issued, or makes something to be shown until it has.
fn managed(
    site: &Section,
    hosts: &[HostPattern],
    around: Surroundings<'_>,
) -> Option<Vec<Certificate>> {
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
    let first = hosts.first()?.to_string();
    let files = Storage::names(&first, acme.key_types).into_iter();
    let load = |(name, key_type): (String, KeyType)| {
        let (cert, key) = acme.storage.live(&name);
        let certified = CertifiedKey::load_or_make(&cert, &key, &names, &addresses);
        let certified = certified.map_err(|error| site.problem(KEY, error)).ok()?;
        Some(Certificate {
            key: Arc::new(certified),
            upkeep: Some(Upkeep { name, key_type }),
        })
    };
    Some(files.filter_map(load).collect())
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
    // That it has expired already is worse than a warning: see `Config::expired_certificates`.
    if let Some(left) = certified.ends_soon() {
        let end = certified.not_after();
        warnings.push(format!(
            "{cert}: expires {left}, on {end}: replace it, clients will refuse it then"
        ));
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
