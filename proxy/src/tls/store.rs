//! Which certificate a handshake gets.

use std::collections::HashMap;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::SslRef;

use super::{CertifiedKey, ClientAuth};
use crate::config::HostPattern;

/// What the clients of a site are shown, and asked for.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    /// One for each type of key.
    keys: Arc<[Arc<CertifiedKey>]>,
    /// Whose certificates are taken; `None` asks for none.
    pub(super) clients: Option<Arc<ClientAuth>>,
}

impl Presented {
    /// Shows the certificate of `keys` that a client can verify.
    pub(crate) fn new(keys: Vec<Arc<CertifiedKey>>, clients: Option<Arc<ClientAuth>>) -> Self {
        Self {
            keys: keys.into(),
            clients,
        }
    }

    /// Returns whether clients are asked for a certificate of theirs.
    pub(crate) fn asks(&self) -> bool {
        self.clients.is_some()
    }

    /// Makes the handshake of `ssl` use these certificates; OpenSSL chooses by what the client
    /// says that it can verify.
    pub(super) fn apply(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        // A placeholder is shown only while there is nothing else.
        let mut issued = self.keys.iter().filter(|key| !key.is_placeholder());
        let first = issued.next().or_else(|| self.keys.first());
        first
            .into_iter()
            .chain(issued)
            .try_for_each(|key| key.apply(ssl))
    }
}

/// The certificates of all sites, by the name that a client asks for.
#[derive(Debug, Default)]
pub(crate) struct CertStore {
    exact: HashMap<Box<str>, Presented>,
    /// By the name after `*.`.
    wildcard: HashMap<Box<str>, Presented>,
    /// For clients that ask for no name, or for one that no site has.
    fallback: Option<Presented>,
}

impl CertStore {
    /// Adds what is shown for one of a site's hosts.
    ///
    /// The fallback is that of the site for any host, else the one added first.
    pub(crate) fn add(&mut self, host: &HostPattern, presented: &Presented) {
        match host {
            HostPattern::Any => self.fallback = Some(presented.clone()),
            HostPattern::Exact(name) => {
                self.exact.insert(name.as_str().into(), presented.clone());
            }
            HostPattern::Wildcard(parent) => {
                self.wildcard
                    .insert(parent.as_str().into(), presented.clone());
            }
        }
        self.fallback.get_or_insert_with(|| presented.clone());
    }

    /// Returns what is shown for the name in a client's hello.
    pub(crate) fn select(&self, server_name: Option<&str>) -> Option<&Presented> {
        let by_name = server_name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            self.exact.get(name.as_str()).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.wildcard.get(parent)
            })
        });
        by_name.or(self.fallback.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::self_signed;

    fn certified(host: &str) -> Presented {
        let folder = tempfile::tempdir().unwrap();
        let pair = self_signed::generate(&[host.to_owned()], &[]).unwrap();
        let (cert, key) = (folder.path().join("c"), folder.path().join("k"));
        std::fs::write(&cert, pair.cert_pem).unwrap();
        std::fs::write(&key, pair.key_pem).unwrap();
        let key = Arc::new(CertifiedKey::load(&cert, &key).unwrap());
        Presented::new(vec![key], None)
    }

    #[test]
    fn the_name_in_the_hello_decides_and_the_first_site_is_the_fallback() {
        let (a, b, c) = (
            certified("a.test"),
            certified("*.b.test"),
            certified("c.test"),
        );
        let mut store = CertStore::default();
        store.add(&"a.test".parse().unwrap(), &a);
        store.add(&"*.b.test".parse().unwrap(), &b);
        for (name, expected) in [
            (Some("a.test"), &a),
            (Some("A.Test."), &a),
            (Some("x.b.test"), &b),
            (Some("x.y.b.test"), &a),
            (Some("b.test"), &a),
            (Some("c.test"), &a),
            (None, &a),
        ] {
            let selected = store.select(name).unwrap();
            assert!(Arc::ptr_eq(&selected.keys, &expected.keys), "{name:?}");
        }
        store.add(&HostPattern::Any, &c);
        let shows = |name, expected: &Presented| {
            let selected = store.select(name).unwrap();
            Arc::ptr_eq(&selected.keys, &expected.keys)
        };
        assert!(shows(None, &c) && shows(Some("a.test"), &a));
    }

    #[test]
    fn an_empty_store_has_nothing_to_offer() {
        assert!(CertStore::default().select(Some("a.test")).is_none());
    }
}
