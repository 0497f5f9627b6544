//! TLS towards the network: certificates, which one a handshake gets, and self-signed ones.
//!
//! OpenSSL's types stay in this room; the rest of the edge sees a [`CertifiedKey`], a [`CertStore`],
//! whose certificates a site takes ([`ClientAuth`]) and what a handshake was about ([`Handshake`]).

pub(crate) mod accept;
pub(crate) mod alpn;
mod certified_key;
mod client_auth;
mod description;
mod handshake;
pub(crate) mod request;
pub mod self_signed;
mod store;
mod tickets;

use std::io;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;

pub(crate) use alpn::AlpnChallenges;
pub(crate) use certified_key::CertifiedKey;
pub(crate) use client_auth::ClientAuth;
pub use description::Description;
pub(crate) use handshake::Handshake;
pub(crate) use store::{CertStore, Presented};
pub(crate) use tickets::TicketKeys;

/// Why a certificate cannot be used, or a TLS setting cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file holds no certificate.
    #[error("{}: holds no certificate in PEM form", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file of the certificate holds a private key.
    #[error(
        "{}: holds a private key and no certificate: are cert_file and key_file swapped?",
        path.display()
    )]
    KeyInstead {
        /// The file.
        path: PathBuf,
    },
    /// The file of the key holds a certificate.
    #[error(
        "{}: holds a certificate and no private key: are cert_file and key_file swapped?",
        path.display()
    )]
    CertificateInstead {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the one the certificate was made for.
    #[error("{}: is not the key of the certificate {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The file holds no revocation list.
    #[error("{}: holds no revocation list in PEM form", path.display())]
    NoList {
        /// The file.
        path: PathBuf,
    },
    /// The path is no text, which OpenSSL's binding asks for.
    #[error("{}: the path of a revocation list must be UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// OpenSSL refused.
    #[error("{}", reason(.0))]
    OpenSsl(#[from] ErrorStack),
    /// The content of a file is not what its key says.
    #[error("{}: {}", path.display(), reason(source))]
    Parse {
        /// The file.
        path: PathBuf,
        /// What OpenSSL said.
        source: ErrorStack,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Returns the file that is at fault, where one is.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Empty { path }
            | Self::KeyInstead { path }
            | Self::CertificateInstead { path }
            | Self::NoList { path }
            | Self::NotText { path }
            | Self::Parse { path, .. }
            | Self::Read { path, .. }
            | Self::KeyMismatch { key: path, .. } => Some(path),
            Self::OpenSsl(_) => None,
        }
    }
}

/// Returns OpenSSL's own words without its function names and code numbers.
fn reason(stack: &ErrorStack) -> String {
    stack
        .errors()
        .iter()
        .find_map(|error| error.reason())
        .unwrap_or("openssl gave no reason")
        .to_owned()
}
