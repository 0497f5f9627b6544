//! Which host a request is for.

use std::net::Ipv6Addr;

use http::HeaderMap;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

use crate::respond::Rejection;

/// The host of a request: lower case, without port and final dot; an IPv6 address in brackets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Host {
    name: String,
    /// As the client spelled it, with its port.
    authority: String,
}

impl Host {
    /// Reads `:authority`, or the one `Host` header (RFC 9112, section 3.2).
    pub(crate) fn of(parts: &Parts) -> Result<Self, Rejection> {
        let authority = match parts.uri.authority() {
            Some(authority) => authority.as_str().to_owned(),
            None => single_host(&parts.headers).ok_or(Rejection::BadHost)?,
        };
        Self::parse(&authority).ok_or(Rejection::BadHost)
    }

    fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        if text.contains('@') {
            return None;
        }
        let host = authority.host();
        let name = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            // One spelling for each address.
            Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
            None => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
        };
        let port = text.get(host.len()..)?;
        let port_holds = port.is_empty() || port.strip_prefix(':')?.parse::<u16>().is_ok();
        let name_holds = !name.is_empty() && !name.contains("..");
        (port_holds && name_holds).then(|| Self {
            name,
            authority: text.to_owned(),
        })
    }

    /// Returns whether `text` could be the host of a request.
    pub(crate) fn is_one(text: &str) -> bool {
        Self::parse(text).is_some()
    }

    /// Returns the name by which the site is found.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns what the client wrote.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }
}

fn single_host(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(HOST).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.to_str().ok()?.to_owned()),
        (Some(_), Some(_)) | (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(hosts: &[&str]) -> Parts {
        let mut request = http::Request::builder().uri("/");
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn hosts_have_one_spelling() {
        for (header, expected) in [
            ("Registry.Example.com", Some("registry.example.com")),
            ("registry.example.com:8443", Some("registry.example.com")),
            ("registry.example.com.", Some("registry.example.com")),
            ("[::1]:443", Some("[::1]")),
            ("[0:0:0:0:0:0:0:1]", Some("[::1]")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a:b", None),
            ("a:99999", None),
            ("a:", None),
            ("user@a", None),
            ("[::1", None),
            ("a/b", None),
            ("a b", None),
        ] {
            let host = Host::of(&parts(&[header]));
            let name = host.as_ref().ok().map(Host::name);
            assert_eq!(name, expected, "{header:?}");
        }
    }

    #[test]
    fn no_host_and_two_hosts_are_refused() {
        assert_eq!(Host::of(&parts(&[])), Err(Rejection::BadHost));
        assert_eq!(Host::of(&parts(&["a", "a"])), Err(Rejection::BadHost));
    }

    #[test]
    fn the_authority_of_http2_comes_first() {
        let request = http::Request::builder().uri("https://a.test:1/x");
        let parts = request
            .header(HOST, "a.test:1")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let host = Host::of(&parts).unwrap();
        assert_eq!((host.name(), host.authority()), ("a.test", "a.test:1"));
    }
}
