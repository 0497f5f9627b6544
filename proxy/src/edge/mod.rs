//! The life of a request, step by step.
//!
//! [`EdgeProxy::admit`] asks everyone who has a say, in the order of [`policy`]; what they answer or
//! refuse is sent by [`answer::send`], and everything else is streamed: to the registry by [`relay`],
//! to other upstreams by Pingora. Nothing is decided here that a filter, the site or the upstream
//! could decide.

mod answer;
mod body;
mod desk;
mod failure;
pub(crate) mod health;
mod policy;
mod relay;

pub(crate) use relay::{Wires, ask};

use std::any::Any;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use oci::Route;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use self::health::Health;
use self::policy::Way;
use self::relay::DIGEST;
use crate::auth::{Attempts, Hashing, identity};
use crate::context::Context;
use crate::filter::forwarded::Origin;
use crate::filter::host::Host;
use crate::filter::response_headers::REQUEST_ID;
use crate::filter::{Decision, Edits, Refused, guarded, http2};
use crate::in_flight::InFlight;
use crate::limits::quota::Ledger;
use crate::limits::resets;
use crate::limits::transfers::Transfers;
use crate::listener::{HeadRead, Kept};
use crate::refusals::count_denial;
use crate::respond::Rejection;
use crate::state::Current;
use crate::telemetry::access_log::{Asked, Entry, Fault};

/// The longest request id that is taken over from a proxy.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The edge as Pingora sees it.
pub(crate) struct EdgeProxy {
    pub(crate) current: Arc<Current>,
    pub(crate) hashing: Arc<Hashing>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) requests: Arc<InFlight>,
    pub(crate) health: Health,
    /// The short way to the registry.
    pub(crate) wires: Wires,
    /// What the streams of HTTP/2 connections hold.
    pub(crate) transfers: Arc<Transfers>,
    /// The port that plain requests are redirected to.
    pub(crate) https_port: u16,
}

