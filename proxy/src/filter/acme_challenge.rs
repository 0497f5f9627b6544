//! Answers a CA's question whether this host is ours (ACME HTTP-01, RFC 8555, section 8.3).
//!
//! Reads the challenges that are open; who opens and closes them is no matter of this room. Nobody
//! does yet, so the map is empty and every token is unknown.

use std::collections::HashMap;

use http::StatusCode;
use http::request::Parts;

use super::Decision;
use crate::respond::Reply;

const PREFIX: &str = "/.well-known/acme-challenge/";

/// The open challenges: what to answer to which token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Challenges(HashMap<Box<str>, Box<str>>);

/// Answers for a token that is known; all else is left to the next step.
pub(crate) fn answer(parts: &Parts, challenges: &Challenges) -> Result<(), Decision> {
    let answer = parts
        .uri
        .path()
        .strip_prefix(PREFIX)
        .and_then(|token| challenges.0.get(token));
    match answer {
        Some(answer) => Err(Decision::Answer(Reply::page(
            StatusCode::OK,
            "application/octet-stream",
            answer.as_bytes().to_vec().into(),
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_token_is_answered() {
        let open = HashMap::from([("token".into(), "token.thumbprint".into())]);
        let challenges = Challenges(open);
        for (path, answered) in [
            ("/.well-known/acme-challenge/token", true),
            ("/.well-known/acme-challenge/token?x", true),
            ("/.well-known/acme-challenge/other", false),
            ("/.well-known/acme-challenge/", false),
            ("/token", false),
        ] {
            let parts = http::Request::builder()
                .uri(path)
                .body(())
                .unwrap()
                .into_parts()
                .0;
            let decision = answer(&parts, &challenges);
            assert_eq!(
                matches!(decision, Err(Decision::Answer(_))),
                answered,
                "{path}"
            );
        }
    }
}
