//! The life of a request, step by step: the order of policy is read here.
//!
//! [`EdgeProxy::admit`] asks the filters and the site in turn; what they answer or refuse is sent
//! by [`EdgeProxy::reply`], and everything else is handed to Pingora to be streamed. Nothing is
//! decided here that a filter, the site or the upstream could decide.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::auth::{Hashing, identity};
use crate::context::Context;
use crate::filter::forwarded::Origin;
use crate::filter::host::Host;
use crate::filter::response_headers::{self, REQUEST_ID};
use crate::filter::{Decision, Edits, acme_challenge, https_redirect, limits, registry};
use crate::in_flight::InFlight;
use crate::listener::{HeadRead, Kept};
use crate::request_body::{RequestBody, TooLarge};
use crate::respond::{Audience, Rejection, Reply, protocol};
use crate::state::Current;
use crate::telemetry::access_log::{Entry, Fault};

/// How long a client that is still sending is listened to after it was answered, so that it sees
/// the answer before the connection ends.
const LINGER: Duration = Duration::from_millis(500);

/// What is read at full speed in that time; all else only a piece at a time.
const LINGER_BYTES: usize = 64 << 10;

/// How long to wait between those pieces: a flood costs next to nothing.
const LINGER_PAUSE: Duration = Duration::from_millis(10);

/// The edge as Pingora sees it.
pub(crate) struct EdgeProxy {
    pub(crate) current: Arc<Current>,
    pub(crate) hashing: Arc<Hashing>,
    pub(crate) requests: Arc<InFlight>,
    /// The port that plain requests are redirected to.
    pub(crate) https_port: u16,
}

impl EdgeProxy {
    /// Asks everyone who has a say, in this order.
    async fn admit(&self, session: &Session, ctx: &mut Context) -> Decision {
        let parts: &http::request::Parts = session.req_header();
        let state = Arc::clone(&ctx.state);
        if oci::Route::covers(parts.uri.path()) {
            // Until the site is known, a path like the API's is taken for it.
            ctx.audience = Audience::RegistryClient;
        }
        if let decided @ (Decision::Answer(_) | Decision::Refuse(_)) =
            limits::check(parts, &state.limits)
        {
            return decided;
        }
        let host = match Host::of(parts) {
            Ok(host) => host,
            Err(rejection) => return Decision::Refuse(rejection),
        };
        let host = &*ctx.host.insert(host);
        let site = state.sites.select(host);
        if !over_tls(session) {
            let known = site.map(|_site| host);
            return plain(parts, known, &state.challenges, self.https_port);
        }
        let Some(site) = site else {
            return Decision::Refuse(Rejection::UnknownHost);
        };
        ctx.site = Some(Arc::clone(site));
        ctx.audience = site.audience(parts.uri.path());
        if site.upstream.is_registry()
            && let decided @ (Decision::Answer(_) | Decision::Refuse(_)) = registry::admit(parts)
        {
            return decided;
        }
        match site.authenticate(&parts.headers, &self.hashing).await {
            Ok(principal) => ctx.principal = principal,
            Err(rejection) => return Decision::Refuse(rejection),
        }
        if site.upstream.is_registry()
            && let Err(rejection) = registry::route(parts)
        {
            return Decision::Refuse(rejection);
        }
        // An upstream that talks back while it is being sent to must not wait for us.
        ctx.body = RequestBody::new(site.max_body_size, site.upstream.is_registry());
        match ctx.body.announce(content_length(parts)) {
            Ok(()) => Decision::Continue,
            Err(TooLarge { max }) => Decision::Refuse(Rejection::BodyTooLarge { max }),
        }
    }

