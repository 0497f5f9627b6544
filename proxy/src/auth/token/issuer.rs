//! Another server whose tokens are taken: what registry:2 calls `auth: token`.
//!
//! The keys that are trusted come with certificates, from a file or from a URL; a token names one by
//! `kid`, or brings a chain of certificates (`x5c`) that ends at a trusted one. Which algorithm a key
//! is used with is the key's to say. What a token may do stands in it, and no rule is asked.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Header, decode};
use moka::sync::Cache;
use openssl::error::ErrorStack;
use openssl::sha::sha256;
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509StoreContext};
use serde::Deserialize;
use serde_json::Value;

use super::access_token::{Invalid, grants, header, invalid, validation};
use super::jose::{self, KeyError, PublicKey};
use super::scope::Access;
use super::secret::Hashed;
use crate::auth::{Origin, Principal, ROBOT_PREFIX, User};

/// As distribution allows.
const LEEWAY_SECS: u64 = 60;

const VERIFIED_MAX: u64 = 10_000;

/// Longer chains are nobody's.
const CHAIN_MAX: usize = 8;

/// As long as the name of a user may be.
const SUBJECT_BYTES_MAX: usize = 255;

/// How often keys are fetched again, and how soon after a failure or for a key that is not known.
const FETCH_EVERY_SECS: u64 = 300;
const FETCH_AGAIN_SECS: u64 = 10;

/// Another server whose tokens are taken.
pub(crate) struct Issuer {
    /// Where clients get tokens.
    pub(crate) realm: Box<str>,
    pub(crate) service: Box<str>,
    issuer: Box<str>,
    roots: Option<X509Store>,
    /// Of the certificates and of the file.
    keys: KeySet,
    /// What comes from a URL.
    fetched: Option<Arc<Fetched>>,
    source: Option<Source>,
    verified: Cache<Hashed, Arc<Verified>>,
}

/// Where keys are fetched from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Source {
    pub(crate) url: String,
    /// Whom to trust for TLS, in the place of whom the system trusts.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Keys that are fetched in the background, for all sites that name the same URL.
pub(crate) struct Fetched {
    pub(crate) source: Source,
    keys: ArcSwap<KeySet>,
    /// How often the keys have changed.
    turn: AtomicU64,
    /// When to fetch again, in seconds since 1970.
    due: AtomicU64,
}

/// Keys by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet(HashMap<String, PublicKey>);

#[derive(Debug)]
struct Verified {
    principal: Principal,
    expires: u64,
    /// Of which turn the keys were.
    turn: u64,
}

#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    exp: u64,
    #[serde(default)]
    access: Option<Vec<Access>>,
}

/// Why what is to be trusted cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// There is nothing in it that could be.
    #[error("holds no certificate")]
    Empty,
    /// A key in it can verify nothing here.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is no key set.
    #[error("is not a valid JSON Web Key Set: {0}")]
    KeySet(#[from] serde_json::Error),
    /// No key of the set can verify anything here.
    #[error("holds no key that is accepted (RS256, RS384, RS512, ES256, ES384, EdDSA)")]
    NoKey,
    /// OpenSSL cannot use it.
    #[error(transparent)]
    OpenSsl(#[from] ErrorStack),
}

/// What there is to trust.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    pub(crate) roots: Vec<X509>,
    pub(crate) keys: KeySet,
}

impl Trust {
    /// Trusts the certificates of a file, and the keys in them.
    pub(crate) fn add_certificates(&mut self, pem: &[u8]) -> Result<(), TrustError> {
        let certificates = X509::stack_from_pem(pem)?;
        if certificates.is_empty() {
            return Err(TrustError::Empty);
        }
        for certificate in certificates {
            // A certificate authority may have a key of a kind that signs no tokens.
            if let Ok(key) = PublicKey::new(certificate.public_key()?, None) {
                self.keys.add_by_fingerprint(key)?;
            }
            self.roots.push(certificate);
        }
        Ok(())
    }
}

impl Issuer {
    /// Takes tokens that `issuer` has signed for `service`.
    pub(crate) fn new(
        realm: &str,
        service: &str,
        issuer: &str,
        trust: Trust,
    ) -> Result<Self, ErrorStack> {
        jose::install();
        let roots = if trust.roots.is_empty() {
            None
        } else {
            let mut store = X509StoreBuilder::new()?;
            for root in trust.roots {
                store.add_cert(root)?;
            }
            // Every certificate that is named is trusted, not only one that signs itself.
            store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
            Some(store.build())
        };
        Ok(Self {
            realm: realm.into(),
            service: service.into(),
            issuer: issuer.into(),
            roots,
            keys: trust.keys,
            fetched: None,
            source: None,
            verified: Cache::new(VERIFIED_MAX),
        })
    }

