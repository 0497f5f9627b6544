//! How a site finds out who is asking, and where it sends those who have to log in.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use oci::{Action, Mount, Query, Route};

use crate::auth::access::{Denial, TOKEN_TOO_NARROW, Wish};
use crate::auth::token::Scheme;
use crate::auth::token::access_token::Invalid;
use crate::auth::{Culprit, Failure, Login, Presented, Principal, Refusal, Scrutiny};
use crate::certified::Certified;
use crate::filter::Refused;
use crate::filter::forwarded::Origin;
use crate::filter::host::Host;
use crate::refusals::{LoginRefusal, count_login};
use crate::respond::{Bearer, Challenge, Rejection};
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
    pub(crate) fn by_certificate(&self) -> Principal {
        Certified::principal(self.certified)
    }

    /// Returns the fingerprint of the certificate that was shown.
    pub(crate) fn fingerprint(&self) -> Option<&str> {
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
                return match self.log_in(&login, asking.client, scrutiny).await {
                    // Where no password is looked at, one that comes along is for somebody else.
                    Err(Refusal::Unauthorized(_))
                        if auth.takes_certificates_alone() && asking.certified.is_some() =>
                    {
                        Ok(asking.by_certificate())
                    }
                    Err(refusal) => Err(self.refuse(refusal, asking).login(Some(login.name))),
                    Ok(principal) => Ok(principal),
                };
            }
            Presented::Nothing => return Ok(asking.by_certificate()),
            Presented::Bearer(token) => match &self.desk {
                Some(desk) => desk.verify(&token, auth.basic.as_ref(), asking.fingerprint()),
                None => Err(Failure::Token(Invalid::Foreign).into()),
            },
            Presented::Unreadable => Err(Failure::Unreadable.into()),
        };
        found.map_err(|failed| {
            let refused = self.refuse(Refusal::Unauthorized(failed.failure), asking);
            refused.login(failed.login)
        })
    }

    /// Says who brings a name and a password: a robot, or a user.
    pub(crate) async fn log_in(
        &self,
        login: &Login,
        client: IpAddr,
        scrutiny: Scrutiny<'_>,
    ) -> Result<Principal, Refusal> {
        let desk = self.desk.as_ref();
        // A robot's secret is found by its form; whatever is none is looked at as a password.
        if let Some(robot) = desk.and_then(|desk| desk.robot(login)) {
            return Ok(robot);
        }
        let found = match self.auth.as_ref().and_then(|auth| auth.basic.as_ref()) {
            Some(basic) => basic.authenticate(login, client, scrutiny).await,
            None => Err(Refusal::Unauthorized(Failure::UnknownUser)),
        };
        found.map(Principal::user).map_err(|refusal| match refusal {
            Refusal::Unauthorized(of_user) => {
                let of_robot = desk.and_then(|desk| desk.robot_failure(login));
                Refusal::Unauthorized(which(of_user, of_robot))
            }
            other => other,
        })
    }

    pub(crate) fn refuse(&self, refusal: Refusal, asking: &Asking<'_>) -> Refused {
        match refusal {
            Refusal::Busy => {
                count_login(LoginRefusal::Busy);
                Rejection::Busy.because("password queue")
            }
            Refusal::Throttled {
                retry_after,
                culprit,
            } => {
                let (reason, key) = match culprit {
                    Culprit::Address => {
                        (LoginRefusal::ThrottledAddress, "limits.logins.per_address")
                    }
                    Culprit::User => (LoginRefusal::ThrottledUser, "limits.logins.per_user"),
                };
                count_login(reason);
                Rejection::TooManyFailures { retry_after }.because(key)
            }
            Refusal::Unauthorized(why) => {
                count_login(counted(why));
                let error = asking.brings_token().then_some("invalid_token");
                self.challenge(asking, error).because(why.name())
            }
        }
    }

    /// Turns a no into what the client is told: to log in, if that may help.
    pub(crate) fn deny(&self, denial: Denial, wish: &Wish<'_>, asking: &Asking<'_>) -> Refused {
        let without_token = self.without_token(wish, asking);
        let help = match (&denial, &without_token) {
            (Denial::LogIn(_), _) => self.auth.is_some(),
            (Denial::Forbidden(_), Some(decided)) => decided.is_ok(),
            // What another server would grant is its own to know.
            (Denial::Forbidden(_), None) => self.desk.is_some() && asking.brings_token(),
        };
        let because = match without_token {
            Some(Ok(())) => TOKEN_TOO_NARROW.into(),
            // A token is as narrow as the rules were when it was asked for.
            Some(Err(denial)) => denial.because(),
            None => denial.because(),
        };
        if !help {
            return Rejection::Denied.because(because);
        }
        let error = asking.brings_token().then_some("insufficient_scope");
        self.challenge(asking, error).because(because)
    }

    /// Decides for whoever brings a token, had they the best one there is; where it is the token alone
    /// that allows too little, they get a better one for the asking. `None` where there is no token, or
    /// one of another server.
    fn without_token(&self, wish: &Wish<'_>, asking: &Asking<'_>) -> Option<Result<(), Denial>> {
        let desk = self.desk.as_ref().filter(|_| asking.brings_token())?;
        let principal = match wish.principal.as_user() {
            Some(_) => desk.without_token(wish.principal)?,
            None => Principal::anonymous(),
        };
        let wish = Wish {
            principal: &principal,
            ..*wish
        };
        Some(self.access.decide(&wish).map(drop))
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

    pub(crate) fn basic_challenge(&self) -> Challenge {
        let realm = self.auth.as_ref().map(|auth| Arc::clone(&auth.realm));
        Challenge::Basic {
            realm: realm.unwrap_or_default(),
        }
    }
}

/// Returns which failure it is that a name and a password have been neither a user's nor a robot's.
fn which(of_user: Failure, of_robot: Option<Failure>) -> Failure {
    match (of_user, of_robot) {
        // The secret is the robot's own.
        (_, Some(robot @ (Failure::ExpiredRobot | Failure::RobotElsewhere))) => robot,
        (Failure::UnknownUser, Some(robot)) => robot,
        (user, _) => user,
    }
}

/// Returns what a failure is counted as.
pub(crate) fn counted(failure: Failure) -> LoginRefusal {
    match failure {
        Failure::RefreshCredentials
        | Failure::RefreshToken
        | Failure::Token(_)
        | Failure::TokenAsLogin => LoginRefusal::Token,
        _ => LoginRefusal::WrongCredentials,
    }
}
