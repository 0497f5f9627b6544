//! `[limits]`: how large and how slow a client or an upstream may be.

use std::net::IpAddr;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use settings::Section;

use super::Logins;
use crate::limits::transfers::Shares;

/// Everything that has an end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Limits {
    /// From a connection's first byte to the end of a request's head.
    pub(crate) header_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub(crate) keepalive_timeout: Duration,
    /// How long a client may pause in the middle of a body that it sends.
    pub(crate) read_timeout: Duration,
    /// How slow a client may be in sending a body, in bytes per second; 0 is as slow as it likes.
    pub(crate) min_body_rate: u64,
    /// How long a client may take nothing of what is sent to it. Longer than one thinks: a client
    /// that reads slowly opens its window only when half of it is free, megabytes at a time.
    pub(crate) write_timeout: Duration,
    /// How many wrong passwords are too many.
    pub(crate) logins: Logins,
    /// Connections, in all.
    pub(crate) max_connections: usize,
    /// Connections of one address; without a number, see [`Self::connections_of`].
    pub(crate) max_connections_per_address: Option<usize>,
    /// What an HTTP/2 client may send ahead on one connection, in bytes.
    pub(crate) http2_window: u32,
    /// Requests at once on one HTTP/2 connection.
    pub(crate) http2_max_streams: u32,
    /// How many of them a client may reset in a minute; 0 is any number.
    pub(crate) http2_max_resets: u32,
    /// What the streams of HTTP/2 connections may have of the registry at once.
    pub(crate) transfers: Shares,
    /// All names and values of a request's headers together, in bytes.
    pub(crate) max_header_size: usize,
    /// A request's headers, counted.
    pub(crate) max_headers: usize,
    /// A request's path and query, in bytes.
    pub(crate) max_uri_size: usize,
    /// How long connecting to an upstream may take.
    pub(crate) upstream_connect_timeout: Duration,
    /// How long an upstream may be silent; the registry syncs a whole layer to its disk in it.
    pub(crate) upstream_read_timeout: Duration,
}

/// Longer than any wait that makes sense, and as long as a connection's options can express: they
/// count milliseconds in 31 bits.
const DURATION_MAX: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// Pingora reads no more than this, in headers and in bytes.
const HEADERS_MAX: usize = 256;
const HEAD_SIZE_MAX: u64 = 64 << 10;

/// An office behind one address pushes and pulls with this many, and one that wants to use up all
/// descriptors does not come far.
const CONNECTIONS_PER_ADDRESS: usize = 1000;

/// HTTP/2's own default, and more than anyone can use.
const HTTP2_WINDOW_MIN: u32 = 64 << 10;
const HTTP2_WINDOW_MAX: u32 = 64 << 20;

/// More streams than this are a flood.
const HTTP2_STREAMS_MAX: u32 = 10_000;

/// What a crowd behind one address has, where that is no more than a quarter of what there is.
const TRANSFERS_PER_ADDRESS: u32 = 256;

/// More transfers than this no machine has descriptors for.
const TRANSFERS_MAX: u32 = 65_536;

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(75),
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(15 * 60),
            logins: Logins::default(),
            min_body_rate: 1 << 10,
            max_connections: usize::MAX,
            max_connections_per_address: None,
            http2_window: 4 << 20,
            http2_max_streams: 100,
            http2_max_resets: 1000,
            transfers: Shares {
                connection: 16,
                address: TRANSFERS_PER_ADDRESS.min(transfers_max() / 4),
                process: transfers_max(),
            },
            max_header_size: 32 << 10,
            max_headers: 100,
            max_uri_size: 8 << 10,
            upstream_connect_timeout: Duration::from_secs(5),
            upstream_read_timeout: Duration::from_secs(10 * 60),
        }
    }
}

