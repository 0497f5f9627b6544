//! Who is asking, as the edge has verified, and what they may see, as it has decided.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use oci::{Visibility, visibility};

use crate::registry::Principal;

/// The headers that the edge alone sets; it removes what a client sends under these names.
const USER: &str = "x-tidegate-user";
const ADDRESS: &str = "x-real-ip";

/// Returns the name of the verified user, for the log.
pub(super) fn user(headers: &HeaderMap) -> Option<&str> {
    let name = headers.get(USER).and_then(|name| name.to_str().ok());
    name.filter(|name| !name.is_empty())
}

/// Returns who asks, as far as shares are counted: the verified user, or whoever is at the address
/// that the edge has seen.
pub(super) fn principal(headers: &HeaderMap) -> Principal {
    if let Some(name) = headers.get(USER).filter(|name| !name.is_empty()) {
        return Principal::User(name.as_bytes().into());
    }
    let address = headers.get(ADDRESS).and_then(|it| it.to_str().ok());
    let address = address.and_then(|it| it.parse().ok());
    address.map_or(Principal::Unknown, |it| Principal::Address(network(it)))
}

/// Returns the network whose addresses count as one, as they do at the edge.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Reads which repositories the one who asks may see; without the header, all. What cannot be read
/// shows nothing.
pub(super) fn visibility(registry: Option<&str>, headers: &HeaderMap) -> Option<Visibility> {
    let mut values = headers.get_all(visibility::HEADER).iter();
    let value = values.next()?;
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    Some(text.unwrap_or_default().parse().unwrap_or_else(|error| {
        tracing::error!(
            registry,
            error = &error as &dyn std::error::Error,
            "the edge says in no known way what may be seen: nothing is"
        );
        Visibility::nothing()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_by_name_and_without_one_by_address() {
        let of = |headers: &[(&'static str, &[u8])]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.to_vec().try_into().unwrap());
            }
            principal(&map)
        };
        let address = |text: &str| Principal::Address(text.parse().unwrap());
        let name = "döcker".as_bytes();
        assert_eq!(
            of(&[(USER, name), (ADDRESS, b"192.0.2.1")]),
            Principal::User(name.into())
        );
        assert_eq!(
            of(&[(USER, b""), (ADDRESS, b"192.0.2.1")]),
            address("192.0.2.1")
        );
        assert_eq!(of(&[(ADDRESS, b"::ffff:192.0.2.1")]), address("192.0.2.1"));
        for one in ["2001:db8:0:1::1", "2001:db8:0:1:ffff::"] {
            assert_eq!(of(&[(ADDRESS, one.as_bytes())]), address("2001:db8:0:1::"));
        }
        assert_eq!(of(&[]), Principal::Unknown);
        assert_eq!(of(&[(ADDRESS, b"unix:")]), Principal::Unknown);
    }

    #[test]
    fn what_cannot_be_read_shows_nothing() {
        let read = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(visibility::HEADER, value.to_vec().try_into().unwrap());
            }
            visibility(None, &headers).map(|visible| visible.to_string())
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[b"+a"]).as_deref(), Some("+a"));
        for values in [
            &[&b""[..]][..],
            &[b"a"],
            &[b"+a, +b"],
            &[b"+\xc3\xa9"],
            &[b"+a", b"+b"],
            &[b"+${user}"],
        ] {
            assert_eq!(read(values).as_deref(), Some("-**"), "{values:?}");
        }
    }
}
