//! Who asks, as far as shares are counted.

use std::net::IpAddr;

/// Somebody who has a share of their own of what the registry can do at once.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Principal {
    /// A user whom the edge has verified, by name.
    User(Box<[u8]>),
    /// Whoever asks without a name from an address, or a network whose addresses count as one.
    Address(IpAddr),
    /// All of whom nothing is known: those who do not come through the edge.
    Unknown,
}
