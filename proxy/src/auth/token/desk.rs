//! What one site does with tokens: hands them out, takes them back, and knows robots.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use oci::{Action, RepositoryName};
use openssl::sha::sha256;
use serde_json::json;

use super::access_token::{AccessTokens, Invalid, Issued};
use super::issuer::Issuer;
use super::request::TokenRequest;
use super::secret::{Hashed, Secret};
use super::sessions::Session;
use super::used::Thing;
use super::vault::{Vault, now};
use super::{Scheme, scope};
use crate::auth::credentials::Login;
use crate::auth::{Basic, Failed, Failure, Origin, Principal, User};

/// Where clients get tokens: the path that distribution redirects to by itself.
pub(crate) const TOKEN_PATH: &str = "/auth/token";

/// Where the keys are that tokens are signed with.
pub(crate) const KEYS_PATH: &str = "/.well-known/jwks.json";

/// What a site's config says of tokens.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) scheme: Scheme,
    /// Where clients are sent for a token, if not to this site as they know it.
    pub(crate) realm: Option<Box<str>>,
    pub(crate) issuer: Box<str>,
    pub(crate) service: Box<str>,
    pub(crate) lifetime: Duration,
    pub(crate) refresh_lifetime: Duration,
}

/// What one site does with tokens.
#[derive(Debug)]
pub(crate) struct Desk {
    terms: Terms,
    hosts: Box<[Box<str>]>,
    vault: Arc<Vault>,
    tokens: Option<AccessTokens>,
    issuer: Option<Issuer>,
}

/// A page of the desk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Page {
    Keys,
    Token,
}

impl Desk {
    /// Makes the desk of a site with these hosts. `issuer` is another server whose tokens are taken
    /// in the place of our own.
    pub(crate) fn new(
        terms: Terms,
        hosts: Box<[Box<str>]>,
        issuer: Option<Issuer>,
        vault: &Arc<Vault>,
    ) -> Self {
        let issuer = issuer.map(|issuer| issuer.fetching(|source| vault.fetched(source)));
        let own = terms.scheme != Scheme::Basic && issuer.is_none();
        let tokens = own.then(|| {
            let vault = Arc::clone(vault);
            AccessTokens::new(&terms.issuer, &terms.service, terms.lifetime, vault)
        });
        Self {
            terms,
            hosts,
            vault: Arc::clone(vault),
            tokens,
            issuer,
        }
    }

    /// Returns what is at a path, where there is something.
    pub(crate) fn page(&self, path: &str) -> Option<Page> {
        self.tokens.as_ref()?;
        match path {
            TOKEN_PATH => Some(Page::Token),
            KEYS_PATH => Some(Page::Keys),
            _ => None,
        }
    }

    /// Returns how clients are asked to prove themselves.
    pub(crate) fn scheme(&self) -> Scheme {
        self.terms.scheme
    }

    /// Returns where a client that knows this edge as `url` is sent for a token, and for which
    /// service.
    pub(crate) fn challenge(&self, url: &str) -> (String, &str) {
        match (&self.issuer, &self.terms.realm) {
            (Some(issuer), _) => (issuer.realm.to_string(), &issuer.service),
            (None, Some(realm)) => (realm.to_string(), &self.terms.service),
            (None, None) => (format!("{url}{TOKEN_PATH}"), &self.terms.service),
        }
    }

    /// Returns the robot that brings its name and its secret.
    pub(crate) fn robot(&self, login: &Login) -> Option<Principal> {
        let robots = &self.vault.robots;
        let known = robots.verify(&login.name, &login.password, &self.hosts, now())?;
        self.vault.used.note(Thing::Robot(known.name()), now());
        Some(known.principal().clone())
    }

    /// Says whom a bearer token is of. `basic` are the site's users; `certificate` is the
    /// fingerprint of the one that the client has shown, and was found good.
    pub(crate) fn verify(
        &self,
        token: &str,
        basic: Option<&Basic>,
        certificate: Option<&str>,
    ) -> Result<Principal, Failed> {
        let failed = |invalid| Failed::from(Failure::Token(invalid));
        if let Some(issuer) = &self.issuer {
            return issuer.verify(token, now()).map_err(failed);
        }
        let tokens = self.tokens.as_ref();
        let tokens = tokens.ok_or_else(|| failed(Invalid::Foreign))?;
        let current = |user: &User| self.current(user, basic, certificate);
        tokens.verify(token, now(), current).map_err(|invalid| {
            let bearer = tokens.bearer(token);
            match bearer.as_ref().and_then(Principal::as_user) {
                Some(user) if invalid == Invalid::Credentials && user.origin == Origin::Robot => {
                    let absence = self.absence(&user.name);
                    Failed::of(&user.name, absence.unwrap_or(Failure::Token(invalid)))
                }
                Some(user) => Failed::of(&user.name, Failure::Token(invalid)),
                None => failed(invalid),
            }
        })
    }

    /// Returns what was wrong with a name and a password where no robot was found by them; `None` where
    /// they were nothing of a robot's.
    pub(crate) fn robot_failure(&self, login: &Login) -> Option<Failure> {
        self.vault.robots.failure(login, &self.hosts, now())
    }

    fn absence(&self, robot: &str) -> Option<Failure> {
        self.vault.robots.absence(robot, &self.hosts, now())
    }

