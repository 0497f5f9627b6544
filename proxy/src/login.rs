//! How a site finds out who is asking, and where it sends those who have to log in.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use oci::{Action, Mount, Query, RepositoryName, Route};
use serde::Serialize;

use crate::auth::access::{Denial, Wish};
use crate::auth::token::Scheme;
use crate::auth::token::access_token::Issued;
use crate::auth::token::desk::Page;
use crate::auth::token::request::{Proof, TokenRequest};
use crate::auth::{Culprit, Login, Presented, Principal, Refusal, Scrutiny};
use crate::certified::Certified;
use crate::filter::Refused;
use crate::filter::forwarded::Origin;
use crate::filter::host::Host;
use crate::respond::{Bearer, Challenge, Rejection, Reply};
use crate::site::Site;

/// A request over TLS, before anyone knows whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) client: IpAddr,
    pub(crate) host: &'a Host,
    pub(crate) origin: Option<&'a Origin>,
    /// The client's certificate, where one is asked for and a good one was shown.
    pub(crate) certified: Option<&'a Certified>,
}

impl Asking<'_> {
    /// Returns the edge's address as the client knows it.
    fn url(&self) -> String {
        let host = self.host.authority();
        let seen = self
            .origin
            .and_then(|origin| origin.seen(&self.parts.headers));
        match seen {
            Some((scheme, seen)) => format!("{scheme}://{}", seen.as_deref().unwrap_or(host)),
            None => format!("https://{host}"),
        }
    }

    /// Returns what a token for this request would have to be good for, in distribution's words.
    fn scope(&self) -> String {
        let Ok(route) = Route::parse(self.parts.uri.path()) else {
            return String::new();
        };
        let (actions, name) = match (route.action(&self.parts.method), route.repository()) {
            (Some(Action::Catalog), _) => return "registry:catalog:*".to_owned(),
            (Some(Action::Delete), Some(name)) => ("delete", name),
            (Some(Action::Pull), Some(name)) => ("pull", name),
            (Some(Action::Push), Some(name)) => ("pull,push", name),
            (None, _) | (_, None) => return String::new(),
        };
        let scope = format!("repository:{name}:{actions}");
        let asks = matches!(route, Route::Uploads { .. });
        let query = Query::parse(self.parts.uri.query().filter(|_| asks));
        match Mount::of(&query).and_then(|mount| mount.from) {
            Some(from) if from != *name => format!("{scope} repository:{from}:pull"),
            _ => scope,
        }
    }

    /// Returns who asks if nothing else says so.
    fn by_certificate(&self) -> Principal {
        Certified::principal(self.certified)
    }

    /// Returns the fingerprint of the certificate that was shown.
    fn fingerprint(&self) -> Option<&str> {
        self.certified.map(Certified::fingerprint)
    }

    /// Returns whether a token came with it.
    fn brings_token(&self) -> bool {
        matches!(Presented::of(&self.parts.headers), Presented::Bearer(_))
    }
}

impl Site {
    /// Says who is asking; to bring no credentials is to be anonymous, to bring wrong ones is not.
    pub(crate) async fn authenticate(
        &self,
        asking: &Asking<'_>,
        scrutiny: Scrutiny<'_>,
    ) -> Result<Principal, Refused> {
        let Some(auth) = &self.auth else {
            return Ok(Principal::anonymous());
        };
        let found = match Presented::of(&asking.parts.headers) {
            Presented::Login(login) => {
                match self.log_in(login, asking.client, scrutiny).await {
                    // Where no password is looked at, one that comes along is for somebody else.
                    Err(Refusal::Unauthorized(_))
                        if auth.takes_certificates_alone() && asking.certified.is_some() =>
                    {
                        return Ok(asking.by_certificate());
                    }
                    found => found,
                }
            }
            Presented::Nothing => return Ok(asking.by_certificate()),
            Presented::Bearer(token) => match &self.desk {
                Some(desk) => desk
                    .verify(&token, auth.basic.as_ref(), asking.fingerprint())
                    .map_err(|invalid| Refusal::Unauthorized(invalid.to_string().into())),
                None => Err(Refusal::WRONG_CREDENTIALS),
            },
            Presented::Unreadable => Err(Refusal::WRONG_CREDENTIALS),
        };
        found.map_err(|refusal| self.refuse(refusal, asking))
    }

