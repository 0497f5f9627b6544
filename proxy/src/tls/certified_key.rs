//! A certificate chain and its key, proven to belong together, as they are at this moment.
//!
//! Who holds a [`CertifiedKey`] sees the next certificate as soon as it is there: what is in the
//! files is looked at again and again, and swapped as a whole.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fmt, fs};

use arc_swap::ArcSwap;
use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::SslRef;
use openssl::x509::{X509, X509Ref};

use super::{Error, description, self_signed};
use crate::watch::Watch;

/// A certificate, what it was issued by, and its key.
pub(crate) struct CertifiedKey {
    cert: PathBuf,
    key: PathBuf,
    current: ArcSwap<Pair>,
    watch: Watch,
}

struct Pair {
    leaf: X509,
    intermediates: Vec<X509>,
    key: PKey<Private>,
    /// Made here because there was none.
    placeholder: bool,
}

impl CertifiedKey {
    /// Reads a chain (the certificate itself first) and its key, both in PEM form.
    pub(crate) fn load(cert: &Path, key: &Path) -> Result<Self, Error> {
        let watch = Watch::over([cert, key]);
        let pair = Pair::load(cert, key)?;
        Ok(Self::new(cert, key, pair, watch))
    }

    /// As [`load`](Self::load), with a self-signed certificate for `names` and `addresses` until
    /// there are files that can be used.
    pub(crate) fn load_or_make(
        cert: &Path,
        key: &Path,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Self, Error> {
        if let Ok(loaded) = Self::load(cert, key) {
            return Ok(loaded);
        }
        let made = self_signed::generate(names, addresses)?;
        let pair = Pair {
            leaf: X509::from_pem(&made.cert_pem)?,
            intermediates: Vec::new(),
            key: PKey::private_key_from_pem(&made.key_pem)?,
            placeholder: true,
        };
        Ok(Self::new(cert, key, pair, Watch::default()))
    }

    fn new(cert: &Path, key: &Path, pair: Pair, watch: Watch) -> Self {
        Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            current: ArcSwap::from_pointee(pair),
            watch,
        }
    }

    /// Takes what is in the files now, if that is something else than before; returns whether it
    /// was.
    ///
    /// # Errors
    /// Why it cannot be used, once for each state of the files; the certificate in use stays.
    pub(crate) fn refresh(&self) -> Result<bool, Error> {
        let files = [&*self.cert, &*self.key];
        if !files.iter().all(|file| file.exists()) {
            // Gone, or in the middle of being replaced.
            return Ok(false);
        }
        let read = || {
            let pair = Pair::load(&self.cert, &self.key)?;
            let same = self.current.load().leaf == pair.leaf;
            self.current.store(Arc::new(pair));
            Ok(!same)
        };
        self.watch.look(files, read, |_| false).unwrap_or(Ok(false))
    }

    /// Returns where the chain is read from.
    pub(crate) fn file(&self) -> &Path {
        &self.cert
    }

    /// Returns what the certificate's key is, as `ecdsa-p256` or `rsa-2048`.
    pub(crate) fn key_type(&self) -> String {
        description::key(&self.current.load().leaf)
    }

    /// Returns what a client has to know to verify the certificate's key.
    pub(crate) fn algorithm(&self) -> String {
        let name = self.key_type();
        name.split('-').next().unwrap_or_default().to_owned()
    }

    /// Returns whether the certificate was made here, because there is none yet.
    pub(crate) fn is_placeholder(&self) -> bool {
        self.current.load().placeholder
    }

    /// Returns whether the certificate's time is over.
    pub(crate) fn expired(&self) -> bool {
        let now = Asn1Time::days_from_now(0);
        now.is_ok_and(|now| *self.current.load().leaf.not_after() <= *now)
    }

    /// Returns in how many days the certificate's time is over, in words, if it is soon.
    pub(crate) fn ends_soon(&self) -> Option<String> {
        let end = description::system_time(self.current.load().leaf.not_after()).ok()?;
        description::ends_soon(end, SystemTime::now())
    }

    /// Returns when the certificate's time is over, in OpenSSL's words.
    pub(crate) fn not_after(&self) -> String {
        self.current.load().leaf.not_after().to_string()
    }

