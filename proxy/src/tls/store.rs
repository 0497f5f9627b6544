//! Which certificate a handshake gets.

use std::collections::HashMap;
use std::sync::Arc;

use super::CertifiedKey;
use crate::config::HostPattern;

/// The certificates of all sites, by the name that a client asks for.
#[derive(Debug, Default)]
pub(crate) struct CertStore {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By the name after `*.`.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// For clients that ask for no name, or for one that no site has.
    fallback: Option<Arc<CertifiedKey>>,
}

impl CertStore {
    /// Adds the certificate of a site for one of its hosts.
    ///
    /// The fallback is the certificate of the site for any host, else the one added first.
    pub(crate) fn add(&mut self, host: &HostPattern, key: &Arc<CertifiedKey>) {
        match host {
            HostPattern::Any => self.fallback = Some(Arc::clone(key)),
            HostPattern::Exact(name) => {
                self.exact.insert(name.as_str().into(), Arc::clone(key));
            }
            HostPattern::Wildcard(parent) => {
                self.wildcard
                    .insert(parent.as_str().into(), Arc::clone(key));
            }
        }
        self.fallback.get_or_insert_with(|| Arc::clone(key));
    }

    /// Returns the certificate for the name in a client's hello.
    pub(crate) fn select(&self, server_name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
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

    fn certified(host: &str) -> Arc<CertifiedKey> {
        let folder = tempfile::tempdir().unwrap();
        let pair = self_signed::generate(&[host.to_owned()], &[]).unwrap();
        let (cert, key) = (folder.path().join("c"), folder.path().join("k"));
        std::fs::write(&cert, pair.cert_pem).unwrap();
        std::fs::write(&key, pair.key_pem).unwrap();
        Arc::new(CertifiedKey::load(&cert, &key).unwrap())
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
            assert!(Arc::ptr_eq(selected, expected), "{name:?}");
        }
        store.add(&HostPattern::Any, &c);
        assert!(Arc::ptr_eq(store.select(None).unwrap(), &c));
        assert!(Arc::ptr_eq(store.select(Some("a.test")).unwrap(), &a));
    }

    #[test]
    fn an_empty_store_has_nothing_to_offer() {
        assert!(CertStore::default().select(Some("a.test")).is_none());
    }
}
