//! Which addresses are one client's.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the first address of those that one client has: an IPv6 network of 64 bits is handed out
/// to a single line, and an IPv4 address that is written as IPv6 is still that address.
pub(crate) fn neighbours(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            Ipv6Addr::from_bits(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        for (client, first) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::2:0:0:1", "2001:db8::"),
            ("2001:db8:0:1::1", "2001:db8:0:1::"),
        ] {
            let found = neighbours(client.parse().unwrap());
            assert_eq!(found, first.parse::<IpAddr>().unwrap(), "{client}");
        }
    }
}
