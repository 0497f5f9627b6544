//! The reply to a connection that gets no further than to its first request.

use std::net::SocketAddr;
use std::time::Instant;

use http::Method;
use http::request::Parts;
use instruments::RouteClass;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use crate::filter::host::Host;
use crate::respond::Reply;
use crate::telemetry::access_log::{Asked, Entry};

/// Sends a reply to the request that was read, ends the connection, and writes the access log's line.
pub(super) async fn send(
    mut session: ServerSession,
    client: SocketAddr,
    started: Instant,
    reply: Reply,
    because: Option<&str>,
) {
    session.set_keepalive(None);
    let (status, len) = (reply.status.as_u16(), reply.body.len());
    // A client that does not wait for it is not waited for either.
    let sent = write(&mut session, reply).await.is_ok();
    let head: &Parts = session.req_header();
    let host = Host::of(head).ok();
    Entry {
        client: Some(client.ip().to_canonical()),
        asked: Asked::of(head, host.as_ref().map(Host::name)),
        site: None,
        principal: None,
        login: None,
        admitted: false,
        class: RouteClass::Other,
        status: if sent { status } else { 499 },
        route: None,
        digest: None,
        bytes_in: 0,
        bytes_out: if sent { len } else { 0 },
        duration: started.elapsed(),
        upstream: None,
        because,
        denied: None,
        fault: None,
        error: None,
        request_id: "",
    }
    .emit();
}

async fn write(session: &mut ServerSession, reply: Reply) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(reply.status, Some(reply.headers.len() + 1))?;
    for (name, value) in reply.headers {
        header.append_header(name, value)?;
    }
    header.set_content_length(reply.body.len())?;
    session.write_response_header(Box::new(header)).await?;
    if !reply.body.is_empty() && session.req_header().method != Method::HEAD {
        session.write_response_body(reply.body, true).await?;
    }
    session.finish_body().await
}
