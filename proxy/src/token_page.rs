//! The page of a site where tokens are handed out: who asks for one, what it is good for, and what the
//! log says of the rest.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use oci::{Action, RepositoryName};
use serde::Serialize;

use crate::auth::access::{Denial, Wish};
use crate::auth::token::access_token::Issued;
use crate::auth::token::desk::Page;
use crate::auth::token::request::{Proof, TokenRequest};
use crate::auth::{Actions, Failed, Failure, Presented, Principal, Refusal, Scrutiny};
use crate::filter::Refused;
use crate::login::{Asking, counted};
use crate::refusals::{count_denial, count_login};
use crate::respond::{Rejection, Reply};
use crate::site::Site;

/// A token that is handed out.
pub(crate) struct Handed {
    pub(crate) principal: Principal,
    pub(crate) reply: Reply,
    /// What it was asked to be good for and is not, with what denies that, for the log.
    pub(crate) denied: Option<String>,
}

/// As many denials as a line of the log has room for.
const DENIED_SHOWN_MAX: usize = 4;

/// What of the scopes of a token was denied.
#[derive(Debug, Default)]
struct Denied {
    text: String,
    count: usize,
}

impl Denied {
    fn add(&mut self, action: Action, repository: Option<&RepositoryName>, denial: Denial) {
        let because = denial.because();
        count_denial(&because);
        self.count += 1;
        if self.count > DENIED_SHOWN_MAX {
            return;
        }
        if self.count > 1 {
            self.text += ", ";
        }
        self.text += Actions::name(action);
        if let Some(repository) = repository {
            self.text += " ";
            self.text += repository.as_str();
        }
        self.text += " by ";
        self.text += &because;
    }

    fn into_text(self) -> Option<String> {
        let surplus = self.count.saturating_sub(DENIED_SHOWN_MAX);
        match (self.count, surplus) {
            (0, _) => None,
            (_, 0) => Some(self.text),
            (_, surplus) => Some(format!("{}, and {surplus} more", self.text)),
        }
    }
}

impl Site {
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
    ) -> Result<Handed, Refused> {
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
        let denied = RefCell::new(Denied::default());
        let allows = |action, repository: Option<&RepositoryName>| {
            let decided = decide(Some((action, repository)));
            decided
                .map_err(|denial| denied.borrow_mut().add(action, repository, denial))
                .is_ok()
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
        Ok(Handed {
            principal,
            reply: token_reply(&issued, refresh),
            denied: denied.into_inner().into_text(),
        })
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
                let resumed = desk.map_or_else(
                    || Err(Failure::RefreshToken.into()),
                    |desk| desk.resume(token, basic),
                );
                return resumed
                    .map_err(|Failed { failure, login }| self.failed(failure).login(login));
            }
            Proof::Head => match Presented::of(&asking.parts.headers) {
                Presented::Login(login) => login,
                Presented::Nothing => return Ok(asking.by_certificate()),
                Presented::Bearer(_) => {
                    return Err(self.failed(Failure::TokenAsLogin));
                }
                Presented::Unreadable => {
                    return Err(self.failed(Failure::Unreadable));
                }
            },
        };
        let found = self.log_in(&login, asking.client, scrutiny).await;
        found.map_err(|refusal| {
            let refused = match refusal {
                Refusal::Unauthorized(why) => self.failed(why),
                other => self.refuse(other, asking),
            };
            refused.login(Some(login.name))
        })
    }

    /// Refuses a login that failed, and counts it.
    fn failed(&self, failure: Failure) -> Refused {
        count_login(counted(failure));
        self.send_to_log_in(failure.name())
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
