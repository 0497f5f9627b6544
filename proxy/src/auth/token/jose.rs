//! Signatures of tokens (RFC 7515, RFC 7517) by OpenSSL.
//!
//! The crate `jsonwebtoken` reads and checks headers and claims; the signature itself is left to
//! who provides it, and that is the one TLS library of this process. A key knows its algorithm:
//! what a token's header claims is compared with it and never followed.

use std::fmt;
use std::sync::Once;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::rsa::Rsa;
use openssl::sha::sha256;
use openssl::sign;
use serde_json::{Value, json};

/// Shorter RSA keys are no longer worth a signature.
const RSA_BITS_MIN: u32 = 2048;

/// What of a key's digest libtrust shows, in bytes.
const LIBTRUST_BYTES: usize = 30;

/// Why a key can sign or verify nothing here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The key and the algorithm that it claims do not go together, or one is not known here.
    #[error("the key is of no kind that is accepted (RS256, RS384, RS512, ES256, ES384, EdDSA)")]
    Kind,
    /// It is no key.
    #[error("the key is malformed")]
    Malformed(#[from] ErrorStack),
    /// It is too short.
    #[error("the RSA key is shorter than {RSA_BITS_MIN} bits")]
    Short,
}

/// A key that signatures are verified with.
#[derive(Clone)]
pub(crate) struct PublicKey {
    algorithm: Algorithm,
    key: PKey<Public>,
    decoding: DecodingKey,
}

impl PublicKey {
    /// Takes a key for the one algorithm that it is used with; without one, for the usual one.
    pub(crate) fn new(key: PKey<Public>, wanted: Option<Algorithm>) -> Result<Self, KeyError> {
        use Algorithm as A;
        let fitting: &[A] = match key.id() {
            Id::RSA => &[A::RS256, A::RS384, A::RS512],
            Id::EC => match key.ec_key()?.group().curve_name() {
                Some(Nid::X9_62_PRIME256V1) => &[A::ES256],
                Some(Nid::SECP384R1) => &[A::ES384],
                _ => &[],
            },
            Id::ED25519 => &[A::EdDSA],
            _ => &[],
        };
        let wanted = wanted.or_else(|| fitting.first().copied());
        let algorithm = wanted
            .filter(|wanted| fitting.contains(wanted))
            .ok_or(KeyError::Kind)?;
        if key.id() == Id::RSA && key.bits() < RSA_BITS_MIN {
            return Err(KeyError::Short);
        }
        // Whatever the name says, the bytes are only read by the verifier below.
        let der = key.public_key_to_der()?;
        let decoding = match key.id() {
            Id::RSA => DecodingKey::from_rsa_der(&der),
            Id::EC => DecodingKey::from_ec_der(&der),
            _ => DecodingKey::from_ed_der(&der),
        };
        Ok(Self {
            algorithm,
            key,
            decoding,
        })
    }

