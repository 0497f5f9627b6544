//! A site's `certificate`, read from its files.

use std::path::Path;
use std::sync::Arc;

use settings::{Kind, Section};

use super::{Files, HostPattern};
use crate::tls::{self, CertifiedKey};

const KEY: &str = "certificate";

/// Reads the certificate of a site; each problem names the key that leads to it.
pub(super) fn read(
    site: &mut Section,
    hosts: &[HostPattern],
    files: Files,
    warnings: &mut Vec<String>,
) -> Option<Arc<CertifiedKey>> {
    if site.kind(KEY) == Some(Kind::String) {
        let message = match site.optional::<String>(KEY).as_deref() {
            Some("acme") => {
                "\"acme\" is not available in this version; name a cert_file and a key_file"
            }
            _ => "must be { cert_file = \"…\", key_file = \"…\" }",
        };
        site.problem(KEY, message);
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
    if files == Files::LeaveAlone {
        return None;
    }
    match CertifiedKey::load(&cert, &key) {
        Ok(certified) => {
            warn(&cert, &certified, hosts, warnings);
            Some(Arc::new(certified))
        }
        Err(error) => {
            section.problem(blame(&error, &key), error);
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
