//! TLS-ALPN-01: a certificate for the occasion on the TLS listener (RFC 8737).

use std::io;

use super::answers::Question;
use super::storage::{Storage, site_name};
use crate::tls::{self, AlpnChallenges};

/// Why a challenge cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("make the certificate of a challenge: {0}")]
    Tls(#[from] tls::Error),
}

/// Answers, here and on the other edges of the folder.
pub(super) fn open(
    question: &Question<'_>,
    challenges: &AlpnChallenges,
    storage: &Storage,
) -> Result<(), Error> {
    challenges
        .open(question.host, question.digest)
        .map_err(tls::Error::from)?;
    Ok(storage.keep_challenge(&file(question.host), question.digest)?)
}

/// Answers no more.
pub(super) fn close(host: &str, challenges: &AlpnChallenges, storage: &Storage) -> io::Result<()> {
    challenges.close(host);
    storage.drop_challenge(&file(host))
}

/// Names the file that says what to answer for a host; no token has a dot in it.
pub(super) fn file(host: &str) -> String {
    format!("{}.alpn", site_name(host))
}
