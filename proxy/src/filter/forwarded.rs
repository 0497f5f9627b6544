//! Where a request came from, and what the upstream is told about it.
//!
//! `X-Forwarded-For`, `-Proto`, `-Host`, `X-Real-IP` and `Forwarded` (RFC 7239). What comes in under
//! these names is believed only from the proxies that the config trusts ([`guarded`](super::guarded)
//! takes it out otherwise), and replaced.

use std::net::IpAddr;

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use super::addresses::Network;
use super::hops::FOR;
use super::host::Host;
use super::{Edits, hops};

const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// How many trusted proxies may be between a client and this edge.
const HOPS_MAX: usize = 64;

/// Where a request came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    /// The other end of the connection.
    peer: IpAddr,
    /// The client: the peer, or the one for whom trusted proxies speak.
    client: IpAddr,
    /// The peer is a trusted proxy.
    trusted: bool,
}

impl Origin {
    /// Follows the chain of proxies from the peer backwards, as far as each is trusted.
    pub(crate) fn of(headers: &HeaderMap, peer: IpAddr, proxies: &[Network]) -> Self {
        let trusts = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
        let peer = peer.to_canonical();
        let trusted = trusts(peer);
        let mut client = peer;
        if trusted {
            for hop in hops::backwards(headers).take(HOPS_MAX) {
                // What cannot be read was not written by a proxy to be trusted.
                let Some(address) = hop else { break };
                client = address;
                if !trusts(address) {
                    break;
                }
            }
        }
        Self {
            peer,
            client,
            trusted,
        }
    }

    /// Returns the client's address.
    pub(crate) fn client(&self) -> IpAddr {
        self.client
    }

    /// Returns whether the peer is a proxy whose word counts.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Returns the scheme and, if it says so, the host that the client used, where a trusted proxy
    /// stands between.
    pub(crate) fn seen(&self, headers: &HeaderMap) -> Option<(&'static str, Option<String>)> {
        if !self.trusted {
            return None;
        }
        let first = |name: &HeaderName| {
            let text = headers.get(name)?.to_str().ok()?;
            Some(text.split(',').next()?.trim())
        };
        let scheme = match first(&PROTO) {
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => "http",
            _ => "https",
        };
        let host = first(&HOST).filter(|host| Host::is_one(host));
        Some((scheme, host.map(str::to_owned)))
    }

    /// Adds what the upstream is told, with the scheme and host of this hop.
    pub(crate) fn tell(&self, parts: &Parts, scheme: &'static str, host: &str, edits: &mut Edits) {
        let headers = &parts.headers;
        let before = |name: &HeaderName| {
            let list = joined(headers, name);
            list.filter(|_| self.trusted)
        };
        let element = format!(
            "for={};host={};proto={scheme}",
            quoted_node(self.peer),
            quoted(host)
        );
        let forwarded = if self.trusted && headers.contains_key(FOR) {
            // The proxy may have let its client's `Forwarded` through: the hops are those it
            // wrote down itself.
            let hops: Vec<_> = hops::backwards(headers).collect();
            let hops = hops.into_iter().rev().map(|hop| {
                format!(
                    "for={}, ",
                    hop.map_or_else(|| "unknown".into(), quoted_node)
                )
            });
            Some(hops.collect::<String>().into_bytes())
        } else {
            let mut values = headers.get_all(FORWARDED).iter();
            let continues = values.all(|value| hops::is_forwarded(value.as_bytes()));
            before(&FORWARDED).map(|list| match continues {
                true => [&list[..], b", "].concat(),
                false => b"for=unknown, ".to_vec(),
            })
        };
        let forwarded = [forwarded.unwrap_or_default(), element.into_bytes()].concat();
        set(edits, FORWARDED, &forwarded);
        let peer = self.peer.to_string().into_bytes();
        let list = match before(&FOR) {
            Some(list) => [list, peer].join(&b", "[..]),
            None => peer,
        };
        set(edits, FOR, &list);
        if before(&PROTO).is_none() {
            edits.set(PROTO, HeaderValue::from_static(scheme));
        }
        if before(&HOST).is_none() {
            set(edits, HOST, host.as_bytes());
        }
        set(edits, REAL_IP, self.client.to_string().as_bytes());
    }
}

/// Every value is made of what was a header before or of an address, so it always is one again.
fn set(edits: &mut Edits, name: HeaderName, value: &[u8]) {
    match HeaderValue::from_bytes(value) {
        Ok(value) => edits.set(name, value),
        Err(_) => edits.remove(name),
    }
}

/// Returns all values of a list that is there and says something.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let values: Vec<&[u8]> = values
        .filter(|value| !value.trim_ascii().is_empty())
        .collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}

/// Writes an address as a node of `Forwarded` (RFC 7239, section 6).
fn quoted_node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    }
}

