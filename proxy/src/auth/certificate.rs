//! What a client's certificate says, once the handshake has verified it or found why not.

use std::fmt;

/// The certificate that a client has shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ClientCertificate {
    pub(crate) common_name: Option<Box<str>>,
    pub(crate) organizational_units: Box<[Box<str>]>,
    pub(crate) emails: Box<[Box<str>]>,
    pub(crate) dns_names: Box<[Box<str>]>,
    pub(crate) uris: Box<[Box<str>]>,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub(crate) fingerprint: Box<str>,
    pub(crate) verdict: Verdict,
}

/// Whether it may be believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Rejected(Fault),
    Verified,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    Expired,
    NotYetValid,
    Other,
    Revoked,
    UnknownAuthority,
    WrongPurpose,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not yet valid",
            Self::Other => "cannot be verified",
            Self::Revoked => "revoked",
            Self::UnknownAuthority => "of an unknown authority",
            Self::WrongPurpose => "not made for clients",
        })
    }
}
