//! `allow_from` and `deny_from`, wherever they stand.

use settings::Section;

use crate::filter::addresses::{Addresses, Network};

/// Reads both lists of a table.
pub(super) fn read(section: &mut Section) -> Addresses {
    Addresses {
        allow: networks(section, "allow_from"),
        deny: networks(section, "deny_from"),
    }
}

/// Reads a list of networks; a single address is a network of one.
pub(super) fn networks(section: &mut Section, key: &str) -> Box<[Network]> {
    let networks: Option<Vec<Network>> = section.parsed_list(key);
    networks.unwrap_or_default().into()
}