impl Limits {
    /// Reads the table; what is not written has its default.
    pub(super) fn read(mut section: Section) -> Self {
        let logins = section.table("logins").map(Logins::read);
        let mut limits = Self {
            logins: logins.unwrap_or_default(),
            ..Self::default()
        };
        let section = &mut section;
        for (key, field) in [
            ("header_timeout", &mut limits.header_timeout),
            ("keepalive_timeout", &mut limits.keepalive_timeout),
            ("read_timeout", &mut limits.read_timeout),
            ("write_timeout", &mut limits.write_timeout),
            (
                "upstream_connect_timeout",
                &mut limits.upstream_connect_timeout,
            ),
            ("upstream_read_timeout", &mut limits.upstream_read_timeout),
        ] {
            if let Some(duration) = timeout(section, key) {
                *field = duration;
            }
        }
        for (key, field) in [
            ("max_header_size", &mut limits.max_header_size),
            ("max_uri_size", &mut limits.max_uri_size),
        ] {
            let size = section.size(key);
            match size.map(|size| (size, usize::try_from(size))) {
                Some((1..=HEAD_SIZE_MAX, Ok(size))) => *field = size,
                Some(_) => section.problem(key, "must be between 1 byte and 64 KiB"),
                None => {}
            }
        }
        match section.size("http2_window").map(u32::try_from) {
            Some(Ok(window @ HTTP2_WINDOW_MIN..=HTTP2_WINDOW_MAX)) => limits.http2_window = window,
            Some(_) => section.problem("http2_window", "must be between 64KiB and 64MiB"),
            None => {}
        }
        if let Some(rate) = section.size("min_body_rate") {
            limits.min_body_rate = rate;
        }
        match section.optional("http2_max_streams") {
            Some(streams @ 1..=HTTP2_STREAMS_MAX) => limits.http2_max_streams = streams,
            Some(_) => section.problem(
                "http2_max_streams",
                format!("must be between 1 and {HTTP2_STREAMS_MAX}"),
            ),
            None => {}
        }
        if let Some(resets) = section.optional("http2_max_resets") {
            limits.http2_max_resets = resets;
        }
        read_shares(section, &mut limits.transfers);
        if let Some(count) = section.optional("max_connections") {
            limits.max_connections = unless_zero(count);
        }
        let per_address = section.optional("max_connections_per_address");
        limits.max_connections_per_address = per_address.map(unless_zero);
        match section.optional("max_headers") {
            Some(count @ 1..=HEADERS_MAX) => limits.max_headers = count,
            Some(_) => section.problem(
                "max_headers",
                format!("must be between 1 and {HEADERS_MAX}"),
            ),
            None => {}
        }
        limits
    }

    /// Returns how many connections `client` may have. With nothing written, programs on this
    /// machine may have any number: they are other parts of the same service, as a rule.
    pub(crate) fn connections_of(&self, client: IpAddr) -> usize {
        match self.max_connections_per_address {
            Some(max) => max,
            None if client.is_loopback() => usize::MAX,
            None => CONNECTIONS_PER_ADDRESS,
        }
    }
}

/// Reads how much of the registry's work is whose.
fn read_shares(section: &mut Section, shares: &mut Shares) {
    for (key, share) in [
        ("http2_max_transfers", &mut shares.connection),
        ("max_transfers_per_address", &mut shares.address),
        ("max_transfers", &mut shares.process),
    ] {
        match section.optional(key) {
            Some(count @ 1..=TRANSFERS_MAX) => *share = count,
            Some(_) => section.problem(key, format!("must be between 1 and {TRANSFERS_MAX}")),
            None => {}
        }
    }
}

/// Returns how many transfers there may be in all: each needs a few file descriptors, and connections
/// need most of them.
fn transfers_max() -> u32 {
    // What the process may have once it has asked for all of it, as it does at its start.
    let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let eighth = u32::try_from(descriptors / 8).unwrap_or(TRANSFERS_MAX);
    eighth.clamp(64, TRANSFERS_MAX)
}

/// Zero is no limit.
fn unless_zero(count: usize) -> usize {
    if count == 0 { usize::MAX } else { count }
}

/// Reads a timeout: in whole seconds, as those of a connection are counted.
pub(super) fn timeout(section: &mut Section, key: &str) -> Option<Duration> {
    let duration = wait(section, key)?;
    if duration < Duration::from_secs(1) {
        section.problem(key, "must be one second at least");
        return None;
    }
    Some(duration)
}

/// Reads how long to wait for something.
pub(super) fn wait(section: &mut Section, key: &str) -> Option<Duration> {
    let duration = section.duration(key)?;
    if duration > DURATION_MAX {
        section.problem(key, "must be 24 days at most");
        return None;
    }
    Some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_as_many_connections_as_is_written_and_this_machine_any_number_if_nothing_is()
    {
        for (written, client, most) in [
            (None, "192.0.2.1", CONNECTIONS_PER_ADDRESS),
            (None, "2001:db8::1", CONNECTIONS_PER_ADDRESS),
            (None, "127.0.0.1", usize::MAX),
            (None, "::1", usize::MAX),
            (Some(7), "192.0.2.1", 7),
            (Some(7), "127.0.0.1", 7),
            (Some(unless_zero(0)), "192.0.2.1", usize::MAX),
        ] {
            let limits = Limits {
                max_connections_per_address: written,
                ..Limits::default()
            };
            let found = limits.connections_of(client.parse().unwrap());
            assert_eq!(found, most, "{written:?} {client}");
        }
    }
}
