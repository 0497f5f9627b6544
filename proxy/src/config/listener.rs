//! `[[listener]]` and `[tls]`: where connections come in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use openssl::ssl::{SslContextBuilder, SslMethod};
use settings::{Purpose, Section};

use super::{Files, addresses};
use crate::filter::addresses::{Addresses, Network};
use crate::tls::TicketKeys;

/// An address to listen at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Listener {
    /// Where; port 0 takes any that is free.
    pub(crate) address: SocketAddr,
    /// Whether TLS is spoken; if not, all there is to say is to come back with it.
    pub(crate) tls: bool,
    /// Whether each connection begins with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    /// Who may connect.
    pub(crate) addresses: Addresses,
}

/// Returns whether a socket that listens at `bound` is what the config means by `address`, where port 0 is
/// any.
pub(crate) fn is_meant(bound: SocketAddr, address: SocketAddr) -> bool {
    bound.ip() == address.ip() && (address.port() == 0 || bound.port() == address.port())
}

/// The oldest TLS to speak.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

/// How TLS is spoken on every listener that speaks it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    pub(crate) min_version: TlsVersion,
    /// OpenSSL's list for TLS 1.2; without one, Mozilla's intermediate one.
    pub(crate) ciphers: Option<String>,
    /// The keys of session tickets, if not made by each edge for itself.
    pub(crate) ticket_keys: Option<Arc<TicketKeys>>,
}

impl Tls {
    /// Reads `[tls]`.
    pub(super) fn read(mut section: Section, files: Files) -> Self {
        let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
        let min_version = section.word("min_version", &versions).unwrap_or_default();
        let ciphers: Option<String> = section.optional("ciphers");
        if let Some(ciphers) = &ciphers {
            let accepted = SslContextBuilder::new(SslMethod::tls())
                .and_then(|mut context| context.set_cipher_list(ciphers));
            if accepted.is_err() {
                section.problem("ciphers", "OpenSSL knows none of these ciphers");
            }
        }
        Self {
            min_version,
            ciphers,
            ticket_keys: ticket_keys(&mut section, files),
        }
    }
}

fn ticket_keys(section: &mut Section, files: Files) -> Option<Arc<TicketKeys>> {
    let paths = section.paths("ticket_key_files")?;
    if files == Files::LeaveAlone || paths.is_empty() {
        return None;
    }
    let may_read = |(index, path): (usize, &PathBuf)| {
        section.permits(&format!("ticket_key_files[{index}]"), path, Purpose::Read)
    };
    if !paths.iter().enumerate().all(may_read) {
        return None;
    }
    let keys = TicketKeys::load(paths);
    let keys = keys.map_err(|error| section.problem("ticket_key_files", error));
    keys.ok().map(Arc::new)
}

/// Reads every `[[listener]]`.
pub(super) fn read_all(root: &mut Section, trusted_proxies: &[Network]) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for mut section in root.tables("listener") {
        let tls = section.optional("tls").unwrap_or_default();
        let proxy_protocol = section.optional("proxy_protocol").unwrap_or_default();
        if proxy_protocol && trusted_proxies.is_empty() {
            section.problem(
                "proxy_protocol",
                "is believed of trusted_proxies alone, and there are none",
            );
        }
        let addresses = addresses::read(&mut section);
        let Some(address) = address(&mut section) else {
            continue;
        };
        let taken = |other: &Listener| other.address == address && address.port() != 0;
        if listeners.iter().any(taken) {
            section.problem(
                "address",
                format!("{address}: another listener has it already"),
            );
            continue;
        }
        listeners.push(Listener {
            address,
            tls,
            proxy_protocol,
            addresses,
        });
    }
    if !root.failed() && !listeners.iter().any(|listener| listener.tls) {
        root.problem(
            "listener",
            "there is none with tls = true, so nothing would be served",
        );
    }
    listeners
}

/// Reads where to listen.
pub(super) fn address(section: &mut Section) -> Option<SocketAddr> {
    let text: String = section.required("address")?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let message = format!(
                "{text:?}: is not a valid address with a port, such as \"0.0.0.0:443\" or \"[::]:443\""
            );
            section.problem("address", message);
            None
        }
    }
}
