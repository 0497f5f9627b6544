//! Access tokens: what they claim, how they are made, and whether one holds.
//!
//! The form is distribution's (a JWT with an `access` claim), so that other registries can take
//! tokens of this edge. A token that was found good is remembered by its hash: a client that asks
//! again and again pays for one signature.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, encode};
use moka::sync::Cache;
use oci::RepositoryPattern;
use openssl::sha::sha256;
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::scope::{Access, Resource, Verb};
use super::secret::{Hashed, hex};
use super::vault::Vault;
use crate::auth::{Actions, Grant, Grants, Origin, Principal, User};

/// More tokens than this at once are good all the same; some pay for a signature again.
const VERIFIED_MAX: u64 = 10_000;

/// How far the clocks of edges that share a state directory may be apart.
const LEEWAY: Duration = Duration::from_secs(5);

/// Why a bearer token lets nobody in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Invalid {
    /// It was for a password, a robot or a certificate that is not there as it was.
    Credentials,
    /// Its time is over.
    Expired,
    /// It is no token, or not of this service, or signed by nobody who is trusted.
    Foreign,
}

/// Makes and verifies the tokens of one site.
#[derive(Debug)]
pub(crate) struct AccessTokens {
    issuer: Box<str>,
    service: Box<str>,
    lifetime: Duration,
    vault: Arc<Vault>,
    verified: Cache<Hashed, Arc<Verified>>,
}

/// A token that was just made.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) expires_in: Duration,
    /// In seconds since 1970.
    pub(crate) issued_at: u64,
}

/// A token whose signature holds.
#[derive(Debug)]
struct Verified {
    principal: Principal,
    /// The name of the key that signed it.
    key: Box<str>,
    /// In seconds since 1970.
    expires: u64,
    /// What stands for the credentials that it was given for.
    credential: Option<String>,
    /// The digest of those credentials, once they were found to be the same.
    same: OnceLock<Hashed>,
}

/// The claims, in distribution's words and one of our own.
#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: Vec<Access>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tidegate: Option<Own>,
}

/// What only this edge reads: who the bearer is, beyond a name.
#[derive(Debug, Deserialize, Serialize)]
struct Own {
    origin: Login,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Box<str>>,
    credential: String,
}

/// How a name that tokens are given for was proven.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Login {
    Certificate,
    Password,
    Robot,
}

impl AccessTokens {
    /// Makes and verifies tokens under these names, each good for `lifetime`.
    pub(crate) fn new(issuer: &str, service: &str, lifetime: Duration, vault: Arc<Vault>) -> Self {
        Self {
            issuer: issuer.into(),
            service: service.into(),
            lifetime,
            vault,
            // What expires is noticed when it is asked for; this only bounds the memory.
            verified: Cache::builder()
                .max_capacity(VERIFIED_MAX)
                .time_to_live(lifetime)
                .build(),
        }
    }

    /// Makes a token; `credential` stands for what the principal has proven itself by. `None` when
    /// there is no key, or nothing that the name could be checked by later.
    pub(crate) fn issue(
        &self,
        principal: &Principal,
        credential: Option<String>,
        access: Vec<Access>,
        now: u64,
    ) -> Option<Issued> {
        let own = match principal.as_user() {
            None => None,
            Some(user) => Some(Own {
                origin: Login::of(user.origin)?,
                groups: user.groups.to_vec(),
                credential: credential?,
            }),
        };
        let mut id = [0; 16];
        openssl::rand::rand_bytes(&mut id).ok()?;
        let claims = Claims {
            iss: self.issuer.to_string(),
            sub: principal.name().unwrap_or_default().to_owned(),
            aud: self.service.to_string(),
            exp: now + self.lifetime.as_secs(),
            nbf: now,
            iat: now,
            jti: hex(&id),
            access,
            tidegate: own,
        };
        let key = self.vault.keys()?.signing(now)?;
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(key.id.clone());
        Some(Issued {
            token: encode(&header, &claims, &key.signing).ok()?,
            expires_in: self.lifetime,
            issued_at: now,
        })
    }

