//! From which addresses a request may come.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// An address or a network of them.
///
/// An IPv4 address has one spelling here: what is mapped into IPv6 (`::ffff:192.0.2.1`) is the IPv4
/// address, in lists and in what is asked of them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Network(IpNet);

/// Which addresses may come in: those that are not denied and, where there is a list of those
/// allowed, are on it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Addresses {
    pub(crate) allow: Box<[Network]>,
    pub(crate) deny: Box<[Network]>,
}

/// The list that keeps an address out, by the name of its key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeptOut {
    AllowFrom,
    DenyFrom,
}

impl KeptOut {
    /// Returns the key of the list.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::AllowFrom => "allow_from",
            Self::DenyFrom => "deny_from",
        }
    }
}

impl Network {
    /// Returns whether `address` is in it.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Returns whether every address of its kind is in it.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.0.prefix_len() == 0
    }
}

impl Addresses {
    /// Says which list keeps `address` out, if one does.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<(), KeptOut> {
        let listed = |list: &[Network]| list.iter().any(|network| network.contains(address));
        if listed(&self.deny) {
            return Err(KeptOut::DenyFrom);
        }
        if !self.allow.is_empty() && !listed(&self.allow) {
            return Err(KeptOut::AllowFrom);
        }
        Ok(())
    }

    /// Returns whether `address` is named as one that may come in.
    pub(crate) fn vouch_for(&self, address: IpAddr) -> bool {
        !self.allow.is_empty() && self.admit(address).is_ok()
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let network: IpNet = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
            (Ok(network), _) => network,
            (Err(_), Ok(address)) => address.into(),
            (Err(_), Err(_)) => return Err(NetworkError),
        };
        Ok(Self(unmapped(network)))
    }
}

/// Returns the IPv4 network that is written as one of IPv6.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else {
        return network;
    };
    let length = mapped.prefix_len().checked_sub(96);
    let address: Option<Ipv4Addr> = mapped.addr().to_ipv4_mapped();
    match (address, length) {
        (Some(address), Some(length)) => Ipv4Net::new(address, length).map_or(network, IpNet::V4),
        (None, _) | (_, None) => network,
    }
}

/// Says that a text is no address and no network.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a valid address or network, such as \"10.0.0.0/8\"")]
pub(crate) struct NetworkError;

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Box<[Network]> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn addresses(allow: &[&str], deny: &[&str]) -> Addresses {
        Addresses {
            allow: networks(allow),
            deny: networks(deny),
        }
    }

    #[test]
    fn what_is_denied_stays_out_and_a_list_of_the_allowed_keeps_out_all_others() {
        let (allow_from, deny_from) = (Err(KeptOut::AllowFrom), Err(KeptOut::DenyFrom));
        for (allow, deny, address, expected) in [
            (&[][..], &[][..], "192.0.2.1", Ok(())),
            (&["10.0.0.0/8"], &[], "10.1.2.3", Ok(())),
            (&["10.0.0.0/8"], &[], "11.1.2.3", allow_from),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", deny_from),
            (&[], &["10.1.0.0/16"], "10.2.0.1", Ok(())),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", Ok(())),
            (&[], &["10.0.0.0/8"], "::ffff:10.1.2.3", deny_from),
            (&["::ffff:10.0.0.0/104"], &[], "10.1.2.3", Ok(())),
            (&["::ffff:10.1.2.3"], &[], "10.1.2.3", Ok(())),
            (&["2001:db8::/32"], &[], "2001:db8::1", Ok(())),
            (&["2001:db8::/32"], &[], "2001:db9::1", allow_from),
            (&["::/0"], &[], "2001:db9::1", Ok(())),
            (&["0.0.0.0/0"], &[], "2001:db9::1", allow_from),
            (&["192.0.2.1"], &[], "192.0.2.2", allow_from),
            (&["10.1.2.3/8"], &[], "10.9.9.9", Ok(())),
        ] {
            let found = addresses(allow, deny).admit(address.parse().unwrap());
            assert_eq!(found, expected, "{allow:?} {deny:?} {address}");
        }
    }

    #[test]
    fn only_a_list_of_the_allowed_vouches_for_anyone() {
        let address = "10.1.2.3".parse().unwrap();
        assert!(addresses(&["10.0.0.0/8"], &[]).vouch_for(address));
        assert!(!addresses(&[], &[]).vouch_for(address));
        assert!(!addresses(&[], &["11.0.0.0/8"]).vouch_for(address));
        assert!(!addresses(&["10.0.0.0/8"], &["10.1.2.3"]).vouch_for(address));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "here",
            "10.0.0.0/33",
            "10.0.0",
            "::1/129",
            "10.0.0.1:80",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
        }
    }
}