    /// Sends a reply of our own, whatever the client is still sending.
    async fn reply(&self, session: &mut Session, ctx: &Context, reply: Reply) -> Result<()> {
        let mut header = ResponseHeader::build(reply.status, Some(reply.headers.len() + 3))?;
        for (name, value) in reply.headers {
            header.append_header(name, value)?;
        }
        header.insert_header(REQUEST_ID, ctx.request_id.clone())?;
        if reply.status != StatusCode::NO_CONTENT {
            header.set_content_length(reply.body.len())?;
        }
        let sends = !session.is_body_done();
        let head = session.req_header();
        // One that waits for a `100 Continue` may send its body now, or not: who can tell?
        let unclear = head.headers.contains_key(EXPECT);
        let long = content_length(head) > LINGER_BYTES as u64;
        if sends && (unclear || long) || self.is_draining(session) {
            session.set_keepalive(None);
        }
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

    fn is_draining(&self, session: &Session) -> bool {
        session.is_process_shutting_down()
    }
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
            Some(SocketAddr::Inet(address)) => Some(address.ip()),
            Some(SocketAddr::Unix(_)) | None => None,
        };
        let headers = &session.req_header().headers;
        ctx.origin = peer.map(|peer| Origin::of(headers, peer, &ctx.state.trusted_proxies));
        if ctx.origin.is_some_and(|origin| origin.is_trusted())
            && let Some(id) = headers.get(REQUEST_ID)
            && id.len() <= 128
        {
            ctx.request_id = id.clone();
        }
        let downstream = session.as_downstream_mut();
        // Pingora would wait for the next request for ever. `None` means that this is the last.
        if downstream.get_keepalive().is_some() {
            downstream.set_keepalive(Some(limits.keepalive_timeout.as_secs().max(1)));
        }
        downstream.set_read_timeout(Some(limits.read_timeout));
        // A `100 Continue` that passes through must not make the final reply say `close`; what a
        // refused client still sends is read for a moment instead.
        downstream.set_close_on_response_before_downstream_finish(false);
        downstream.set_total_drain_timeout(Some(LINGER));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let reply = match self.admit(session, ctx).await {
            Decision::Continue => return Ok(false),
            Decision::Answer(reply) => reply,
            Decision::Refuse(rejection) => rejection.reply(ctx.audience),
        };
        self.reply(session, ctx, reply).await?;
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
                attempt.started = Some(std::time::Instant::now());
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
        let mut edits = Edits::default();
        let parts: &http::request::Parts = session.req_header();
        if let Some(origin) = &ctx.origin {
            let host = ctx.host.as_ref().map_or("", Host::authority);
            origin.tell(parts, scheme(session), host, &mut edits);
        }
        if let Some(site) = &ctx.site {
            let terms = identity::Terms {
                registry: site.upstream.is_registry(),
                authenticated_here: site.authenticates(),
            };
            identity::set_or_strip(parts, &ctx.principal, terms, &mut edits);
        }
        edits.set(REQUEST_ID, ctx.request_id.clone());
        if parts.version == Version::HTTP_2 {
            // There is no way to pass a `100 Continue` on, so nobody shall wait for one.
            edits.remove(EXPECT);
        }
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
        match ctx.body.pass(body.take(), last) {
            Ok(piece) => *body = piece,
            Err(TooLarge { max }) => {
                ctx.rejection = Some(Rejection::BodyTooLarge { max });
                return Err(
                    Error::explain(ErrorType::HTTPStatus(413), "body too large").into_down()
                );
            }
        }
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
            return Ok(());
        }
        let attempt = &mut ctx.attempt;
        attempt.answered_after = attempt.started.map(|started| started.elapsed());
        let (removed, set) = response_headers::edits(ctx.is_api(), &ctx.request_id).into_parts();
        for name in &removed {
            response.remove_header(name);
        }
        for (name, value) in set {
            response.insert_header(name, value)?;
        }
        if self.is_draining(session) {
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
        let fault = fault(error);
        ctx.fault = Some(fault);
        let answered = session
            .response_written()
            .is_some_and(|response| !response.status.is_informational() || session.was_upgraded());
        tracing::debug!(request_id = ?ctx.request_id, %error, "request failed");
        let rejection = ctx.rejection.take().or_else(|| rejection(error, fault));
        let mut error_code = 0;
        // A reply that has begun can only be cut: the client sees that it is not whole.
        if !answered && let Some(rejection) = rejection {
            let reply = rejection.reply(ctx.audience);
            error_code = reply.status.as_u16();
            session.set_keepalive(None);
            if let Err(error) = self.reply(session, ctx, reply).await {
                tracing::debug!(%error, "the client did not wait for the reply");
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
        let status = match session.response_written() {
            Some(response) => response.status.as_u16(),
            // As nginx writes it: the client went away before there was anything to tell it.
            None => 499,
        };
        let fault = error.map(fault).or(ctx.fault);
        // A client that goes away needs no explanation.
        let cause = error
            .filter(|_| fault != Some(Fault::Downstream))
            .map(cause);
        Entry {
            client: ctx.client(),
            site: ctx.site.as_ref().map(|site| &*site.name),
            principal: ctx.principal.name(),
            protocol: protocol(head.version),
            method: head.method.as_str(),
            path: head.uri.path(),
            status,
            bytes_in: session.body_bytes_read(),
            bytes_out: session.body_bytes_sent(),
            duration: ctx.started.elapsed(),
            upstream: ctx.attempt.answered_after,
            fault,
            error: cause.as_deref(),
            request_id: ctx.request_id.to_str().unwrap_or_default(),
        }
        .emit();
    }
}

/// What a plain listener says: a challenge's answer, or the way to TLS.
fn plain(
    parts: &http::request::Parts,
    host: Option<&Host>,
    challenges: &acme_challenge::Challenges,
    https_port: u16,
) -> Decision {
    let answer = acme_challenge::answer(parts, challenges);
    match (answer, host) {
        (decided @ (Decision::Answer(_) | Decision::Refuse(_)), _) => decided,
        (Decision::Continue, Some(host)) => https_redirect::redirect(parts, host, https_port),
        (Decision::Continue, None) => Decision::Refuse(Rejection::UnknownHost),
    }
}

/// Listens to a client that is still sending after it was answered.
async fn linger(session: &mut Session) {
    let listening = async {
        let mut heard = 0;
        loop {
            if heard > LINGER_BYTES {
                tokio::time::sleep(LINGER_PAUSE).await;
            }
            match session.as_downstream_mut().read_request_body().await {
                Ok(Some(piece)) => heard += piece.len(),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    };
    let whole = tokio::time::timeout(LINGER, listening).await;
    if !whole.unwrap_or_default() {
        // What it goes on to send must not be taken for its next request.
        session.set_keepalive(None);
    }
}

fn content_length(parts: &http::request::Parts) -> u64 {
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

fn fault(error: &Error) -> Fault {
    match error.esource() {
        ErrorSource::Downstream => Fault::Downstream,
        ErrorSource::Upstream => Fault::Upstream,
        ErrorSource::Internal | ErrorSource::Unset => Fault::Internal,
    }
}

/// Says what went wrong in a few words; Pingora's own would quote what was received.
fn cause(error: &Error) -> String {
    let root = error.root_cause();
    if root.is::<Box<Error>>() || root.is::<Error>() {
        error.etype().as_str().to_owned()
    } else {
        format!("{}: {root}", error.etype().as_str())
    }
}

/// Returns what the client is told of an error, if it is still there to be told.
fn rejection(error: &Error, fault: Fault) -> Option<Rejection> {
    use ErrorType as T;
    Some(match (fault, error.etype()) {
        (Fault::Downstream, T::ReadTimedout) => Rejection::Timeout,
        (
            Fault::Downstream,
            T::ConnectionClosed | T::ReadError | T::WriteError | T::WriteTimedout | T::H2Error,
        ) => {
            return None;
        }
        (Fault::Downstream, _) => Rejection::BadRequest,
        (
            Fault::Upstream,
            T::ConnectTimedout
            | T::ConnectRefused
            | T::ConnectNoRoute
            | T::ConnectError
            | T::BindError
            | T::SocketError,
        ) => Rejection::UpstreamUnreachable,
        (Fault::Upstream, T::ReadTimedout | T::WriteTimedout) => Rejection::UpstreamTimeout,
        (Fault::Upstream, _) => Rejection::UpstreamFailed,
        (Fault::Internal, _) => Rejection::Internal,
    })
}