    /// Returns the principal of a token that holds at `now`. `current` says what stands for the
    /// credentials of a name now, if they are still there.
    pub(crate) fn verify(
        &self,
        token: &str,
        now: u64,
        current: impl FnOnce(&User) -> Option<Hashed>,
    ) -> Result<Principal, Invalid> {
        let hash = sha256(token.as_bytes());
        // A key that is given up takes with it what was verified by it.
        let keys = self.vault.keys().ok_or(Invalid::Foreign)?;
        let known = self.verified.get(&hash);
        let verified = match known.filter(|known| keys.find(&known.key).is_some()) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.read(token, &keys)?);
                self.verified.insert(hash, Arc::clone(&verified));
                verified
            }
        };
        if verified.expires <= now {
            return Err(Invalid::Expired);
        }
        if let Some(user) = verified.principal.as_user() {
            let digest = current(user).ok_or(Invalid::Credentials)?;
            self.is_same(&verified, user, &digest)?;
        }
        Ok(verified.principal.clone())
    }

    /// Returns whose a token is whose signature was found good, whether or not it lets anybody in.
    pub(crate) fn bearer(&self, token: &str) -> Option<Principal> {
        let verified = self.verified.get(&sha256(token.as_bytes()))?;
        Some(verified.principal.clone())
    }

    /// Returns whether the credentials are those that the token was given for.
    fn is_same(&self, verified: &Verified, user: &User, digest: &Hashed) -> Result<(), Invalid> {
        if verified.same.get() == Some(digest) {
            return Ok(());
        }
        let fingerprint = self.vault.fingerprint(user.origin, &user.name, digest);
        match (fingerprint, &verified.credential) {
            (Some(now), Some(then)) if now == *then => {
                verified.same.set(*digest).ok();
                Ok(())
            }
            _ => Err(Invalid::Credentials),
        }
    }

    fn read(&self, token: &str, keys: &Keys) -> Result<Verified, Invalid> {
        let header = header(token)?;
        let key = header.kid.and_then(|id| keys.find(&id));
        let key = key.ok_or(Invalid::Foreign)?;
        let mut validation = validation(Algorithm::ES256, &self.issuer, &self.service);
        validation.leeway = LEEWAY.as_secs();
        let claims: Claims = decode(token, key.public.decoding(), &validation)
            .map_err(invalid)?
            .claims;
        let grants = Arc::new(grants(&claims.access));
        let (principal, credential) = match claims.tidegate {
            None => (Principal::anonymous(), None),
            Some(own) => {
                let user = User {
                    name: claims.sub.into(),
                    origin: own.origin.into(),
                    groups: own.groups.into(),
                };
                (Principal::user(Arc::new(user)), Some(own.credential))
            }
        };
        Ok(Verified {
            principal: principal.limited_to(grants),
            key: key.id.as_str().into(),
            expires: claims.exp + LEEWAY.as_secs(),
            credential,
            same: OnceLock::new(),
        })
    }
}

impl Login {
    fn of(origin: Origin) -> Option<Self> {
        match origin {
            Origin::Certificate => Some(Self::Certificate),
            Origin::Password => Some(Self::Password),
            Origin::Robot => Some(Self::Robot),
            // A token is no reason for another one.
            Origin::Issuer => None,
        }
    }
}

impl From<Login> for Origin {
    fn from(login: Login) -> Self {
        match login {
            Login::Certificate => Self::Certificate,
            Login::Password => Self::Password,
            Login::Robot => Self::Robot,
        }
    }
}

/// Reads a token's header, which may ask for nothing special: what is critical and not known here
/// is no token (RFC 7515, section 4.1.11).
pub(super) fn header(token: &str) -> Result<Header, Invalid> {
    let header = decode_header(token).map_err(|_malformed| Invalid::Foreign)?;
    if header.crit.is_some() {
        return Err(Invalid::Foreign);
    }
    Ok(header)
}

/// What every token must claim, whoever made it.
pub(super) fn validation(algorithm: Algorithm, issuer: &str, service: &str) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[service]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.validate_nbf = true;
    validation
}

/// Says what is wrong with a token, as far as the log needs it.
pub(super) fn invalid(error: jsonwebtoken::errors::Error) -> Invalid {
    match error.kind() {
        jsonwebtoken::errors::ErrorKind::ExpiredSignature => Invalid::Expired,
        _ => Invalid::Foreign,
    }
}

