//! One event per request, with the target `access`.
//!
//! The path stands in it, its query never: tokens travel there. Of headers only the host and what the
//! client calls itself do. Whatever a client writes is shown as far as a line has room for it, and
//! never as more than a part of its own line: see [`shown`]. Of requests that were refused before it
//! was known who asks, only so many a second have one: see [`refused`].

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use http::request::Parts;
use instruments::{Finished, RouteClass};
use oci::Route;

use super::{metrics, refused, shown};
use crate::respond::protocol;

/// The status of failed authentication.
const UNAUTHORIZED: u16 = 401;

/// As long as the digests of SHA-512 are, with their name.
const DIGEST_BYTES_MAX: usize = 7 + 128;

/// Whose fault it is that a request failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// The client's side.
    Downstream,
    /// Our own.
    Internal,
    /// The side of the service.
    Upstream,
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Downstream => "downstream",
            Self::Internal => "internal",
            Self::Upstream => "upstream",
        })
    }
}

/// What is said of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) client: Option<IpAddr>,
    pub(crate) asked: Asked<'a>,
    pub(crate) site: Option<&'a str>,
    pub(crate) principal: Option<&'a str>,
    /// The name that was tried in vain.
    pub(crate) login: Option<&'a str>,
    /// Whether it was let in, to whatever answers it.
    pub(crate) admitted: bool,
    /// What it is counted as.
    pub(crate) class: RouteClass,
    pub(crate) status: u16,
    /// What the path names, where it is a registry's.
    pub(crate) route: Option<&'a Route>,
    /// The digest that the reply names.
    pub(crate) digest: Option<&'a str>,
    /// Bytes of the request's body.
    pub(crate) bytes_in: usize,
    /// Bytes of the response's body.
    pub(crate) bytes_out: usize,
    pub(crate) duration: Duration,
    /// Until the head of the upstream's response was there.
    pub(crate) upstream: Option<Duration>,
    /// The rule, list or limit that refused it.
    pub(crate) because: Option<&'a str>,
    /// What a token was asked for and not given, with the rules that denied it.
    pub(crate) denied: Option<&'a str>,
    pub(crate) fault: Option<Fault>,
    /// What went wrong, where it was not the client.
    pub(crate) error: Option<&'a str>,
    pub(crate) request_id: &'a str,
}

/// What a client has written that stands in a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) protocol: &'static str,
    pub(crate) method: &'a str,
    /// The host asked for, whether or not there is a site for it.
    pub(crate) host: Option<&'a str>,
    pub(crate) path: &'a str,
    /// What the client calls itself.
    pub(crate) user_agent: Option<&'a HeaderValue>,
}

impl<'a> Asked<'a> {
    /// Returns what the head of a request for `host` says.
    pub(crate) fn of(head: &'a Parts, host: Option<&'a str>) -> Self {
        Self {
            protocol: protocol(head.version),
            method: head.method.as_str(),
            host,
            path: head.uri.path(),
            user_agent: head.headers.get(USER_AGENT),
        }
    }
}

impl Entry<'_> {
    /// Writes the line, if it has one, and counts the request.
    pub(crate) fn emit(&self) {
        let finished = Finished {
            route: self.class,
            method: self.asked.method,
            status: self.status,
            duration: self.duration,
        };
        metrics::count_request(finished, self.bytes_in, self.bytes_out);
        // Wrong credentials may also be what the page for tokens was let in with, or another service.
        let is_refused = !self.admitted || self.status == UNAUTHORIZED;
        if is_refused && self.principal.is_none() && !refused::has_line(self.client) {
            return;
        }
        let asked = &self.asked;
        let user_agent = asked.user_agent.map(HeaderValue::as_bytes);
        let user_agent = user_agent.map(String::from_utf8_lossy);
        let repository = self.route.and_then(Route::repository);
        let reference = self.route.and_then(reference);
        let digest = self.digest.filter(|digest| reads_as_digest(digest));
        tracing::info!(
            target: "access",
            client = self.client.map(tracing::field::display),
            host = asked.host.map(shown::host).as_deref(),
            site = self.site,
            principal = self.principal,
            login = self.login.map(shown::login).as_deref(),
            protocol = asked.protocol,
            method = &*shown::method(asked.method),
            path = &*shown::path(asked.path),
            status = self.status,
            // What these hold is spelt in one way, so it needs no quotes.
            repository = repository.map(tracing::field::display),
            reference = reference.map(tracing::field::display),
            digest = digest.map(tracing::field::display),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            duration_ms = milliseconds(self.duration),
            upstream_ms = self.upstream.map(milliseconds),
            because = self.because,
            denied = self.denied,
            fault = self.fault.map(tracing::field::display),
            error = self.error,
            user_agent = user_agent.as_deref().map(shown::user_agent).as_deref(),
            request_id = self.request_id,
        );
    }
}

/// Returns the tag or the digest that a path ends in.
fn reference(route: &Route) -> Option<&dyn Display> {
    match route {
        Route::Blob { digest, .. } | Route::Referrers { digest, .. } => Some(digest),
        Route::Manifest { reference, .. } => Some(reference),
        Route::Base
        | Route::Catalog
        | Route::Tags { .. }
        | Route::Upload { .. }
        | Route::Uploads { .. } => None,
    }
}

/// Returns whether a registry's word for a digest has the form of one.
fn reads_as_digest(text: &str) -> bool {
    let holds = |byte: u8| byte.is_ascii_alphanumeric() || b":+._-".contains(&byte);
    text.len() <= DIGEST_BYTES_MAX && text.contains(':') && text.bytes().all(holds)
}

/// Returns milliseconds to the tenth: requests for small things take less than one.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