    /// Trusts what comes from a URL too.
    pub(crate) fn with_source(mut self, source: Option<Source>) -> Self {
        self.source = source;
        self
    }

    /// Takes the keys that come from the URL of this issuer.
    pub(crate) fn fetching(mut self, fetched: impl FnOnce(&Source) -> Arc<Fetched>) -> Self {
        self.fetched = self.source.as_ref().map(fetched);
        self
    }

    /// Returns the principal of a token that holds at `now`.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Principal, Invalid> {
        let hash = sha256(token.as_bytes());
        let turn = self.fetched.as_ref().map_or(0, |fetched| fetched.turn());
        // What was verified with keys that are no more is verified again.
        let known = self.verified.get(&hash);
        let verified = match known.filter(|known| known.turn == turn) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.read(token, turn, now)?);
                self.verified.insert(hash, Arc::clone(&verified));
                verified
            }
        };
        if verified.expires <= now {
            self.verified.invalidate(&hash);
            return Err(Invalid::Expired);
        }
        Ok(verified.principal.clone())
    }

    fn read(&self, token: &str, turn: u64, now: u64) -> Result<Verified, Invalid> {
        let header = header(token)?;
        let key = self.key(&header, now).ok_or(Invalid::Foreign)?;
        let mut validation = validation(key.algorithm(), &self.issuer, &self.service);
        validation.leeway = LEEWAY_SECS;
        let claims: Claims = decode(token, key.decoding(), &validation)
            .map_err(invalid)?
            .claims;
        if claims.sub.len() > SUBJECT_BYTES_MAX
            || claims.sub.chars().any(char::is_control)
            || claims.sub.starts_with(ROBOT_PREFIX)
        {
            return Err(Invalid::Foreign);
        }
        let name = match claims.sub.as_str() {
            // Who is nobody there has a name here, so that no rule for nobody is asked.
            "" => "anonymous",
            name => name,
        };
        let grants = grants(&claims.access.unwrap_or_default());
        let user = Arc::new(User::new(name, Origin::Issuer));
        Ok(Verified {
            principal: Principal::user(user).limited_to(Arc::new(grants)),
            expires: claims.exp.saturating_add(LEEWAY_SECS),
            turn,
        })
    }

    /// Finds the key that a token says it is signed with.
    fn key(&self, header: &Header, now: u64) -> Option<PublicKey> {
        if let (Some(roots), Some(chain)) = (&self.roots, &header.x5c) {
            return chained(roots, chain).ok().flatten();
        }
        let kid = header.kid.as_ref()?;
        if let Some(key) = self.keys.0.get(kid) {
            return Some(key.clone());
        }
        let fetched = self.fetched.as_ref()?;
        let found = fetched.keys.load().0.get(kid).cloned();
        if found.is_none() {
            // It may be a new key.
            fetched.hurry(now);
        }
        found
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// Returns the key of a chain's first certificate, if the chain ends at a trusted one.
fn chained(roots: &X509Store, chain: &[String]) -> Result<Option<PublicKey>, ErrorStack> {
    if chain.len() > CHAIN_MAX {
        return Ok(None);
    }
    let mut certificates = Vec::new();
    for text in chain {
        let Ok(der) = STANDARD.decode(text) else {
            return Ok(None);
        };
        certificates.push(X509::from_der(&der)?);
    }
    let mut certificates = certificates.into_iter();
    let Some(leaf) = certificates.next() else {
        return Ok(None);
    };
    let mut between = Stack::new()?;
    for certificate in certificates {
        between.push(certificate)?;
    }
    let mut context = X509StoreContext::new()?;
    let holds = context.init(roots, &leaf, &between, |context| context.verify_cert())?;
    if !holds {
        return Ok(None);
    }
    Ok(PublicKey::new(leaf.public_key()?, None).ok())
}

impl KeySet {
    /// Reads a JSON Web Key Set (RFC 7517); keys that can verify nothing here are passed over.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, TrustError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(text)?;
        let mut keys = Self::default();
        for value in set.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
                continue;
            };
            if let Ok(key) = PublicKey::from_jwk(&jwk) {
                match jwk.common.key_id {
                    Some(kid) => drop(keys.0.insert(kid, key)),
                    None => keys.add_by_fingerprint(key)?,
                }
            }
        }
        if keys.0.is_empty() {
            return Err(TrustError::NoKey);
        }
        Ok(keys)
    }

    /// Adds all of `other`.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Adds a key by the names that distribution gives one, in its older versions and its newer.
    fn add_by_fingerprint(&mut self, key: PublicKey) -> Result<(), TrustError> {
        self.0.insert(key.thumbprint()?, key.clone());
        self.0.insert(key.libtrust_id()?, key);
        Ok(())
    }
}