    /// Returns what a principal may do whose token may do too little, had it a better one.
    pub(crate) fn without_token(&self, principal: &Principal) -> Option<Principal> {
        let user = principal.as_user()?;
        match user.origin {
            Origin::Certificate | Origin::Password => Some(Principal::user(user.clone().into())),
            Origin::Robot => {
                let known = self.vault.robots.find(&user.name, &self.hosts, now())?;
                Some(known.principal().clone())
            }
            Origin::Issuer => None,
        }
    }

    /// Returns the principal of a refresh token that holds still.
    pub(crate) fn resume(&self, token: &str, basic: Option<&Basic>) -> Result<Principal, Failed> {
        let session = self.vault.sessions.find(token, now());
        let here = |(_, session): &(_, Arc<Session>)| *session.service == *self.terms.service;
        let Some((id, session)) = session.filter(here) else {
            return Err(Failure::RefreshToken.into());
        };
        let principal = self.of_session(&session, basic).ok_or_else(|| {
            let is_robot = session.origin == "robot";
            let absence = is_robot.then(|| self.absence(&session.user)).flatten();
            Failed::of(
                &session.user,
                absence.unwrap_or(Failure::RefreshCredentials),
            )
        })?;
        self.vault.used.note(Thing::Session(&id), now());
        Ok(principal)
    }

    /// Returns whose a session is, if what it was begun with is there as it was.
    fn of_session(&self, session: &Session, basic: Option<&Basic>) -> Option<Principal> {
        let (origin, principal) = match session.origin.as_str() {
            "password" => {
                let user = User::new(&*session.user, Origin::Password);
                (Origin::Password, Principal::user(Arc::new(user)))
            }
            "robot" => {
                let known = self.vault.robots.find(&session.user, &self.hosts, now())?;
                self.vault.used.note(Thing::Robot(known.name()), now());
                (Origin::Robot, known.principal().clone())
            }
            _ => return None,
        };
        let digest = self.current(principal.as_user()?, basic, None)?;
        let credential = self.vault.fingerprint(origin, &session.user, &digest)?;
        let (now, then) = (credential.as_bytes(), session.credential.as_bytes());
        (now.len() == then.len() && openssl::memcmp::eq(now, then)).then_some(principal)
    }

    /// Makes a token of what `allows` lets the principal do of what is asked for.
    pub(crate) fn issue(
        &self,
        request: &TokenRequest,
        principal: &Principal,
        basic: Option<&Basic>,
        certificate: Option<&str>,
        allows: impl Fn(Action, Option<&RepositoryName>) -> bool,
    ) -> Option<Issued> {
        let access = scope::narrow(&request.scopes, allows);
        let credential = self.credential(principal, basic, certificate);
        self.tokens
            .as_ref()?
            .issue(principal, credential, access, now())
    }

    /// Begins a session for a principal who logged in, and returns its refresh token; `None` for
    /// those who have nothing that it could take the place of.
    pub(crate) async fn begin(
        &self,
        request: &TokenRequest,
        principal: &Principal,
        basic: Option<&Basic>,
        client: IpAddr,
    ) -> io::Result<Option<Secret>> {
        // Docker drops the password for it, and then finds nothing to answer the other challenge with.
        if self.terms.scheme == Scheme::Both {
            return Ok(None);
        }
        let origin = match principal.as_user().map(|user| user.origin) {
            Some(Origin::Password) => "password",
            Some(Origin::Robot) => "robot",
            Some(Origin::Certificate | Origin::Issuer) | None => return Ok(None),
        };
        let Some(credential) = self.credential(principal, basic, None) else {
            return Ok(None);
        };
        let created = now();
        let session = Session {
            user: principal.name().unwrap_or_default().to_owned(),
            origin: origin.to_owned(),
            service: self.terms.service.to_string(),
            client: request.client.clone(),
            address: client.to_string(),
            created,
            expires: created + self.terms.refresh_lifetime.as_secs(),
            credential,
        };
        let vault = Arc::clone(&self.vault);
        // The disk may take its time.
        let begun = tokio::task::spawn_blocking(move || vault.sessions.begin(session));
        begun.await.map_err(io::Error::other)?
    }

    /// Returns the key set as a page.
    pub(crate) fn keys(&self) -> Vec<u8> {
        let keys = self.vault.keys().map(|keys| keys.key_set());
        keys.unwrap_or_else(|| json!({ "keys": [] }))
            .to_string()
            .into()
    }

    /// Returns whether a token is asked for under a name that this site hands none out for.
    pub(crate) fn is_other_service(&self, request: &TokenRequest) -> bool {
        let service = request.service.as_deref();
        service.is_some_and(|service| *service != *self.terms.service)
    }

    fn credential(
        &self,
        principal: &Principal,
        basic: Option<&Basic>,
        certificate: Option<&str>,
    ) -> Option<String> {
        let user = principal.as_user()?;
        let digest = self.current(user, basic, certificate)?;
        self.vault.fingerprint(user.origin, &user.name, &digest)
    }

    /// Returns what stands for a user's credentials now, if they are still there.
    fn current(
        &self,
        user: &User,
        basic: Option<&Basic>,
        certificate: Option<&str>,
    ) -> Option<Hashed> {
        match user.origin {
            Origin::Certificate => Some(sha256(certificate?.as_bytes())),
            Origin::Password => basic?.stored(&user.name),
            Origin::Robot => {
                let known = self.vault.robots.find(&user.name, &self.hosts, now())?;
                self.vault.used.note(Thing::Robot(known.name()), now());
                Some(*known.secret())
            }
            Origin::Issuer => None,
        }
    }
}
