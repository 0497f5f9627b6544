//! `[metrics]`: where figures about the edge can be read, and by whom.

use std::net::SocketAddr;

use settings::Section;

use super::{Listener, addresses, listener};
use crate::filter::addresses::Addresses;

/// A listener for figures, and for nothing else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Metrics {
    pub(crate) address: SocketAddr,
    /// Who may ask.
    pub(crate) addresses: Addresses,
}

impl Metrics {
    /// Reads `[metrics]`.
    pub(super) fn read(
        mut section: Section,
        listeners: &[Listener],
        warnings: &mut Vec<String>,
    ) -> Option<Self> {
        let addresses = addresses::read(&mut section);
        let address = listener::address(&mut section)?;
        let taken = |listener: &Listener| listener.address == address && address.port() != 0;
        if listeners.iter().any(taken) {
            section.problem("address", format!("{address}: a listener has it already"));
        }
        if !address.ip().is_loopback() && addresses.allow.is_empty() {
            warnings.push(
                "metrics.address: can be reached from other machines, and metrics.allow_from is empty: everyone who reaches it can read there which sites there are"
                    .to_owned(),
            );
        }
        Some(Self { address, addresses })
    }
}