/// Returns what an `access` claim grants; what it names and is not known here grants nothing.
pub(super) fn grants(access: &[Access]) -> Grants {
    let mut repositories = Vec::new();
    let mut catalog = false;
    for scope in access.iter().filter_map(Access::read) {
        let mut actions = Actions::default();
        for verb in &scope.actions {
            actions.insert(Actions::named(verb.word()).unwrap_or_default());
        }
        match scope.resource {
            Resource::Catalog => catalog |= scope.actions.contains(&Verb::All),
            // A name has no letter that means more in a pattern.
            Resource::Repository(name) => {
                if let Ok(repositories_of) = name.as_str().parse::<RepositoryPattern>() {
                    repositories.push(Grant {
                        repositories: repositories_of,
                        actions,
                    });
                }
            }
        }
    }
    Grants {
        repositories: repositories.into(),
        catalog,
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::EncodingKey;
    use oci::Action;
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::super::{scope, vault};
    use super::*;
    use crate::state_dir::StateDir;

    const LIFETIME: Duration = Duration::from_secs(300);

    fn tokens() -> (TempDir, AccessTokens) {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::new(&StateDir::new(folder.path()));
        vault.prepare().unwrap();
        let vault = Arc::new(vault);
        (
            folder,
            AccessTokens::new("a.test", "a.test", LIFETIME, vault),
        )
    }

    fn alice() -> Principal {
        Principal::user(Arc::new(User {
            name: "alice".into(),
            origin: Origin::Password,
            groups: ["team".into()].into(),
        }))
    }

    fn issue(tokens: &AccessTokens, who: &Principal, scope: &str, now: u64) -> String {
        let access = scope::narrow(&scope::parse(scope), |_, _| true);
        let user = who.as_user();
        let credential =
            user.and_then(|user| tokens.vault.fingerprint(user.origin, &user.name, &[7; 32]));
        tokens.issue(who, credential, access, now).unwrap().token
    }

    #[test]
    fn a_token_says_who_may_do_what() {
        let (_folder, tokens) = tokens();
        let now = vault::now();
        let token = issue(
            &tokens,
            &alice(),
            "repository:a/b:pull registry:catalog:*",
            now,
        );
        for _ in 0..2 {
            let principal = tokens.verify(&token, now, |_| Some([7; 32])).unwrap();
            assert_eq!(principal.as_user(), alice().as_user());
            let grants = principal.grants().unwrap();
            let name = "a/b".parse().unwrap();
            assert!(grants.allow(Action::Pull, Some(&name)));
            assert!(!grants.allow(Action::Push, Some(&name)));
            assert!(!grants.allow(Action::Pull, Some(&"a".parse().unwrap())));
            assert!(grants.allow(Action::Catalog, None));
        }
        let token = issue(&tokens, &Principal::anonymous(), "", now);
        let nobody = tokens.verify(&token, now, |_| None).unwrap();
        assert_eq!(nobody.name(), None);
        assert!(nobody.grants().is_some());
    }

    #[test]
    fn a_token_ends_with_its_time_and_with_the_password() {
        let (_folder, tokens) = tokens();
        let now = vault::now();
        let token = issue(&tokens, &alice(), "", now);
        let verify = |at, digest| tokens.verify(&token, at, |_| digest).map(drop);
        assert_eq!(verify(now + 299, Some([7; 32])), Ok(()));
        assert_eq!(verify(now, Some([8; 32])), Err(Invalid::Credentials));
        assert_eq!(verify(now, None), Err(Invalid::Credentials));
        assert_eq!(verify(now, Some([7; 32])), Ok(()));
        let late = now + LIFETIME.as_secs() + LEEWAY.as_secs();
        assert_eq!(verify(late, Some([7; 32])), Err(Invalid::Expired));
        let old = issue(&tokens, &alice(), "", now - 1000);
        let verified = tokens.verify(&old, now, |_| Some([7; 32]));
        assert_eq!(verified, Err(Invalid::Expired));
    }

    #[test]
    fn a_token_of_another_service_key_or_form_is_none() {
        let (_folder, tokens) = tokens();
        let (_other_folder, strange) = self::tokens();
        let now = vault::now();
        let verify = |token: &str| tokens.verify(token, now, |_| Some([7; 32])).map(drop);
        let good = issue(&tokens, &alice(), "", now);
        assert_eq!(verify(&good), Ok(()));
        let vault = Arc::clone(&tokens.vault);
        let other = AccessTokens::new("a.test", "b.test", LIFETIME, vault);
        let key = tokens.vault.keys().unwrap().signing(now).unwrap();
        let claims = json!({
            "iss": "a.test", "aud": "a.test", "sub": "alice", "iat": now, "nbf": now,
            "exp": now + 100, "jti": "1", "access": []
        });
        let sign = |algorithm, claims: &Value, signing: &EncodingKey| {
            let mut header = Header::new(algorithm);
            header.kid = Some(key.id.clone());
            encode(&header, claims, signing).unwrap()
        };
        let without = |claim: &str| {
            let mut claims = claims.clone();
            claims.as_object_mut().unwrap().remove(claim);
            sign(Algorithm::ES256, &claims, &key.signing)
        };
        let (head, rest) = good.split_once('.').unwrap();
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        for token in [
            String::new(),
            "x".to_owned(),
            "a.b.c".to_owned(),
            format!("{none}.{rest}"),
            // Claims begin with a brace and a quote.
            format!("{head}.{}", rest.replacen("eyJ", "eyK", 1)),
            good.rsplit_once('.').unwrap().0.to_owned() + ".",
            issue(&other, &alice(), "", now),
            issue(&strange, &alice(), "", now),
            without("exp"),
            without("aud"),
            without("iss"),
        ] {
            assert_eq!(verify(&token), Err(Invalid::Foreign), "{token}");
        }
        assert_eq!(
            verify(&sign(Algorithm::ES256, &claims, &key.signing)),
            Ok(())
        );
        let mut early = claims.clone();
        early["nbf"] = json!(now + 100);
        let early = sign(Algorithm::ES256, &early, &key.signing);
        assert_eq!(verify(&early), Err(Invalid::Foreign));
    }
}
