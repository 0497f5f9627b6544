//! A request's body on its way upstream: its size, its pace, its pieces.

use std::time::Instant;

use bytes::Bytes;
use http::header::USER_AGENT;
use oci::Route;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use crate::context::Context;
use crate::filter::host::Host;
use crate::limits::pace::{Pace, UnderWay};
use crate::respond::{Rejection, protocol};
use crate::telemetry::access_log::{Asked, Entry, Fault};

/// What the log says of a client that sends too slowly.
const TOO_SLOW: &str = "limits.min_body_rate";

/// Waits for the body from now on.
pub(super) fn begin(session: &mut Session, ctx: &mut Context) {
    if session.is_body_done() {
        return;
    }
    let limits = &ctx.state.limits;
    let watched = Pace::watched();
    if let Some(pace) = &watched {
        pace.on_cut(farewell(session, ctx));
    }
    let pace = watched.unwrap_or_else(|| Pace::new(limits.read_timeout, limits.min_body_rate));
    pace.begin(Instant::now());
    ctx.pace = Some(pace);
}

/// Takes down a piece that has come.
pub(super) fn arrived(piece: Option<&Bytes>, last: bool, ctx: &mut Context) -> Result<()> {
    if let Some(pace) = &ctx.pace
        && pace
            .arrived(Instant::now(), piece.map_or(0, Bytes::len), last)
            .is_err()
    {
        ctx.rejection = Some(Rejection::Timeout);
        ctx.because = Some(TOO_SLOW.into());
        return Err(Error::explain(ErrorType::HTTPStatus(408), "body too slow").into_down());
    }
    if let Err(too_large) = ctx.body.pass(piece) {
        ctx.rejection = Some(too_large.into());
        return Err(Error::explain(ErrorType::HTTPStatus(413), "body too large").into_down());
    }
    Ok(())
}

/// Marks a piece as on its way, until it is dropped: so long nobody waits for the client.
pub(super) fn passed_on(piece: Bytes, ctx: &Context) -> Bytes {
    match &ctx.pace {
        Some(pace) => pace.passed_on(piece),
        None => piece,
    }
}

/// Marks that something is on its way, until the mark is dropped.
pub(super) fn under_way(ctx: &Context) -> Option<UnderWay> {
    ctx.pace.as_ref().and_then(Pace::under_way)
}

/// Returns what writes the request's line when its stream is cut from outside, where nothing of the
/// session is left to ask.
fn farewell(session: &Session, ctx: &Context) -> impl FnOnce(usize) + Send + 'static {
    let head = session.req_header();
    let (version, method) = (head.version, head.method.clone());
    let path = head.uri.path().to_owned();
    let (host, user_agent) = (ctx.host.clone(), head.headers.get(USER_AGENT).cloned());
    let (client, site) = (ctx.client(), ctx.site.clone());
    let (principal, started) = (ctx.principal.clone(), ctx.started);
    let (class, request_id) = (ctx.route_class(&path), ctx.request_id.clone());
    let is_api = ctx.is_api();
    move |bytes_in| {
        Entry {
            client,
            asked: Asked {
                protocol: protocol(version),
                method: method.as_str(),
                host: host.as_ref().map(Host::name),
                path: &path,
                user_agent: user_agent.as_ref(),
            },
            site: site.as_ref().map(|site| &*site.name),
            principal: principal.name(),
            login: None,
            admitted: true,
            class,
            status: 408,
            route: Route::parse(&path).ok().filter(|_| is_api).as_ref(),
            digest: None,
            bytes_in,
            bytes_out: 0,
            duration: started.elapsed(),
            upstream: None,
            because: Some(TOO_SLOW),
            denied: None,
            fault: Some(Fault::Downstream),
            error: None,
            request_id: request_id.to_str().unwrap_or_default(),
        }
        .emit();
    }
}
