//! A certificate chain and its key, proven to belong together.

use std::net::IpAddr;
use std::path::Path;
use std::{fmt, fs};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::SslRef;
use openssl::x509::{X509, X509Ref};

use super::Error;

/// A certificate, what it was issued by, and its key.
pub(crate) struct CertifiedKey {
    leaf: X509,
    intermediates: Vec<X509>,
    key: PKey<Private>,
}

impl CertifiedKey {
    /// Reads a chain (the certificate itself first) and its key, both in PEM form.
    pub(crate) fn load(cert: &Path, key: &Path) -> Result<Self, Error> {
        let parse = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Parse { path, source }
        };
        let mut chain = X509::stack_from_pem(&read(cert)?)
            .map_err(parse(cert))?
            .into_iter();
        let leaf = chain.next().ok_or_else(|| Error::Empty {
            path: cert.to_owned(),
        })?;
        // An empty passphrase: without one OpenSSL would ask on the terminal.
        let private =
            PKey::private_key_from_pem_passphrase(&read(key)?, b"").map_err(parse(key))?;
        if !leaf.public_key()?.public_eq(&private) {
            return Err(Error::KeyMismatch {
                cert: cert.to_owned(),
                key: key.to_owned(),
            });
        }
        Ok(Self {
            leaf,
            intermediates: chain.collect(),
            key: private,
        })
    }

    /// Returns whether the certificate's time is over.
    pub(crate) fn expired(&self) -> bool {
        Asn1Time::days_from_now(0).is_ok_and(|now| *self.leaf.not_after() <= *now)
    }

    /// Returns when the certificate's time is over, in OpenSSL's words.
    pub(crate) fn not_after(&self) -> String {
        self.leaf.not_after().to_string()
    }

    /// Returns whether clients that ask for `host` accept the certificate.
    pub(crate) fn covers(&self, host: &str) -> bool {
        covers(&self.leaf, host)
    }

    /// Makes the handshake of `ssl` use this certificate.
    pub(crate) fn apply(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        ssl.set_certificate(&self.leaf)?;
        for intermediate in &self.intermediates {
            ssl.add_chain_cert(intermediate.clone())?;
        }
        ssl.set_private_key(&self.key)
    }
}

impl fmt::Debug for CertifiedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("CertifiedKey")
            .field("subject", &self.leaf.subject_name())
            .finish_non_exhaustive()
    }
}

/// Reads a file, and names it when that fails.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// Compares `host` with the subject's alternative names, as RFC 9525 asks of clients.
fn covers(leaf: &X509Ref, host: &str) -> bool {
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let Some(names) = leaf.subject_alt_names() else {
        return false;
    };
    names.iter().any(|name| match (address, name.ipaddress()) {
        (Some(IpAddr::V4(address)), Some(octets)) => address.octets() == octets,
        (Some(IpAddr::V6(address)), Some(octets)) => address.octets() == octets,
        (Some(_), None) => false,
        (None, _) => name.dnsname().is_some_and(|name| {
            name.eq_ignore_ascii_case(host)
                || name.strip_prefix("*.").is_some_and(|parent| {
                    host.split_once('.')
                        .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent))
                })
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::tls::self_signed;

    fn pair(folder: &Path, name: &str, hosts: &[&str]) -> (PathBuf, PathBuf) {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let pair = self_signed::generate(&hosts, &["127.0.0.1".parse().unwrap()]).unwrap();
        let (cert, key) = (
            folder.join(format!("{name}.pem")),
            folder.join(format!("{name}.key")),
        );
        fs::write(&cert, pair.cert_pem).unwrap();
        fs::write(&key, pair.key_pem).unwrap();
        (cert, key)
    }

    #[test]
    fn a_pair_is_loaded_and_knows_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = pair(folder.path(), "a", &["registry.example.com", "*.apps.test"]);
        let certified = CertifiedKey::load(&cert, &key).unwrap();
        assert!(!certified.expired());
        for (host, covered) in [
            ("registry.example.com", true),
            ("Registry.Example.com", true),
            ("one.apps.test", true),
            ("two.one.apps.test", false),
            ("apps.test", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("[::1]", false),
        ] {
            assert_eq!(certified.covers(host), covered, "{host}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_why_and_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = pair(folder.path(), "a", &["a.test"]);
        let (_, other) = pair(folder.path(), "b", &["b.test"]);
        let missing = folder.path().join("missing.pem");
        let text = folder.path().join("text.pem");
        fs::write(&text, "no certificate").unwrap();
        for (cert, key, expected) in [
            (&cert, &other, "b.key: is not the key of the certificate"),
            (&missing, &key, "missing.pem: No such file"),
            (&text, &key, "text.pem: holds no certificate"),
            (&cert, &text, "text.pem: "),
        ] {
            let message = CertifiedKey::load(cert, key).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