    /// Reads a key of a JSON Web Key Set; symmetric ones are refused.
    pub(crate) fn from_jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        let key = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(parameters) => {
                let curve = match parameters.curve {
                    EllipticCurve::P256 => Nid::X9_62_PRIME256V1,
                    EllipticCurve::P384 => Nid::SECP384R1,
                    _ => return Err(KeyError::Kind),
                };
                let group = EcGroup::from_curve_name(curve)?;
                let (x, y) = (number(&parameters.x)?, number(&parameters.y)?);
                // A point that is not on the curve is an error here.
                PKey::from_ec_key(EcKey::from_public_key_affine_coordinates(&group, &x, &y)?)?
            }
            AlgorithmParameters::RSA(parameters) => {
                let (n, e) = (number(&parameters.n)?, number(&parameters.e)?);
                PKey::from_rsa(Rsa::from_public_components(n, e)?)?
            }
            AlgorithmParameters::OctetKeyPair(parameters)
                if parameters.curve == EllipticCurve::Ed25519 =>
            {
                PKey::public_key_from_raw_bytes(&bytes(&parameters.x)?, Id::ED25519)?
            }
            _ => return Err(KeyError::Kind),
        };
        let wanted = match jwk.common.key_algorithm {
            None => None,
            Some(KeyAlgorithm::ES256) => Some(Algorithm::ES256),
            Some(KeyAlgorithm::ES384) => Some(Algorithm::ES384),
            Some(KeyAlgorithm::EdDSA) => Some(Algorithm::EdDSA),
            Some(KeyAlgorithm::RS256) => Some(Algorithm::RS256),
            Some(KeyAlgorithm::RS384) => Some(Algorithm::RS384),
            Some(KeyAlgorithm::RS512) => Some(Algorithm::RS512),
            Some(_) => return Err(KeyError::Kind),
        };
        Self::new(key, wanted)
    }

    /// Returns the one algorithm that this key is used with.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the key as `jsonwebtoken` passes it through.
    pub(crate) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// Returns the name that libtrust, and with it distribution up to 2.8, gives a key.
    pub(crate) fn libtrust_id(&self) -> Result<String, ErrorStack> {
        let digest = sha256(&self.key.public_key_to_der()?);
        let text = base32(digest.get(..LIBTRUST_BYTES).unwrap_or_default());
        let mut id = String::with_capacity(text.len() + text.len() / 4);
        for (at, letter) in text.chars().enumerate() {
            if at > 0 && at % 4 == 0 {
                id.push(':');
            }
            id.push(letter);
        }
        Ok(id)
    }

    /// Returns the thumbprint of RFC 7638, which distribution names a key by from 3.0 on.
    pub(crate) fn thumbprint(&self) -> Result<String, ErrorStack> {
        // The members in the order of the alphabet, without a space.
        let members = self.members()?;
        let members: Vec<String> = members
            .iter()
            .map(|(name, value)| format!("\"{name}\":\"{value}\""))
            .collect();
        let digest = sha256(format!("{{{}}}", members.join(",")).as_bytes());
        Ok(URL_SAFE_NO_PAD.encode(digest))
    }

    /// Returns the key for a JSON Web Key Set, under the name `kid`.
    pub(crate) fn to_jwk(&self, kid: &str) -> Result<Value, ErrorStack> {
        let mut jwk = json!({ "kid": kid, "use": "sig", "alg": format!("{:?}", self.algorithm) });
        if let Some(object) = jwk.as_object_mut() {
            for (name, value) in self.members()? {
                object.insert(name.to_owned(), Value::String(value));
            }
        }
        Ok(jwk)
    }

    /// Returns what makes up the key, by the names of RFC 7518 and in the order of the alphabet.
    fn members(&self) -> Result<Vec<(&'static str, String)>, ErrorStack> {
        let encode = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
        match self.key.id() {
            Id::EC => {
                let key = self.key.ec_key()?;
                let mut context = BigNumContext::new()?;
                let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
                key.public_key()
                    .affine_coordinates(key.group(), &mut x, &mut y, &mut context)?;
                let (curve, len) = match self.algorithm {
                    Algorithm::ES384 => ("P-384", 48),
                    _ => ("P-256", 32),
                };
                Ok(vec![
                    ("crv", curve.to_owned()),
                    ("kty", "EC".to_owned()),
                    ("x", encode(x.to_vec_padded(len)?)),
                    ("y", encode(y.to_vec_padded(len)?)),
                ])
            }
            Id::RSA => {
                let key = self.key.rsa()?;
                Ok(vec![
                    ("e", encode(key.e().to_vec())),
                    ("kty", "RSA".to_owned()),
                    ("n", encode(key.n().to_vec())),
                ])
            }
            _ => Ok(vec![
                ("crv", "Ed25519".to_owned()),
                ("kty", "OKP".to_owned()),
                ("x", encode(self.key.raw_public_key()?)),
            ]),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Returns a P-256 key in the form that `jsonwebtoken` passes through to the signer below.
pub(crate) fn encoding(key: &PKey<Private>) -> Result<EncodingKey, ErrorStack> {
    Ok(EncodingKey::from_ec_der(&key.private_key_to_pkcs8()?))
}

/// Makes OpenSSL the one who signs and verifies for `jsonwebtoken` in this process.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Nobody else in this process provides one.
        let _already = OPENSSL.install_default();
    });
}