    /// Says who brings a name and a password: a robot, or a user.
    async fn log_in(
        &self,
        login: Login,
        client: IpAddr,
        scrutiny: Scrutiny<'_>,
    ) -> Result<Principal, Refusal> {
        // A robot's secret is found by its form; whatever is none is looked at as a password.
        if let Some(robot) = self.desk.as_ref().and_then(|desk| desk.robot(&login)) {
            return Ok(robot);
        }
        match self.auth.as_ref().and_then(|auth| auth.basic.as_ref()) {
            Some(basic) => basic
                .authenticate(login, client, scrutiny)
                .await
                .map(Principal::user),
            None => Err(Refusal::WRONG_CREDENTIALS),
        }
    }

    fn refuse(&self, refusal: Refusal, asking: &Asking<'_>) -> Refused {
        match refusal {
            Refusal::Busy => Rejection::Busy.because("password queue"),
            Refusal::Throttled {
                retry_after,
                culprit,
            } => Rejection::TooManyFailures { retry_after }.because(match culprit {
                Culprit::Address => "limits.logins.per_address",
                Culprit::User => "limits.logins.per_user",
            }),
            Refusal::Unauthorized(why) => {
                let error = asking.brings_token().then_some("invalid_token");
                self.challenge(asking, error).because(why)
            }
        }
    }

    /// Turns a no into what the client is told: to log in, if that may help.
    pub(crate) fn deny(&self, denial: Denial, wish: &Wish<'_>, asking: &Asking<'_>) -> Refused {
        let (because, help) = match denial {
            Denial::LogIn(because) => (because, self.auth.is_some()),
            Denial::Forbidden(because) => (because, self.is_too_narrow(wish, asking)),
        };
        if !help {
            return Rejection::Denied.because(because);
        }
        let error = asking.brings_token().then_some("insufficient_scope");
        self.challenge(asking, error).because(because)
    }

    /// Returns whether it is the token alone that allows too little: whoever has it gets a better
    /// one for the asking.
    fn is_too_narrow(&self, wish: &Wish<'_>, asking: &Asking<'_>) -> bool {
        let Some(desk) = self.desk.as_ref().filter(|_| asking.brings_token()) else {
            return false;
        };
        match desk.without_token(wish.principal) {
            Some(principal) => {
                let wish = Wish {
                    principal: &principal,
                    ..*wish
                };
                self.access.decide(&wish).is_ok()
            }
            // What another server would grant is its own to know.
            None => true,
        }
    }

    fn challenge(&self, asking: &Asking<'_>, error: Option<&'static str>) -> Rejection {
        let scheme = self
            .desk
            .as_ref()
            .map_or(Scheme::Basic, |desk| desk.scheme());
        let bearer = self.desk.as_ref().filter(|_| scheme != Scheme::Basic);
        let bearer = bearer.map(|desk| {
            let (realm, service) = desk.challenge(&asking.url());
            Challenge::Bearer(Bearer {
                realm,
                service: service.to_owned(),
                scope: asking.scope(),
                error,
            })
        });
        let basic = (scheme != Scheme::Bearer).then(|| self.basic_challenge());
        Rejection::Unauthorized {
            challenges: bearer.into_iter().chain(basic).collect(),
        }
    }

    fn basic_challenge(&self) -> Challenge {
        let realm = self.auth.as_ref().map(|auth| Arc::clone(&auth.realm));
        Challenge::Basic {
            realm: realm.unwrap_or_default(),
        }
    }

    /// Returns the page of the desk that a request is for, if it is for one.
    pub(crate) fn page(&self, parts: &Parts) -> Option<Page> {
        self.desk.as_ref()?.page(parts.uri.path())
    }

    /// Returns the keys that tokens of this site are signed with.
    pub(crate) fn keys(&self) -> Reply {
        let keys = self.desk.as_ref().map(|desk| desk.keys());
        let body = Bytes::from(keys.unwrap_or_default());
        Reply::page(StatusCode::OK, "application/json", body)
    }

