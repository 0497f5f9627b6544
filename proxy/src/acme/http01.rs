//! HTTP-01: a known answer at a known path of the plain listener (RFC 8555, section 8.3).

use std::io;

use super::answers::Question;
use super::storage::Storage;
use crate::filter::acme_challenge::Challenges;

/// Answers, here and on the other edges of the folder.
pub(super) fn open(
    question: &Question<'_>,
    challenges: &Challenges,
    storage: &Storage,
) -> io::Result<()> {
    challenges.open(question.token, question.authorization);
    storage.keep_challenge(question.token, question.authorization.as_bytes())
}

/// Answers no more.
pub(super) fn close(token: &str, challenges: &Challenges, storage: &Storage) -> io::Result<()> {
    challenges.close(token);
    storage.drop_challenge(token)
}