#[async_trait]
impl ProxyHttp for EdgeProxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.current.take(), self.requests.enter())
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // Pingora's default would be compression: a blob's bytes are what its digest says.
    }

    fn persist_connection_context(
        &self,
        _session: &Session,
        _ctx: &Context,
    ) -> Option<Box<dyn Any + Send + Sync>> {
        Some(Box::new(Kept))
    }

    fn on_connection_reuse(
        &self,
        _session: &mut Session,
        _ctx: &mut Context,
        carried: Box<dyn Any + Send + Sync>,
    ) {
        if let Ok(head) = carried.downcast::<HeadRead>() {
            head.done();
        }
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let limits = ctx.state.limits;
        let peer = match session.client_addr() {
            Some(SocketAddr::Inet(address)) => address.ip(),
            // A client that is gone already is nobody whose word counts.
            Some(SocketAddr::Unix(_)) | None => Ipv4Addr::UNSPECIFIED.into(),
        };
        let headers = &session.req_header().headers;
        let origin = Origin::of(headers, peer, &ctx.state.trusted_proxies);
        if origin.is_trusted()
            && let Some(id) = headers.get(REQUEST_ID)
            && id.len() <= REQUEST_ID_BYTES_MAX
        {
            ctx.request_id = id.clone();
        }
        ctx.origin = Some(origin);
        let downstream = session.as_downstream_mut();
        // Pingora would wait for the next request for ever. `None` means that this is the last.
        if downstream.get_keepalive().is_some() {
            downstream.set_keepalive(Some(limits.keepalive_timeout.as_secs().max(1)));
        }
        downstream.set_read_timeout(Some(limits.read_timeout));
        if downstream.is_http2() {
            // A stream that may not be sent on is no matter of the kernel's: it minds HTTP/1 alone.
            downstream.set_write_timeout(Some(limits.write_timeout));
        }
        // A `100 Continue` that passes through must not make the final reply say `close`; what a
        // refused client still sends is read for a moment instead.
        downstream.set_close_on_response_before_downstream_finish(false);
        downstream.set_total_drain_timeout(Some(answer::LINGER));
        // A second request sent behind the first is no mistake (RFC 9112, section 9.3.2).
        downstream.set_pipelining_enabled(true);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        // In memory of its own: a reply may take hours, and there can be thousands of them.
        let way = Box::pin(self.admit(session, ctx)).await;
        ctx.admitted = matches!(way, Ok(Way::Desk(_) | Way::Upstream));
        let decided = match way {
            Ok(Way::Upstream) => {
                let site = ctx.site.clone();
                return match site.as_ref().and_then(|site| site.upstream.socket()) {
                    Some(socket) => self.relay(socket, session, ctx).await.map(|()| true),
                    None => Ok(false),
                };
            }
            Ok(Way::Desk(page)) => Box::pin(self.serve(page, session, ctx))
                .await
                .map(Decision::Answer),
            Ok(Way::Health(probe)) => match ctx.site.clone() {
                Some(site) => {
                    let answer = Box::pin(self.health.answer(probe, &site)).await;
                    Ok(Decision::Answer(answer))
                }
                None => Err(Rejection::NotFound.into()),
            },
            Err(decision) => Err(decision),
        };
        let reply = match decided.unwrap_or_else(|decision| decision) {
            Decision::Answer(reply) => reply,
            Decision::Refuse(Refused {
                rejection,
                because,
                login,
            }) => {
                if rejection == Rejection::Denied {
                    count_denial(because.as_deref().unwrap_or_default());
                }
                ctx.because = because;
                ctx.login = login.filter(|_| ctx.state.logs_login_names);
                rejection.reply(ctx.audience)
            }
        };
        Box::pin(answer::send(session, ctx, reply)).await?;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        let attempt = &mut ctx.attempt;
        let peer = ctx.site.as_ref().and_then(|site| {
            if attempt.started.is_none() {
                attempt.started = Some(Instant::now());
                attempt.turn = site.upstream.turn();
            }
            site.upstream.peer(attempt.turn, attempt.tries)
        });
        attempt.tries += 1;
        peer.map(Box::new).ok_or_else(|| {
            Error::explain(ErrorType::InternalError, "a request without an upstream")
        })
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Nothing of the request has been sent, so any other address may have it.
        let others = ctx
            .site
            .as_ref()
            .map_or(0, |site| site.upstream.peer_count());
        error.set_retry(ctx.attempt.tries < others);
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        _ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("peer: {peer}"));
        // A second try is safe when the first did nothing: it asked only, sent no body, and met a
        // kept connection that was gone.
        let asks = session.req_header().method.is_safe();
        if asks && session.is_body_empty() && session.response_written().is_none() {
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        body::begin(session, ctx);
        let mut edits = Edits::default();
        let parts: &Parts = session.req_header();
        let trusted = ctx.origin.is_some_and(|origin| origin.is_trusted());
        guarded::strip(&parts.headers, trusted, &mut edits);
        if let Some(origin) = &ctx.origin {
            let host = ctx.host.as_ref().map_or("", Host::authority);
            origin.tell(parts, scheme(session), host, &mut edits);
        }
        if let Some(site) = &ctx.site {
            let terms = identity::Terms {
                registry: site.upstream.is_registry(),
                authenticated_here: site.authenticates(),
            };
            identity::tell(&ctx.principal, terms, &mut edits);
        }
        if let Some(visible) = &ctx.admission.visible {
            edits.set(identity::CATALOG, identity::catalog(visible));
        }
        edits.set(REQUEST_ID, ctx.request_id.clone());
        http2::translate(parts, &mut edits);
        let (removed, set) = edits.into_parts();
        for name in &removed {
            request.remove_header(name);
        }
        for (name, value) in set {
            request.insert_header(name, value)?;
        }
        if !request.raw_path().starts_with(b"/") && request.uri.path().starts_with('/') {
            // `GET http://host/path`: a server behind a proxy expects the path alone.
            request.set_uri(request.uri.clone());
        }
        if let Some(target) = ctx.admission.target.take() {
            request.set_uri(target.into());
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        last: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        if session.was_upgraded() {
            return Ok(());
        }
        body::arrived(body.as_ref(), last, ctx)?;
        // An empty last piece would be written as the chunk that ends a body, before the end itself.
        let piece = body.take().filter(|piece| !(last && piece.is_empty()));
        *body = piece.map(|piece| body::passed_on(piece, ctx));
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
        {
            if let Some(pace) = &ctx.pace {
                // It may have waited for this.
                pace.forgive(Instant::now());
            }
            return Ok(());
        }
        let attempt = &mut ctx.attempt;
        attempt.answered_after = attempt.started.map(|started| started.elapsed());
        if let Some((site, begun)) = ctx.site.as_ref().zip(attempt.started) {
            site.upstream.outage.answered(begun);
        }
        answer::mark(response, ctx)?;
        if session.is_process_shutting_down() {
            session.set_keepalive(None);
        }
        if response.status.is_server_error() {
            ctx.fault = Some(Fault::Upstream);
        }
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let fault = failure::fault(error);
        ctx.fault = Some(fault);
        let answered = answered(session).is_some();
        let cause = failure::cause(error, ctx);
        tracing::debug!(request_id = ?ctx.request_id, error = %cause, "request failed");
        if let (false, Some(site), Some(loss)) = (answered, &ctx.site, failure::loss(error)) {
            site.upstream.outage.failed(loss, &cause);
        }
        let rejection = ctx
            .rejection
            .take()
            .or_else(|| failure::rejection(error, fault));
        let mut error_code = 0;
        // A reply that has begun can only be cut: the client sees that it is not whole.
        if !answered && let Some(rejection) = rejection {
            let reply = rejection.reply(ctx.audience);
            error_code = reply.status.as_u16();
            session.set_keepalive(None);
            if let Err(error) = answer::send(session, ctx, reply).await {
                let cause = failure::cause(&error, ctx);
                tracing::debug!(error = %cause, "the client did not wait for the reply");
            }
        }
        FailToProxy {
            error_code,
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        // Said once, in the access log.
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        let head = session.req_header();
        let status = match answered(session) {
            Some(response) => response.status.as_u16(),
            // As nginx writes it: the client went away before there was anything to tell it.
            None => 499,
        };
        if error.is_some_and(failure::is_goodbye) {
            resets::seen();
        }
        let fault = error.map(failure::fault).or(ctx.fault);
        // A client that goes away needs no explanation.
        let cause = error
            .filter(|_| fault != Some(Fault::Downstream))
            .map(|error| failure::cause(error, ctx));
        // What was refused is named, too.
        let admitted = ctx.admission.route.take();
        let refused = || Route::parse(head.uri.path()).ok().filter(|_| ctx.is_api());
        let route = admitted.or_else(refused);
        let digest = answered(session).and_then(|reply| reply.headers.get(DIGEST));
        Entry {
            client: ctx.client(),
            asked: Asked::of(head, ctx.host.as_ref().map(Host::name)),
            site: ctx.site.as_ref().map(|site| &*site.name),
            principal: ctx.principal.name(),
            login: ctx.login.as_deref(),
            admitted: ctx.admitted,
            class: ctx.route_class(head.uri.path()),
            status,
            route: route.as_ref(),
            digest: digest.and_then(|digest| digest.to_str().ok()),
            bytes_in: session.body_bytes_read(),
            bytes_out: session.body_bytes_sent() + ctx.body_bytes_sent,
            duration: ctx.started.elapsed(),
            upstream: ctx.attempt.answered_after,
            because: ctx.because.as_deref(),
            denied: ctx.denied.as_deref(),
            fault,
            error: cause.as_deref(),
            request_id: ctx.request_id.to_str().unwrap_or_default(),
        }
        .emit();
    }
}

/// Returns what the client was answered: to be told to go on is no answer.
fn answered(session: &Session) -> Option<&ResponseHeader> {
    let written = session.response_written();
    written.filter(|response| !response.status.is_informational() || session.was_upgraded())
}

fn content_length(parts: &Parts) -> u64 {
    let length = parts.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or_default()
}

fn over_tls(session: &Session) -> bool {
    session
        .digest()
        .is_some_and(|digest| digest.ssl_digest.is_some())
}

fn scheme(session: &Session) -> &'static str {
    if over_tls(session) { "https" } else { "http" }
}
