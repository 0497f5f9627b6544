//! TLS towards the network: certificates, which one a handshake gets, and self-signed ones.
//!
//! OpenSSL's types stay in this room; the rest of the edge sees a [`CertifiedKey`] and a
//! [`CertStore`]. Verifying clients is not done here yet.

pub(crate) mod accept;
mod certified_key;
mod description;
pub mod self_signed;
mod store;

use std::io;
use std::path::PathBuf;

use openssl::error::ErrorStack;

pub(crate) use certified_key::CertifiedKey;
pub use description::Description;
pub(crate) use store::CertStore;

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
    /// The key is not the one the certificate was made for.
    #[error("{}: is not the key of the certificate {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
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

/// Returns OpenSSL's own words without its function names and code numbers.
fn reason(stack: &ErrorStack) -> String {
    stack
        .errors()
        .iter()
        .find_map(|error| error.reason())
        .unwrap_or("openssl gave no reason")
        .to_owned()
}
