//! Where a request came from, and what the upstream is told about it.
//!
//! `X-Forwarded-For`, `-Proto`, `-Host`, `X-Real-IP` and `Forwarded` (RFC 7239). What comes in under
//! these names is believed only from the proxies that the config trusts, and replaced otherwise.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use ipnet::IpNet;

use super::Edits;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

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
    pub(crate) fn of(headers: &HeaderMap, peer: IpAddr, proxies: &[IpNet]) -> Self {
        let trusts = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(&address));
        let peer = peer.to_canonical();
        let trusted = trusts(peer);
        let mut client = peer;
        if trusted {
            for hop in chain(headers).iter().rev() {
                // What cannot be read was not written by a proxy to be trusted.
                let Some(address) = node(hop) else { break };
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

    /// Adds what the upstream is told, with the scheme and host of this hop.
    pub(crate) fn tell(&self, parts: &Parts, scheme: &'static str, host: &str, edits: &mut Edits) {
        let headers = &parts.headers;
        if !self.trusted {
            let mut claimed = headers.keys().filter(|name| is_claim(name));
            claimed.by_ref().for_each(|name| edits.remove(name.clone()));
        }
        let before = |name: &HeaderName| {
            if self.trusted {
                joined(headers, name)
            } else {
                None
            }
        };
        let element = format!(
            "for={};host={};proto={scheme}",
            quoted_node(self.peer),
            quoted(host)
        );
        let lists = [(FOR, self.peer.to_string()), (FORWARDED, element)];
        for (name, hop) in lists {
            let list = match before(&name) {
                Some(list) => format!("{list}, {hop}"),
                None => hop,
            };
            set(edits, name, &list);
        }
        if before(&PROTO).is_none() {
            edits.set(PROTO, HeaderValue::from_static(scheme));
        }
        if before(&HOST).is_none() {
            set(edits, HOST, host);
        }
        set(edits, REAL_IP, &self.client.to_string());
    }
}

/// Every value is made of what was a header before or of an address, so it always is one again.
fn set(edits: &mut Edits, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => edits.set(name, value),
        Err(_) => edits.remove(name),
    }
}

fn is_claim(name: &HeaderName) -> bool {
    // Services that turn headers into variables cannot tell `_` from `-`.
    let name = name.as_str().replace('_', "-");
    name.starts_with("x-forwarded-") || matches!(name.as_str(), "forwarded" | "x-real-ip")
}

/// Returns the hops that earlier proxies wrote down, the client first.
fn chain(headers: &HeaderMap) -> Vec<String> {
    if let Some(list) = joined(headers, &FOR) {
        return list.split(',').map(|hop| hop.trim().to_owned()).collect();
    }
    let Some(list) = joined(headers, &FORWARDED) else {
        return Vec::new();
    };
    let for_of = |element: &str| {
        element.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let named = name.trim().eq_ignore_ascii_case("for");
            named.then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    list.split(',')
        .map(|element| for_of(element).unwrap_or_default())
        .collect()
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter(|value| !value.trim().is_empty())
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Reads an address as proxies write it: alone, or with a port.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse().ok();
    address
        .or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()))
        .map(|address: IpAddr| address.to_canonical())
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

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn proxies() -> Vec<IpNet> {
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
        ] {
            let origin = Origin::of(&parts(headers).headers, peer.parse().unwrap(), &proxies());
            assert_eq!(origin.client().to_string(), client, "{peer} {headers:?}");
        }
    }

    fn told(peer: &str, host: &str, headers: &[(&str, &str)]) -> Vec<String> {
        let parts = parts(headers);
        let mut edits = Edits::default();
        Origin::of(&parts.headers, peer.parse().unwrap(), &proxies())
            .tell(&parts, "https", host, &mut edits);
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
        ("Forwarded", "for=1.1.1.1"),
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
