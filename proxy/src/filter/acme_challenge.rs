//! Answers a CA's question whether this host is ours (ACME HTTP-01, RFC 8555, section 8.3).
//!
//! Reads the challenges that are open; who opens and closes them is no matter of this room.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use http::StatusCode;
use http::request::Parts;

use super::Decision;
use crate::respond::Reply;

/// What the answer is.
pub(crate) const MEDIA_TYPE: &str = "application/octet-stream";

const PREFIX: &str = "/.well-known/acme-challenge/";

/// The longest token that can be one of ours; a CA's are a third of it.
const TOKEN_BYTES_MAX: usize = 128;

/// The open challenges: what to answer to which token. Each copy is the same map.
#[derive(Clone, Default)]
pub(crate) struct Challenges(Arc<RwLock<HashMap<Box<str>, Box<str>>>>);

impl Challenges {
    /// Answers with `answer` to `token` from now on.
    pub(crate) fn open(&self, token: &str, answer: &str) {
        let mut open = self.0.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(token.into(), answer.into());
    }

    /// Knows `token` no more.
    pub(crate) fn close(&self, token: &str) {
        let mut open = self.0.write().unwrap_or_else(PoisonError::into_inner);
        open.remove(token);
    }

    /// Returns whether a CA may be asking at this moment.
    pub(crate) fn is_any_open(&self) -> bool {
        !self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Returns what to answer.
    pub(crate) fn find(&self, token: &str) -> Option<Box<str>> {
        let open = self.0.read().unwrap_or_else(PoisonError::into_inner);
        open.get(token).cloned()
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").finish_non_exhaustive()
    }
}

/// Returns the token that a request asks about, if it has the form of one.
pub(crate) fn token(parts: &Parts) -> Option<&str> {
    let token = parts.uri.path().strip_prefix(PREFIX)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let right = (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(fits);
    right.then_some(token)
}

/// Answers for a token that is known; all else is left to the next step.
pub(crate) fn answer(parts: &Parts, challenges: &Challenges) -> Result<(), Decision> {
    match token(parts).and_then(|token| challenges.find(token)) {
        Some(answer) => Err(reply(answer.as_bytes().to_vec())),
        None => Ok(()),
    }
}

/// Makes the reply to a question whose answer is known.
pub(crate) fn reply(answer: Vec<u8>) -> Decision {
    Decision::Answer(Reply::page(StatusCode::OK, MEDIA_TYPE, answer.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_answered(path: &str, challenges: &Challenges) -> bool {
        let request = http::Request::builder().uri(path).body(()).unwrap();
        let decision = answer(&request.into_parts().0, challenges);
        matches!(decision, Err(Decision::Answer(_)))
    }

    #[test]
    fn only_a_known_token_is_answered() {
        let challenges = Challenges::default();
        challenges.open("token", "token.thumbprint");
        for (path, answered) in [
            ("/.well-known/acme-challenge/token", true),
            ("/.well-known/acme-challenge/token?x", true),
            ("/.well-known/acme-challenge/other", false),
            ("/.well-known/acme-challenge/", false),
            ("/.well-known/acme-challenge/../token", false),
            ("/token", false),
        ] {
            assert_eq!(is_answered(path, &challenges), answered, "{path}");
        }
        challenges.close("token");
        assert!(!is_answered(
            "/.well-known/acme-challenge/token",
            &challenges
        ));
    }
}