static OPENSSL: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // Keys are read and written above.
    key_utils: KeyUtils::new_unimplemented(),
};

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, JwtError> {
    let key = PKey::private_key_from_pkcs8(key.as_bytes())
        .map_err(|_malformed| JwtError::from(ErrorKind::InvalidKeyFormat))?;
    if *algorithm == Algorithm::ES256 && key.id() == Id::EC {
        Ok(Box::new(Es256(key)))
    } else {
        Err(ErrorKind::InvalidAlgorithm.into())
    }
}

struct Es256(PKey<Private>);

impl Signer<Vec<u8>> for Es256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let sign = || -> Result<Vec<u8>, ErrorStack> {
            let mut signer = sign::Signer::new(MessageDigest::sha256(), &self.0)?;
            let signature = EcdsaSig::from_der(&signer.sign_oneshot_to_vec(message)?)?;
            let (r, s) = (signature.r(), signature.s());
            Ok([r.to_vec_padded(32)?, s.to_vec_padded(32)?].concat())
        };
        sign().map_err(SignatureError::from_source)
    }
}

impl JwtSigner for Es256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, JwtError> {
    let key = PKey::public_key_from_der(key.try_get_as_bytes()?)
        .map_err(|_malformed| JwtError::from(ErrorKind::InvalidKeyFormat))?;
    // The algorithm has been compared with the key's own before; this is for whoever forgets to.
    let key = PublicKey::new(key, Some(*algorithm))
        .map_err(|_unfit| JwtError::from(ErrorKind::InvalidAlgorithm))?;
    Ok(Box::new(key))
}

impl Verifier<Vec<u8>> for PublicKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        match self.is_signature(message, signature) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SignatureError::new()),
            Err(error) => Err(SignatureError::from_source(error)),
        }
    }
}

impl PublicKey {
    fn is_signature(&self, message: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        let digest = match self.algorithm {
            Algorithm::RS256 | Algorithm::ES256 => MessageDigest::sha256(),
            Algorithm::RS384 | Algorithm::ES384 => MessageDigest::sha384(),
            Algorithm::RS512 => MessageDigest::sha512(),
            _ => {
                return sign::Verifier::new_without_digest(&self.key)?
                    .verify_oneshot(signature, message);
            }
        };
        let der;
        let signature = if self.key.id() == Id::EC {
            let len = if self.algorithm == Algorithm::ES256 {
                32
            } else {
                48
            };
            match signature.split_at_checked(len) {
                Some((r, s)) if s.len() == len => {
                    let (r, s) = (BigNum::from_slice(r)?, BigNum::from_slice(s)?);
                    der = EcdsaSig::from_private_components(r, s)?.to_der()?;
                    &der[..]
                }
                _ => return Ok(false),
            }
        } else {
            signature
        };
        sign::Verifier::new(digest, &self.key)?.verify_oneshot(signature, message)
    }
}

impl JwtVerifier for PublicKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, KeyError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_bad| KeyError::Kind)
}

fn number(text: &str) -> Result<BigNum, KeyError> {
    Ok(BigNum::from_slice(&bytes(text)?)?)
}

