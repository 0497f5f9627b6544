//! One event per request, with the target `access`.
//!
//! The path stands in it, its query never: tokens travel there. Headers never stand in it. Of requests
//! that were refused before it was known who asks, only so many a second have one: see [`refused`].

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::{metrics, refused};

/// The status of failed authentication.
const UNAUTHORIZED: u16 = 401;

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

impl fmt::Display for Fault {
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
    pub(crate) site: Option<&'a str>,
    pub(crate) principal: Option<&'a str>,
    /// Whether it was let in, to whatever answers it.
    pub(crate) admitted: bool,
    pub(crate) protocol: &'static str,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    /// Bytes of the request's body.
    pub(crate) bytes_in: usize,
    /// Bytes of the response's body.
    pub(crate) bytes_out: usize,
    pub(crate) duration: Duration,
    /// Until the head of the upstream's response was there.
    pub(crate) upstream: Option<Duration>,
    /// The rule, list or limit that refused it.
    pub(crate) because: Option<&'a str>,
    pub(crate) fault: Option<Fault>,
    /// What went wrong, where it was not the client.
    pub(crate) error: Option<&'a str>,
    pub(crate) request_id: &'a str,
}

impl Entry<'_> {
    /// Writes the line, if it has one, and counts the request.
    pub(crate) fn emit(&self) {
        metrics::count_request(self.status, self.bytes_in, self.bytes_out);
        // Wrong credentials may also be what the page for tokens was let in with, or another service.
        let is_refused = !self.admitted || self.status == UNAUTHORIZED;
        if is_refused && self.principal.is_none() && !refused::has_line(self.client) {
            return;
        }
        tracing::info!(
            target: "access",
            client = self.client.map(tracing::field::display),
            site = self.site,
            principal = self.principal,
            protocol = self.protocol,
            method = self.method,
            path = self.path,
            status = self.status,
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            duration_ms = milliseconds(self.duration),
            upstream_ms = self.upstream.map(milliseconds),
            because = self.because,
            fault = self.fault.map(tracing::field::display),
            error = self.error,
            request_id = self.request_id,
        );
    }
}

/// Returns milliseconds to the tenth: requests for small things take less than one.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
