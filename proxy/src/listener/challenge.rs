//! What a plain listener does for addresses that its lists keep out: a CA asks from wherever it
//! likes, so a challenge is answered to everyone, and nothing else is.

use std::net::SocketAddr;
use std::time::Instant;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use pingora::protocols::http::ServerSession;

use super::single_reply;
use super::socket::Socket;
use crate::filter::acme_challenge::{self, MEDIA_TYPE};
use crate::respond::Reply;
use crate::state::State;

/// Returns whether a challenge is open at this moment, here or at another edge.
pub(super) async fn is_open(state: &State) -> bool {
    match &state.plan {
        Some(_) if state.answers.http.is_any_open() => true,
        Some(plan) => plan.is_any_open().await,
        None => false,
    }
}

/// Answers one question, if it is about a challenge that is open; returns whether it was.
pub(super) async fn answer(socket: Socket, client: SocketAddr, state: &State) -> bool {
    let started = Instant::now();
    let mut session = ServerSession::new_http1(Box::new(socket));
    if !session.read_request().await.unwrap_or_default() {
        return false;
    }
    let parts: &Parts = session.req_header();
    let Some(token) = acme_challenge::token(parts) else {
        return false;
    };
    let known = state.answers.http.find(token);
    let answer = match (known, &state.plan) {
        (Some(answer), _) => Some(answer.as_bytes().to_vec()),
        (None, Some(plan)) => plan.challenge(token.to_owned()).await,
        (None, None) => None,
    };
    let Some(answer) = answer else {
        return false;
    };
    // Without the headers of a page: this is for a CA.
    let reply = Reply {
        status: StatusCode::OK,
        headers: vec![(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))],
        body: answer.into(),
    };
    single_reply::send(session, client, started, reply, None).await;
    true
}