/// RFC 4648, section 6, for lengths that need no padding.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let groups = bytes.chunks(5).map(|group| {
        let number = group
            .iter()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        (0..8).rev().map(move |at| {
            let letter = LETTERS.get((number >> (5 * at) & 31) as usize);
            char::from(letter.copied().unwrap_or_default())
        })
    });
    groups.flatten().collect()
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Header, Validation, decode, encode};

    use super::*;

    fn ec(curve: Nid) -> PKey<Private> {
        let group = EcGroup::from_curve_name(curve).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    }

    fn public(key: &PKey<Private>) -> PKey<Public> {
        PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap()
    }

    #[test]
    fn base32_is_that_of_the_rfc() {
        assert_eq!(base32(b"fooba"), "MZXW6YTB");
        assert_eq!(base32(&[0; 5]), "AAAAAAAA");
        assert_eq!(base32(&[255; 5]), "77777777");
    }

    #[test]
    fn what_is_signed_here_is_verified_here_and_nothing_else_is() {
        install();
        let (key, other) = (ec(Nid::X9_62_PRIME256V1), ec(Nid::X9_62_PRIME256V1));
        let claims = json!({ "exp": u32::MAX, "a": 1 });
        let header = Header::new(Algorithm::ES256);
        let token = encode(&header, &claims, &encoding(&key).unwrap()).unwrap();
        let validation = Validation::new(Algorithm::ES256);
        let read = |token: &str, key: &PKey<Private>| {
            let key = PublicKey::new(public(key), None).unwrap();
            decode::<Value>(token, key.decoding(), &validation)
        };
        assert_eq!(read(&token, &key).unwrap().claims, claims);
        assert!(read(&token, &other).is_err());
        let (head, signature) = token.rsplit_once('.').unwrap();
        for forged in [
            format!("{head}."),
            format!("{head}.AAAA"),
            format!("{head}.{}", "A".repeat(signature.len())),
            format!("{head}x.{signature}"),
            head.to_owned(),
            String::new(),
            "..".to_owned(),
        ] {
            assert!(read(&forged, &key).is_err(), "{forged}");
        }
    }

    #[test]
    fn a_key_is_used_with_its_own_algorithm_alone() {
        let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let short = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
        let ed = PKey::generate_ed25519().unwrap();
        let (p256, p384) = (ec(Nid::X9_62_PRIME256V1), ec(Nid::SECP384R1));
        use Algorithm as A;
        for (key, wanted, expected) in [
            (&rsa, None, Some(A::RS256)),
            (&rsa, Some(A::RS512), Some(A::RS512)),
            (&rsa, Some(A::ES256), None),
            (&rsa, Some(A::HS256), None),
            (&short, None, None),
            (&p256, None, Some(A::ES256)),
            (&p256, Some(A::ES384), None),
            (&p384, None, Some(A::ES384)),
            (&ed, None, Some(A::EdDSA)),
            (&ed, Some(A::HS256), None),
            (&ec(Nid::SECP256K1), None, None),
        ] {
            let found = PublicKey::new(public(key), wanted);
            let found = found.ok().map(|key| key.algorithm());
            assert_eq!(found, expected, "{wanted:?}");
        }
    }

    #[test]
    fn keys_survive_the_way_through_a_key_set() {
        for key in [
            ec(Nid::X9_62_PRIME256V1),
            ec(Nid::SECP384R1),
            PKey::generate_ed25519().unwrap(),
            PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        ] {
            let key = PublicKey::new(public(&key), None).unwrap();
            let jwk: Jwk = serde_json::from_value(key.to_jwk("k").unwrap()).unwrap();
            let back = PublicKey::from_jwk(&jwk).unwrap();
            assert_eq!(back.algorithm(), key.algorithm());
            assert_eq!(
                back.key.public_key_to_der().unwrap(),
                key.key.public_key_to_der().unwrap()
            );
        }
        let symmetric = json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" });
        let jwk: Jwk = serde_json::from_value(symmetric).unwrap();
        assert!(PublicKey::from_jwk(&jwk).is_err());
        let off_curve = json!({ "kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ" });
        let jwk: Jwk = serde_json::from_value(off_curve).unwrap();
        assert!(PublicKey::from_jwk(&jwk).is_err());
    }

    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        // RFC 7638, section 3.1.
        let jwk = json!({
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
            "e": "AQAB", "alg": "RS256"
        });
        let jwk: Jwk = serde_json::from_value(jwk).unwrap();
        let key = PublicKey::from_jwk(&jwk).unwrap();
        assert_eq!(
            key.thumbprint().unwrap(),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
        let id = key.libtrust_id().unwrap();
        assert_eq!((id.len(), id.matches(':').count()), (59, 11));
    }
}