impl Fetched {
    /// Has no key until the first fetch, which is due at once.
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            keys: ArcSwap::default(),
            turn: AtomicU64::new(0),
            due: AtomicU64::new(0),
        }
    }

    /// Returns whether it is time to fetch, and puts the next time off.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        if self.due.load(Ordering::Relaxed) > now {
            return false;
        }
        self.due.store(now + FETCH_AGAIN_SECS, Ordering::Relaxed);
        true
    }

    /// Takes what was fetched.
    pub(crate) fn take(&self, text: &[u8], now: u64) -> Result<(), TrustError> {
        let keys = KeySet::parse(text)?;
        self.keys.store(Arc::new(keys));
        self.turn.fetch_add(1, Ordering::Release);
        self.due.store(now + FETCH_EVERY_SECS, Ordering::Relaxed);
        Ok(())
    }

    fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }

    /// Asks for a fetch sooner than it was due, but not at once after another.
    fn hurry(&self, now: u64) {
        self.due
            .fetch_min(now + FETCH_AGAIN_SECS, Ordering::Relaxed);
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Returns the file of the certificates to trust for TLS.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, encode};
    use oci::Action;
    use openssl::asn1::Asn1Time;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::x509::{X509Builder, X509NameBuilder};
    use serde_json::json;

    use super::*;
    use crate::auth::token::vault::now;

    fn key() -> PKey<Private> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    }

    fn certificate(name: &str, key: &PKey<Private>, by: Option<(&X509, &PKey<Private>)>) -> X509 {
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_text("CN", name).unwrap();
        let subject = subject.build();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&subject).unwrap();
        let issuer = by.map_or(&*subject, |(issuer, _)| issuer.subject_name());
        builder.set_issuer_name(issuer).unwrap();
        builder.set_pubkey(key).unwrap();
        let (from, to) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(1));
        builder.set_not_before(&from.unwrap()).unwrap();
        builder.set_not_after(&to.unwrap()).unwrap();
        let ca = openssl::x509::extension::BasicConstraints::new()
            .critical()
            .ca()
            .build();
        builder.append_extension(ca.unwrap()).unwrap();
        let signs = by.map_or(key, |(_, key)| key);
        builder.sign(signs, MessageDigest::sha256()).unwrap();
        builder.build()
    }

    fn public(key: &PKey<Private>) -> PublicKey {
        let der = key.public_key_to_der().unwrap();
        PublicKey::new(PKey::public_key_from_der(&der).unwrap(), None).unwrap()
    }

    fn claims() -> Value {
        json!({
            "iss": "them", "aud": ["other", "us"], "sub": "alice", "exp": now() + 100,
            "access": [{ "type": "repository", "name": "a/b", "actions": ["pull"] }]
        })
    }

    fn token(header: impl Fn(&mut Header), claims: &Value, key: &PKey<Private>) -> String {
        jose::install();
        let mut head = Header::new(Algorithm::ES256);
        header(&mut head);
        encode(&head, claims, &jose::encoding(key).unwrap()).unwrap()
    }

    fn issuer(trust: Trust) -> Issuer {
        Issuer::new("https://them/token", "us", "them", trust).unwrap()
    }

    #[test]
    fn keys_of_certificates_are_known_by_either_name_of_distribution() {
        let (own, other) = (key(), key());
        let pem = certificate("ca", &own, None).to_pem().unwrap();
        let mut trust = Trust::default();
        trust.add_certificates(&pem).unwrap();
        let issuer = issuer(trust);
        let verify = |kid: Option<String>, claims: &Value, key| {
            let token = token(|header| header.kid.clone_from(&kid), claims, key);
            issuer.verify(&token, now())
        };
        let libtrust = Some(public(&own).libtrust_id().unwrap());
        let thumbprint = Some(public(&own).thumbprint().unwrap());
        for kid in [&libtrust, &thumbprint] {
            let principal = verify(kid.clone(), &claims(), &own).unwrap();
            let user = principal.as_user().unwrap();
            assert_eq!((&*user.name, user.origin), ("alice", Origin::Issuer));
            let grants = principal.grants().unwrap();
            let repository = "a/b".parse().unwrap();
            assert!(grants.allow(Action::Pull, Some(&repository)));
            assert!(!grants.allow(Action::Push, Some(&repository)));
        }
        assert!(verify(libtrust.clone(), &claims(), &other).is_err());
        assert!(verify(None, &claims(), &own).is_err());
        assert!(verify(Some("x".to_owned()), &claims(), &own).is_err());
        for (claim, value) in [
            ("iss", json!("others")),
            ("aud", json!("them")),
            ("exp", json!(now() - 61)),
            ("nbf", json!(now() + 70)),
            ("sub", json!("a\nb")),
            ("sub", json!("robot:ci")),
            ("exp", Value::Null),
            ("aud", Value::Null),
        ] {
            let mut wrong = claims();
            wrong[claim] = value.clone();
            let read = verify(libtrust.clone(), &wrong, &own);
            assert!(read.is_err(), "{claim} {value}");
        }
        let critical = token(
            |header| {
                header.kid.clone_from(&libtrust);
                header.crit = Some(vec!["b64".to_owned()]);
            },
            &claims(),
            &own,
        );
        assert!(issuer.verify(&critical, now()).is_err());
        let mut skewed = claims();
        skewed["exp"] = json!(now() - 50);
        assert!(verify(libtrust, &skewed, &own).is_ok());
    }

    #[test]
    fn a_chain_holds_if_it_ends_at_a_trusted_certificate() {
        let (root_key, middle_key, own, stranger) = (key(), key(), key(), key());
        let root = certificate("root", &root_key, None);
        let middle = certificate("middle", &middle_key, Some((&root, &root_key)));
        let leaf = certificate("leaf", &own, Some((&middle, &middle_key)));
        let alone = certificate("leaf", &stranger, None);
        let mut trust = Trust::default();
        trust.add_certificates(&root.to_pem().unwrap()).unwrap();
        let issuer = issuer(trust);
        let verify = |chain: &[&X509], key| {
            let text = |certificate: &&X509| STANDARD.encode(certificate.to_der().unwrap());
            let chain: Vec<String> = chain.iter().map(text).collect();
            let token = token(|header| header.x5c = Some(chain.clone()), &claims(), key);
            issuer.verify(&token, now()).is_ok()
        };
        assert!(verify(&[&leaf, &middle], &own));
        assert!(verify(&[&root], &root_key));
        assert!(!verify(&[&leaf], &own));
        assert!(!verify(&[&leaf, &middle], &stranger));
        assert!(!verify(&[&alone], &stranger));
        assert!(!verify(&[&alone, &root], &stranger));
        assert!(!verify(&[], &own));
    }

    #[test]
    fn fetched_keys_take_the_place_of_those_before() {
        let (first, second) = (key(), key());
        let source = Source {
            url: "https://them/keys".to_owned(),
            ca_file: None,
        };
        let fetched = Arc::new(Fetched::new(source));
        let issuer = issuer(Trust::default())
            .with_source(Some(fetched.source.clone()))
            .fetching(|_| Arc::clone(&fetched));
        let named =
            |name: &str, key| token(|header| header.kid = Some(name.to_owned()), &claims(), key);
        let set = |name: &str, key| {
            json!({ "keys": [{ "kty": "oct", "k": "AA" }, { "kty": "?" },
                             public(key).to_jwk(name).unwrap()] })
            .to_string()
        };
        let time = now();
        assert!(fetched.is_due(time) && !fetched.is_due(time));
        assert!(issuer.verify(&named("1", &first), time).is_err());
        fetched.take(set("1", &first).as_bytes(), time).unwrap();
        assert!(issuer.verify(&named("1", &first), time).is_ok());
        assert!(!fetched.is_due(time + FETCH_EVERY_SECS - 1));
        assert!(issuer.verify(&named("2", &second), time).is_err());
        assert!(
            fetched.is_due(time + FETCH_AGAIN_SECS),
            "the key may be new"
        );
        for wrong in ["", "{}", "{\"keys\":[]}", "<html>"] {
            assert!(fetched.take(wrong.as_bytes(), time).is_err(), "{wrong}");
        }
        fetched.take(set("2", &second).as_bytes(), time).unwrap();
        assert!(issuer.verify(&named("2", &second), time).is_ok());
        assert!(issuer.verify(&named("1", &first), time).is_err());
    }
}
