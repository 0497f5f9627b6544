//! What a plain listener does for addresses that its lists keep out: a CA asks from wherever it
//! likes, so a challenge is answered to everyone, and nothing else is.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::socket::Socket;
use crate::filter::acme_challenge::{self, MEDIA_TYPE};
use crate::respond::protocol;
use crate::state::State;
use crate::telemetry::access_log::Entry;

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
    session.set_keepalive(None);
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
    let len = answer.len();
    // Who does not wait for it asks again.
    let sent = send(&mut session, answer.into()).await.is_ok();
    let head = session.req_header();
    Entry {
        client: Some(client.ip().to_canonical()),
        site: None,
        principal: None,
        admitted: false,
        protocol: protocol(head.version),
        method: head.method.as_str(),
        path: head.uri.path(),
        status: if sent { 200 } else { 499 },
        bytes_in: 0,
        bytes_out: if sent { len } else { 0 },
        duration: started.elapsed(),
        upstream: None,
        because: None,
        fault: None,
        error: None,
        request_id: "",
    }
    .emit();
    true
}

async fn send(session: &mut ServerSession, answer: Bytes) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(StatusCode::OK, Some(3))?;
    header.set_content_length(answer.len())?;
    header.insert_header(CONTENT_TYPE, MEDIA_TYPE)?;
    session.write_response_header(Box::new(header)).await?;
    session.write_response_body(answer, true).await?;
    session.finish_body().await
}
