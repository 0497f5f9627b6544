//! Sends a reply of the edge's own, so that the client sees it whatever it is still sending.

use std::time::Duration;

use http::header::{EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::{content_length, failure};
use crate::context::Context;
use crate::filter::response_headers;
use crate::limits::resets;
use crate::respond::Reply;

/// How long a client that is still sending is listened to after it was answered, so that it sees
/// the answer before the connection ends.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// What is read at full speed in that time; all else only a piece at a time.
const LINGER_BYTES: usize = 64 << 10;

/// How long to wait between those pieces: a flood costs next to nothing.
const LINGER_PAUSE: Duration = Duration::from_millis(10);

/// Sends a reply of our own, whatever the client is still sending.
pub(super) async fn send(session: &mut Session, ctx: &Context, reply: Reply) -> Result<()> {
    let mut header = ResponseHeader::build(reply.status, Some(reply.headers.len() + 3))?;
    for (name, value) in reply.headers {
        header.append_header(name, value)?;
    }
    mark(&mut header, ctx)?;
    if reply.status != StatusCode::NO_CONTENT {
        header.set_content_length(reply.body.len())?;
    }
    let sends = !session.is_body_done();
    // Another connection is what the client needs.
    let misdirected = reply.status == StatusCode::MISDIRECTED_REQUEST;
    if sends && outlasts_patience(session.req_header())
        || misdirected
        || session.is_process_shutting_down()
    {
        session.set_keepalive(None);
    }
    // It is small, and who has not proven anything yet holds no place for long.
    let patience = ctx.state.limits.header_timeout;
    session
        .as_downstream_mut()
        .set_write_timeout(Some(patience));
    let bodiless = reply.body.is_empty() || session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(header), bodiless)
        .await?;
    if bodiless {
        session.as_downstream_mut().finish_body().await?;
    } else {
        session.write_response_body(Some(reply.body), true).await?;
    }
    if sends {
        linger(session).await;
    }
    Ok(())
}

/// Returns whether a client may go on to send its body for longer than it is listened to.
pub(super) fn outlasts_patience(head: &Parts) -> bool {
    // One that waits for a `100 Continue` may send its body now, or not: who can tell?
    let unclear = head.headers.contains_key(EXPECT);
    // One that does not say how long it is may outlast all patience with it.
    let endless = head.headers.contains_key(TRANSFER_ENCODING);
    unclear || endless || content_length(head) > LINGER_BYTES as u64
}

/// Puts the edge's own headers on a reply, whoever it is from.
pub(super) fn mark(header: &mut ResponseHeader, ctx: &Context) -> Result<()> {
    // A request has a site as soon as it is known to have come over TLS.
    let hsts = ctx.site.as_ref().and_then(|site| site.hsts);
    let edits = response_headers::edits(ctx.is_api(), hsts, &ctx.request_id);
    let (removed, set) = edits.into_parts();
    for name in &removed {
        header.remove_header(name);
    }
    for (name, value) in set {
        header.insert_header(name, value)?;
    }
    Ok(())
}

/// Listens to a client that is still sending after it was answered.
pub(super) async fn linger(session: &mut Session) {
    let listening = async {
        let mut heard = 0;
        loop {
            if heard > LINGER_BYTES {
                tokio::time::sleep(LINGER_PAUSE).await;
            }
            match session.as_downstream_mut().read_request_body().await {
                Ok(Some(piece)) => heard += piece.len(),
                Ok(None) => return true,
                Err(error) => {
                    if failure::is_goodbye(&error.into_down()) {
                        resets::seen();
                    }
                    return false;
                }
            }
        }
    };
    let whole = tokio::time::timeout(LINGER, listening).await;
    if !whole.unwrap_or_default() {
        // What it goes on to send must not be taken for its next request.
        session.set_keepalive(None);
    }
}