    /// Returns when the certificate's time begins and ends.
    pub(crate) fn validity(&self) -> Result<(SystemTime, SystemTime), Error> {
        let pair = self.current.load();
        let time = description::system_time;
        Ok((time(pair.leaf.not_before())?, time(pair.leaf.not_after())?))
    }

    /// Returns the certificate itself, without its chain.
    pub(crate) fn leaf(&self) -> X509 {
        self.current.load().leaf.clone()
    }

    /// Returns whether clients that ask for `host` accept the certificate.
    pub(crate) fn covers(&self, host: &str) -> bool {
        covers(&self.current.load().leaf, host)
    }

    /// Makes the handshake of `ssl` use this certificate.
    pub(crate) fn apply(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        let pair = self.current.load();
        ssl.set_certificate(&pair.leaf)?;
        for intermediate in &pair.intermediates {
            ssl.add_chain_cert(intermediate.clone())?;
        }
        ssl.set_private_key(&pair.key)
    }
}

impl Pair {
    fn load(cert: &Path, key: &Path) -> Result<Self, Error> {
        let parse = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Parse { path, source }
        };
        let cert_pem = read(cert)?;
        let mut chain = X509::stack_from_pem(&cert_pem)
            .map_err(parse(cert))?
            .into_iter();
        let leaf = chain.next().ok_or_else(|| {
            let path = cert.to_owned();
            if holds(&cert_pem, KEY_LABEL) {
                Error::KeyInstead { path }
            } else {
                Error::Empty { path }
            }
        })?;
        let key_pem = read(key)?;
        if !holds(&key_pem, KEY_LABEL) && holds(&key_pem, CERTIFICATE_LABEL) {
            let path = key.to_owned();
            return Err(Error::CertificateInstead { path });
        }
        // An empty passphrase: without one OpenSSL would ask on the terminal.
        let private = PKey::private_key_from_pem_passphrase(&key_pem, b"").map_err(parse(key))?;
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
            placeholder: false,
        })
    }
}

impl fmt::Debug for CertifiedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("CertifiedKey")
            .field("cert", &self.cert)
            .field("subject", &self.current.load().leaf.subject_name())
            .finish_non_exhaustive()
    }
}

/// How the line ends that begins a private key of any kind (RFC 7468).
const KEY_LABEL: &[u8] = b"PRIVATE KEY-----";

/// How the line ends that begins a certificate.
const CERTIFICATE_LABEL: &[u8] = b"CERTIFICATE-----";

fn holds(pem: &[u8], label: &[u8]) -> bool {
    pem.windows(label.len()).any(|window| window == label)
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
            (
                &key,
                &cert,
                "a.key: holds a private key and no certificate: are cert_file and key_file swapped?",
            ),
            (
                &cert,
                &cert,
                "a.pem: holds a certificate and no private key",
            ),
        ] {
            let message = CertifiedKey::load(cert, key).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_new_pair_is_taken_as_a_whole_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = pair(folder.path(), "a", &["a.test"]);
        let certified = CertifiedKey::load(&cert, &key).unwrap();
        assert!(!certified.refresh().unwrap());
        let (new_cert, new_key) = pair(folder.path(), "b", &["b.test"]);
        fs::rename(new_cert, &cert).unwrap();
        let half = certified.refresh().unwrap_err();
        assert!(matches!(half, Error::KeyMismatch { .. }), "{half}");
        assert!(!certified.refresh().unwrap(), "it is told once");
        assert!(certified.covers("a.test"));
        fs::rename(new_key, &key).unwrap();
        assert!(certified.refresh().unwrap());
        assert!(certified.covers("b.test") && !certified.covers("a.test"));
        fs::remove_file(&cert).unwrap();
        assert!(!certified.refresh().unwrap());
        assert!(certified.covers("b.test"));
    }

    #[test]
    fn without_files_there_is_a_placeholder_until_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
        let names = ["a.test".to_owned()];
        let certified = CertifiedKey::load_or_make(&cert, &key, &names, &[]).unwrap();
        assert!(certified.is_placeholder() && certified.covers("a.test"));
        assert!(!certified.refresh().unwrap());
        pair(folder.path(), "a", &["a.test", "b.test"]);
        assert!(certified.refresh().unwrap());
        assert!(!certified.is_placeholder() && certified.covers("b.test"));
    }
}
