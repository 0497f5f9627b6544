//! What a client has shown in a handshake.

use std::fmt;

use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::SslRef;
use openssl::stack::Stack;
use openssl::x509::X509;

use crate::auth::certificate::{ClientCertificate, Verdict};

/// A chain that a client has shown, the client's own certificate first.
pub(crate) struct Shown {
    pub(super) leaf: X509,
    pub(super) others: Stack<X509>,
}

impl Shown {
    /// Takes what the client has shown in a handshake, if it has.
    pub(in crate::tls) fn of(ssl: &SslRef) -> Option<Self> {
        let leaf = ssl.peer_certificate()?;
        let mut others = Stack::new().ok()?;
        for other in ssl.peer_cert_chain().into_iter().flatten() {
            others.push(other.to_owned()).ok()?;
        }
        Some(Self { leaf, others })
    }

    /// Says in words what the client's own certificate says.
    pub(in crate::tls) fn describe(&self, verdict: Verdict) -> ClientCertificate {
        let subject = |nid| {
            let entries = self.leaf.subject_name().entries_by_nid(nid);
            entries.filter_map(|entry| Some(entry.data().to_string().ok()?.as_str().into()))
        };
        let alternatives = self.leaf.subject_alt_names();
        let alternatives = || alternatives.iter().flatten();
        let fingerprint = self.leaf.digest(MessageDigest::sha256());
        let fingerprint = fingerprint.as_deref().unwrap_or_default().iter();
        ClientCertificate {
            common_name: subject(Nid::COMMONNAME).next(),
            organizational_units: subject(Nid::ORGANIZATIONALUNITNAME).collect(),
            emails: alternatives()
                .filter_map(|name| Some(name.email()?.into()))
                .collect(),
            dns_names: alternatives()
                .filter_map(|name| Some(name.dnsname()?.into()))
                .collect(),
            uris: alternatives()
                .filter_map(|name| Some(name.uri()?.into()))
                .collect(),
            fingerprint: fingerprint
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into(),
            verdict,
        }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown")
            .field("subject", &self.leaf.subject_name())
            .finish_non_exhaustive()
    }
}
