//! The steps of policy that look at a request's head and nothing else.
//!
//! Each takes [`http::request::Parts`] and what the config says, and returns a value: nothing, or
//! the [`Decision`] that ends the request's way here, or the [`Edits`] to make. No IO, no clock,
//! nothing of Pingora: `edge::policy` says in which order they are asked.

pub(crate) mod acme_challenge;
pub(crate) mod addresses;
pub(crate) mod forwarded;
pub(crate) mod framing;
pub(crate) mod guarded;
mod hops;
pub(crate) mod host;
pub(crate) mod http2;
pub(crate) mod https_redirect;
pub(crate) mod limits;
pub(crate) mod methods;
pub(crate) mod mount;
pub(crate) mod registry;
pub(crate) mod response_headers;

use std::borrow::Cow;

use http::header::{HeaderName, HeaderValue};

use crate::limits::request_body::TooLarge;
use crate::respond::{Rejection, Reply};

/// What a step decides of a request that goes no further.
#[derive(Clone, Debug)]
pub(crate) enum Decision {
    /// It knows the answer.
    Answer(Reply),
    /// It refuses.
    Refuse(Refused),
}

/// A refusal, and what the log says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Refused {
    pub(crate) rejection: Rejection,
    /// The rule, list or limit that refused, by its name in the config. The client never sees it.
    pub(crate) because: Option<Cow<'static, str>>,
    /// The name that was tried, where it is credentials that were refused.
    pub(crate) login: Option<Box<str>>,
}

impl Refused {
    /// Says whose credentials were refused.
    pub(crate) fn login(mut self, login: Option<impl Into<Box<str>>>) -> Self {
        self.login = login.map(Into::into);
        self
    }
}

impl Rejection {
    /// Names what refused.
    pub(crate) fn because(self, because: impl Into<Cow<'static, str>>) -> Refused {
        Refused {
            rejection: self,
            because: Some(because.into()),
            login: None,
        }
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            because: None,
            login: None,
        }
    }
}

impl From<Refused> for Decision {
    fn from(refused: Refused) -> Self {
        Self::Refuse(refused)
    }
}

impl From<TooLarge> for Decision {
    fn from(error: TooLarge) -> Self {
        Rejection::from(error).into()
    }
}

impl From<Rejection> for Decision {
    fn from(rejection: Rejection) -> Self {
        Self::Refuse(rejection.into())
    }
}

/// Changes to the headers of a message; a name that is set has this one value afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edits {
    removed: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    /// Takes out every value of `name`.
    pub(crate) fn remove(&mut self, name: HeaderName) {
        self.removed.push(name);
    }

    /// Puts one value of `name` in the place of all others.
    pub(crate) fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.set.push((name, value));
    }

    /// Hands out what to take out and, after that, what to put in.
    pub(crate) fn into_parts(self) -> (Vec<HeaderName>, Vec<(HeaderName, HeaderValue)>) {
        (self.removed, self.set)
    }

    /// Makes the changes.
    #[cfg(test)]
    pub(crate) fn apply(self, headers: &mut http::HeaderMap) {
        for name in self.removed {
            headers.remove(name);
        }
        for (name, value) in self.set {
            headers.insert(name, value);
        }
    }
}

/// Returns the head of a request for `/` with these headers.
#[cfg(test)]
pub(crate) fn parts_for_test(headers: &[(&str, &str)]) -> http::request::Parts {
    let mut request = http::Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}