/// Writes a host as a value of `Forwarded`: quoted unless it is a token.
fn quoted(host: &str) -> String {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.bytes().all(token) {
        host.to_owned()
    } else {
        format!("\"{host}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{guarded, parts_for_test as parts};

    fn proxies() -> Vec<Network> {
        ["10.0.0.0/8", "fd00::/8"]
            .map(|net| net.parse().unwrap())
            .to_vec()
    }

    #[test]
    fn the_client_is_the_right_most_hop_that_is_not_trusted() {
        for (peer, headers, client) in [
            ("192.0.2.1", &[][..], "192.0.2.1"),
            ("192.0.2.1", &[("x-forwarded-for", "1.1.1.1")], "192.0.2.1"),
            ("::ffff:192.0.2.1", &[], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1")], "1.1.1.1"),
            (
                "::ffff:10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1")],
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "6.6.6.6, 1.1.1.1, 10.0.0.2")],
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                &[
                    ("x-forwarded-for", "6.6.6.6"),
                    ("x-forwarded-for", "1.1.1.1"),
                ],
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")],
                "10.0.0.3",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1, junk")],
                "10.0.0.1",
            ),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1:99")], "1.1.1.1"),
            (
                "fd00::1",
                &[("x-forwarded-for", "[2001:db8::7]:99")],
                "2001:db8::7",
            ),
            (
                "10.0.0.1",
                &[(
                    "forwarded",
                    "for=6.6.6.6, For=\"[2001:db8::7]\";proto=https, for=10.0.0.9",
                )],
                "2001:db8::7",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1, proto=http")],
                "10.0.0.1",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1;host=\"a, for=6.6.6.6\"")],
                "1.1.1.1",
            ),
        ] {
            let origin = Origin::of(&parts(headers).headers, peer.parse().unwrap(), &proxies());
            assert_eq!(origin.client().to_string(), client, "{peer} {headers:?}");
        }
    }

    #[test]
    fn a_hop_that_cannot_be_read_does_not_make_way_for_what_a_client_wrote() {
        for (hops, client, told) in [
            (&b"\xff"[..], "10.0.0.1", "for=unknown"),
            (b"", "10.0.0.1", "for=unknown"),
            (b"\xff, 1.1.1.1", "1.1.1.1", "for=unknown, for=1.1.1.1"),
        ] {
            let mut parts = parts(&[("forwarded", "for=6.6.6.6")]);
            let value = HeaderValue::from_bytes(hops).unwrap();
            parts.headers.insert(FOR, value);
            let origin = Origin::of(&parts.headers, "10.0.0.1".parse().unwrap(), &proxies());
            assert_eq!(origin.client().to_string(), client, "{hops:?}");
            let mut edits = Edits::default();
            origin.tell(&parts, "https", "a.test", &mut edits);
            edits.apply(&mut parts.headers);
            let forwarded = parts.headers.get(FORWARDED).unwrap().to_str().unwrap();
            let expected = format!("{told}, for=10.0.0.1;host=a.test;proto=https");
            assert_eq!(forwarded, expected, "{hops:?}");
        }
    }

    #[test]
    fn forwarded_is_continued_where_it_is_alone() {
        assert_eq!(
            told("10.0.0.1", "a.test", &[("Forwarded", "for=1.1.1.1;by=_x")]),
            [
                "forwarded: for=1.1.1.1;by=_x, for=10.0.0.1;host=a.test;proto=https",
                "x-forwarded-for: 10.0.0.1",
                "x-forwarded-host: a.test",
                "x-forwarded-proto: https",
                "x-real-ip: 1.1.1.1",
            ]
        );
    }

    #[test]
    fn forwarded_is_not_continued_where_what_is_added_would_be_taken_for_a_part_of_it() {
        let told = told(
            "10.0.0.1",
            "a.test",
            &[("Forwarded", "for=\"6.6.6.6, for=1.1.1.1")],
        );
        assert_eq!(
            told,
            [
                "forwarded: for=unknown, for=10.0.0.1;host=a.test;proto=https",
                "x-forwarded-for: 10.0.0.1",
                "x-forwarded-host: a.test",
                "x-forwarded-proto: https",
                "x-real-ip: 1.1.1.1",
            ]
        );
    }

    fn told(peer: &str, host: &str, headers: &[(&str, &str)]) -> Vec<String> {
        let parts = parts(headers);
        let mut edits = Edits::default();
        let origin = Origin::of(&parts.headers, peer.parse().unwrap(), &proxies());
        guarded::strip(&parts.headers, origin.is_trusted(), &mut edits);
        origin.tell(&parts, "https", host, &mut edits);
        let mut headers = parts.headers;
        edits.apply(&mut headers);
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    const CLAIMS: [(&str, &str); 6] = [
        ("X-Forwarded-For", "1.1.1.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "outside.test"),
        ("X-Forwarded-Port", "80"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
    ];

    #[test]
    fn a_strangers_claims_are_replaced() {
        assert_eq!(
            told("2001:db8::1", "a.test:8443", &CLAIMS),
            [
                "forwarded: for=\"[2001:db8::1]\";host=\"a.test:8443\";proto=https",
                "x-forwarded-for: 2001:db8::1",
                "x-forwarded-host: a.test:8443",
                "x-forwarded-proto: https",
                "x-real-ip: 2001:db8::1",
            ]
        );
    }

    #[test]
    fn a_trusted_proxys_chain_is_continued() {
        assert_eq!(
            told("10.0.0.1", "a.test", &CLAIMS),
            [
                "forwarded: for=1.1.1.1, for=10.0.0.1;host=a.test;proto=https",
                "x-forwarded-for: 1.1.1.1, 10.0.0.1",
                "x-forwarded-host: outside.test",
                "x-forwarded-port: 80",
                "x-forwarded-proto: http",
                "x-real-ip: 1.1.1.1",
            ]
        );
    }
}
