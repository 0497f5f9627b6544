//! A new key, and what asks a CA to certify it.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::stack::Stack;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509Ref, X509ReqBuilder};

use super::Error;
use crate::config::KeyType;

/// Makes a key, and a request (PKCS #10, in DER) for `hosts`; returns the request and the key in
/// PEM.
pub(crate) fn make(hosts: &[String], key_type: KeyType) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let key = generate(key_type)?;
    let mut builder = X509ReqBuilder::new()?;
    builder.set_version(0)?;
    builder.set_pubkey(&key)?;
    let mut names = SubjectAlternativeName::new();
    for host in hosts {
        let bare = host.trim_matches(['[', ']']);
        match bare.parse::<IpAddr>() {
            Ok(_) => names.ip(bare),
            Err(_) => names.dns(host),
        };
    }
    let mut extensions = Stack::new()?;
    extensions.push(names.build(&builder.x509v3_context(None))?)?;
    builder.add_extensions(&extensions)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((builder.build().to_der()?, key.private_key_to_pem_pkcs8()?))
}

/// Returns what kind of key a certificate was made for, if it is one that can be asked for.
pub(crate) fn key_type(leaf: &X509Ref) -> Option<KeyType> {
    let key = leaf.public_key().ok()?;
    match (key.id(), key.bits()) {
        (Id::EC, 256) => Some(KeyType::EcdsaP256),
        (Id::EC, 384) => Some(KeyType::EcdsaP384),
        (Id::RSA, 2048) => Some(KeyType::Rsa2048),
        (Id::RSA, 4096) => Some(KeyType::Rsa4096),
        _ => None,
    }
}

/// Returns what a CA calls a certificate when it says when to renew it (RFC 9773, section 4.1).
pub(crate) fn certificate_id(leaf: &X509Ref) -> Option<String> {
    let authority = leaf.authority_key_id()?.as_slice();
    let serial = leaf.serial_number().to_bn().ok()?.to_vec();
    let mut padded = Vec::with_capacity(serial.len() + 1);
    if serial.first().is_none_or(|first| first & 0x80 != 0) {
        // As it stands in the certificate, where a first bit would be a sign.
        padded.push(0);
    }
    padded.extend(serial);
    let (authority, serial) = (
        URL_SAFE_NO_PAD.encode(authority),
        URL_SAFE_NO_PAD.encode(padded),
    );
    Some(format!("{authority}.{serial}"))
}

fn generate(key_type: KeyType) -> Result<PKey<Private>, ErrorStack> {
    let curve = match key_type {
        KeyType::EcdsaP256 => Nid::X9_62_PRIME256V1,
        KeyType::EcdsaP384 => Nid::SECP384R1,
        KeyType::Rsa2048 => return PKey::from_rsa(Rsa::generate(2048)?),
        KeyType::Rsa4096 => return PKey::from_rsa(Rsa::generate(4096)?),
    };
    let group = EcGroup::from_curve_name(curve)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

#[cfg(test)]
mod tests {
    use openssl::x509::X509Req;

    use super::*;

    #[test]
    fn a_request_is_signed_with_its_key_and_names_every_host() {
        let hosts = [
            "a.test".to_owned(),
            "*.b.test".to_owned(),
            "[::1]".to_owned(),
        ];
        for key_type in [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::Rsa2048] {
            let (request, key) = make(&hosts, key_type).unwrap();
            let request = X509Req::from_der(&request).unwrap();
            let key = PKey::private_key_from_pem(&key).unwrap();
            assert!(request.verify(&key).unwrap());
            let text = String::from_utf8(request.to_text().unwrap()).unwrap();
            let names = "DNS:a.test, DNS:*.b.test, IP Address:0:0:0:0:0:0:0:1";
            assert!(text.contains(names), "{text}");
        }
    }
}
