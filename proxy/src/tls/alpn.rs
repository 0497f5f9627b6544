//! Answers a CA's question whether this host is ours, within a handshake (ACME TLS-ALPN-01,
//! RFC 8737): who offers `acme-tls/1` and nothing else gets a certificate made for the occasion.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use openssl::asn1::{Asn1Object, Asn1OctetString};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::ssl::SslRef;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Extension};

use crate::self_signing;

/// The protocol that a CA offers.
pub(crate) const PROTOCOL: &[u8] = b"acme-tls/1";

/// What it sends when it offers that protocol alone.
pub(crate) const OFFER: &[u8] = b"\x0aacme-tls/1";

/// `id-pe-acmeIdentifier` (RFC 8737, section 6.1).
const IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

/// The open challenges, by host. Each copy is the same map.
#[derive(Clone, Default)]
pub(crate) struct AlpnChallenges(Arc<RwLock<HashMap<Box<str>, Arc<Answer>>>>);

struct Answer {
    cert: X509,
    key: PKey<Private>,
}

impl AlpnChallenges {
    /// Answers for `host` with a certificate that carries the digest of what the CA has to see.
    pub(crate) fn open(&self, host: &str, digest: &[u8]) -> Result<(), ErrorStack> {
        let answer = Arc::new(Answer::make(host, digest)?);
        let mut open = self.0.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(host.into(), answer);
        Ok(())
    }

    /// Answers for `host` no more.
    pub(crate) fn close(&self, host: &str) {
        let mut open = self.0.write().unwrap_or_else(PoisonError::into_inner);
        open.remove(host);
    }

    /// Makes the handshake of `ssl` use the answer for a host; returns whether there is one.
    pub(crate) fn apply(&self, host: &str, ssl: &mut SslRef) -> Result<bool, ErrorStack> {
        let answer = {
            let open = self.0.read().unwrap_or_else(PoisonError::into_inner);
            open.get(host.to_ascii_lowercase().as_str()).cloned()
        };
        answer.as_ref().map_or(Ok(()), |answer| answer.apply(ssl))?;
        Ok(answer.is_some())
    }

    /// Makes the handshake of `ssl` use an answer that is not among these.
    pub(crate) fn apply_other(
        host: &str,
        digest: &[u8],
        ssl: &mut SslRef,
    ) -> Result<(), ErrorStack> {
        Answer::make(host, digest)?.apply(ssl)
    }
}

impl Answer {
    fn apply(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        ssl.set_certificate(&self.cert)?;
        ssl.set_private_key(&self.key)
    }

    fn make(host: &str, digest: &[u8]) -> Result<Self, ErrorStack> {
        let key = self_signing::key()?;
        let mut builder = self_signing::begin(&key, "ACME challenge", 1)?;
        let names = SubjectAlternativeName::new()
            .dns(host)
            .build(&builder.x509v3_context(None, None))?;
        builder.append_extension(names)?;
        // An octet string within the extension's own: a tag and the length, and then the digest.
        let mut value = vec![0x04, u8::try_from(digest.len()).unwrap_or(u8::MAX)];
        value.extend(digest);
        let kind = Asn1Object::from_str(IDENTIFIER)?;
        let value = Asn1OctetString::new_from_bytes(&value)?;
        let identifier = X509Extension::new_from_der(&kind, true, &value)?;
        builder.append_extension(identifier)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self {
            cert: builder.build(),
            key,
        })
    }
}

impl fmt::Debug for AlpnChallenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlpnChallenges").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_the_host_and_carries_the_digest_in_a_critical_extension() {
        let answer = Answer::make("a.test", &[0xAB; 32]).unwrap();
        let names = answer.cert.subject_alt_names().unwrap();
        assert_eq!(
            names
                .iter()
                .filter_map(|name| name.dnsname())
                .collect::<Vec<_>>(),
            ["a.test"]
        );
        let text = String::from_utf8(answer.cert.to_text().unwrap()).unwrap();
        assert!(text.contains("1.3.6.1.5.5.7.1.31: critical"), "{text}");
        let der = answer.cert.to_der().unwrap();
        let mut wanted = vec![0x04, 0x22, 0x04, 0x20];
        wanted.extend([0xAB; 32]);
        assert!(der.windows(wanted.len()).any(|part| part == wanted));
    }
}