    /// Hands out a token, and says whom to. `form` is the body of a POST.
    pub(crate) async fn hand_out(
        &self,
        asking: &Asking<'_>,
        form: Option<&[u8]>,
        scrutiny: Scrutiny<'_>,
    ) -> Result<(Principal, Reply), Refused> {
        let (Some(auth), Some(desk)) = (&self.auth, &self.desk) else {
            return Err(Rejection::NotFound.into());
        };
        let basic = auth.basic.as_ref();
        let request = match form {
            Some(form) => TokenRequest::from_form(form),
            None => TokenRequest::from_query(asking.parts.uri.query().unwrap_or_default()),
        };
        let request =
            request.map_err(|unclear| Rejection::BadRequest.because(unclear.to_string()))?;
        if desk.is_other_service(&request) {
            return Err(Rejection::BadRequest.because("a token for another service"));
        }
        let principal = self.prove(&request, asking, scrutiny).await?;
        let decide = |action: Option<(Action, Option<&RepositoryName>)>| {
            let wish = Wish {
                principal: &principal,
                client: asking.client,
                action,
            };
            self.access.decide(&wish).map(drop)
        };
        if principal.is_nobody() && !self.access.rules.admit_anonymous() {
            let nobody = || self.send_to_log_in("no credentials");
            decide(None).map_err(|_denial| nobody())?;
        }
        let allows = |action, repository: Option<&RepositoryName>| {
            decide(Some((action, repository))).is_ok()
        };
        let issued = desk.issue(&request, &principal, basic, asking.fingerprint(), allows);
        let issued = issued.ok_or_else(|| Rejection::Internal.because("no token could be made"))?;
        let refresh = match &request.proof {
            // It goes on being good.
            Proof::Refresh(token) => Some(token.clone()),
            Proof::Head | Proof::Login(_) if request.offline => {
                let begun = desk.begin(&request, &principal, basic, asking.client).await;
                let begun = begun.unwrap_or_else(|error| {
                    tracing::error!(%error, "a refresh token cannot be kept, so none is given");
                    None
                });
                begun.map(|secret| secret.reveal().to_owned())
            }
            Proof::Head | Proof::Login(_) => None,
        };
        Ok((principal, token_reply(&issued, refresh)))
    }

    /// Says who asks for a token.
    async fn prove(
        &self,
        request: &TokenRequest,
        asking: &Asking<'_>,
        scrutiny: Scrutiny<'_>,
    ) -> Result<Principal, Refused> {
        let login = match &request.proof {
            Proof::Login(login) => login.clone(),
            Proof::Refresh(token) => {
                let basic = self.auth.as_ref().and_then(|auth| auth.basic.as_ref());
                let desk = self.desk.as_ref();
                let principal = desk.and_then(|desk| desk.resume(token, basic));
                let wrong = || self.send_to_log_in("refresh token that does not hold");
                return principal.ok_or_else(wrong);
            }
            Proof::Head => match Presented::of(&asking.parts.headers) {
                Presented::Login(login) => login,
                Presented::Nothing => return Ok(asking.by_certificate()),
                // Else one token would live for ever by the next.
                Presented::Bearer(_) => {
                    return Err(self.send_to_log_in("a token is no login"));
                }
                Presented::Unreadable => {
                    return Err(self.send_to_log_in("wrong credentials"));
                }
            },
        };
        let found = self.log_in(login, asking.client, scrutiny).await;
        found.map_err(|refusal| match refusal {
            Refusal::Unauthorized(why) => self.send_to_log_in(why),
            other => self.refuse(other, asking),
        })
    }

    /// Refuses at the desk itself, where a password is what helps.
    fn send_to_log_in(&self, why: impl Into<Cow<'static, str>>) -> Refused {
        let challenges = vec![self.basic_challenge()];
        Rejection::Unauthorized { challenges }.because(why)
    }
}

/// Returns the answer of distribution's token servers, and of OAuth's.
fn token_reply(issued: &Issued, refresh: Option<String>) -> Reply {
    #[derive(Serialize)]
    struct Answer<'a> {
        token: &'a str,
        access_token: &'a str,
        expires_in: u64,
        issued_at: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        refresh_token: Option<String>,
    }
    let at = UNIX_EPOCH + Duration::from_secs(issued.issued_at);
    let answer = Answer {
        token: &issued.token,
        access_token: &issued.token,
        expires_in: issued.expires_in.as_secs(),
        issued_at: humantime::format_rfc3339_seconds(at).to_string(),
        refresh_token: refresh,
    };
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    Reply::page(StatusCode::OK, "application/json", body.into())
}
