//! A certificate of one's own making, for a first start without a CA.

use std::net::IpAddr;

use openssl::hash::MessageDigest;
use openssl::x509::extension::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};

use super::Error;
use crate::self_signing;

/// The longest life that Apple's platforms accept of a server certificate one has trusted oneself.
pub const DAYS: u32 = 825;

/// X.509 bounds the common name (RFC 5280, appendix A.1, `ub-common-name`).
const COMMON_NAME_CHARS_MAX: usize = 64;

/// A certificate and its key, in PEM form.
pub struct Pair {
    /// The certificate: public.
    pub cert_pem: Vec<u8>,
    /// The key: for the edge's eyes alone.
    pub key_pem: Vec<u8>,
}

/// Makes a certificate for `names` and `ips`, signed with its own fresh P-256 key, for [`DAYS`].
///
/// It is no CA: clients trust it as what it is, and nothing else can be signed with its key.
///
/// # Errors
/// [`Error::OpenSsl`] when OpenSSL refuses, as for a name that fits no certificate.
pub fn generate(names: &[String], ips: &[IpAddr]) -> Result<Pair, Error> {
    generate_for_days(names, ips, DAYS)
}

/// Makes a certificate as [`generate`] does, with a life of so many days.
///
/// # Errors
/// As [`generate`].
pub fn generate_for_days(names: &[String], ips: &[IpAddr], days: u32) -> Result<Pair, Error> {
    let key = self_signing::key()?;
    let first = names.first().cloned();
    let common_name = first
        .or_else(|| ips.first().map(IpAddr::to_string))
        .filter(|name| name.chars().count() <= COMMON_NAME_CHARS_MAX)
        .unwrap_or_else(|| "tidegate".to_owned());
    let mut builder = self_signing::begin(&key, &common_name, days)?;

    let mut alternatives = SubjectAlternativeName::new();
    for name in names {
        alternatives.dns(name);
    }
    for ip in ips {
        alternatives.ip(&ip.to_string());
    }
    let context = builder.x509v3_context(None, None);
    let alternatives = alternatives.build(&context)?;
    let key_identifier = SubjectKeyIdentifier::new().build(&context)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
    builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    if !(names.is_empty() && ips.is_empty()) {
        builder.append_extension(alternatives)?;
    }
    builder.append_extension(key_identifier)?;
    builder.sign(&key, MessageDigest::sha256())?;

    Ok(Pair {
        cert_pem: builder.build().to_pem()?,
        key_pem: key.private_key_to_pem_pkcs8()?,
    })
}

#[cfg(test)]
mod tests {
    use openssl::pkey::PKey;
    use openssl::x509::X509;

    use super::*;

    #[test]
    fn the_certificate_names_hosts_and_addresses_and_is_no_ca() {
        let pair = generate(
            &["registry.test".to_owned(), "localhost".to_owned()],
            &["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        )
        .unwrap();
        let cert = X509::from_pem(&pair.cert_pem).unwrap();
        let names = cert.subject_alt_names().unwrap();
        let dns: Vec<_> = names.iter().filter_map(|name| name.dnsname()).collect();
        assert_eq!(dns, ["registry.test", "localhost"]);
        let ips: Vec<_> = names
            .iter()
            .filter_map(|name| name.ipaddress())
            .map(<[u8]>::len)
            .collect();
        assert_eq!(ips, [4, 16]);
        let key = PKey::private_key_from_pem(&pair.key_pem).unwrap();
        assert!(cert.verify(&key).unwrap());
        let text = String::from_utf8(cert.to_text().unwrap()).unwrap();
        assert!(text.contains("CA:FALSE"), "{text}");
    }

    #[test]
    fn a_name_too_long_for_the_subject_still_stands_among_the_alternatives() {
        let long = format!("{}.test", "a".repeat(63));
        let pair = generate(std::slice::from_ref(&long), &[]).unwrap();
        let cert = X509::from_pem(&pair.cert_pem).unwrap();
        let names = cert.subject_alt_names().unwrap();
        assert_eq!(names.get(0).unwrap().dnsname(), Some(long.as_str()));
    }
}
