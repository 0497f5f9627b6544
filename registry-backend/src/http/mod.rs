//! HTTP over a Unix socket: connections in, requests to the [`router`], failures to the log.
//!
//! Nothing is decided here about blobs or tags. What the room does see to:
//! - what is at hand is answered at once, and nobody waits here for the disk;
//! - a change, once begun, is worked off to its end even when the client is gone, and one that only
//!   waits for its turn is given up;
//! - a body that nobody wants is read and dropped for a while, so that the client gets to the reply;
//! - what a client does not take is not held for it: a body is read or made as it leaves;
//! - each reply carries the version header, each failure is logged once;
//! - at the end, requests under way are finished.

mod blobs;
mod body;
mod bounds;
mod catalog;
mod client;
mod conditions;
mod disk;
mod error;
mod few_threads;
mod gate;
mod half;
mod handover;
mod health;
mod held;
mod inquiries;
mod lists;
mod manifest_body;
mod manifests;
mod metrics;
mod pages;
mod parts;
mod patience;
mod payload;
mod permits;
mod principal;
mod receive;
mod referrers;
mod reply;
mod router;
mod shelf;
mod socket;
mod stream;
mod tags;
mod threads;
mod uploads;

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::http::request::Parts;
use ::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use instruments::{Finished, Requests, RouteClass};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::app::{App, Error as AppError};
use crate::jobs::expire_uploads;
use body::Body;
use bounds::Bounds;
use client::Client;
use disk::Disk;
use error::Error;
use handover::Handover;
use inquiries::Inquiries;
use metrics::Sources;
use payload::Payload;
use permits::Permits;
use stream::Stream;

pub use permits::blocking_threads;
pub(crate) use socket::bind;

/// How long idle connections are still listened to once no new ones are taken: a request may be on its way
/// on one, whose client could not tell whether it was read.
const SETTLE: Duration = Duration::from_millis(500);

/// How long accepting rests when the system cannot give another connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves requests until `shutdown`; then finishes those under way, for as long as configured.
///
/// # Errors
/// [`AppError::Listen`] when the listener cannot be used.
pub(crate) async fn serve(
    listener: StdUnixListener,
    app: Arc<App>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AppError> {
    let listener = into_tokio(listener).map_err(|source| AppError::Listen {
        path: app.settings().config.listen.clone(),
        source,
    })?;
    let expiry = tokio::spawn(expire_uploads::run(Arc::clone(&app)));
    let (serving, mut ended) = Serving::new(Arc::clone(&app));
    let (stop, stopped) = watch::channel(false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => accept(&serving, stream, stopped.clone()),
                Err(error) => {
                    tracing::error!(
                        registry = app.registry.name(),
                        error = &error as &dyn std::error::Error,
                        "accept failed"
                    );
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    app.begin_to_drain();
    expiry.abort();
    let requests = serving.requests.load(Ordering::Relaxed);
    let registry = app.registry.name();
    tracing::info!(
        registry,
        requests,
        "stopping: waiting for requests under way"
    );
    drop(serving);
    let limit = app.settings().config.drain_timeout;
    let drained = async {
        // Where nobody is connected it is over at once.
        let settled = tokio::time::timeout(SETTLE, ended.recv()).await;
        stop.send_replace(true);
        if settled.is_err() {
            ended.recv().await;
        }
    };
    if tokio::time::timeout(limit, drained).await.is_err() {
        tracing::warn!(
            registry,
            limit_secs = limit.as_secs(),
            "stopped with requests still under way"
        );
    }
    Ok(())
}

fn into_tokio(listener: StdUnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn accept(serving: &Serving, stream: UnixStream, stopped: watch::Receiver<bool>) {
    let registry = serving.app.registry.name();
    match stream.peer_cred().map(|peer| peer.uid()) {
        Ok(uid) if serving.app.settings().allowed_uids.contains(&uid) => {
            tokio::spawn(connection(serving.clone(), stream, stopped));
        }
        Ok(uid) => tracing::warn!(
            registry,
            uid,
            "refused a connection: user not in registry.allow_users"
        ),
        Err(error) => tracing::error!(
            registry,
            error = &error as &dyn std::error::Error,
            "refused a connection: its user is not known"
        ),
    }
}

/// What connections and requests hold while they are under way.
#[derive(Clone, Debug)]
struct Serving {
    app: Arc<App>,
    permits: Arc<Permits>,
    /// How much replies may take.
    bounds: Arc<Bounds>,
    /// How many requests are under way.
    requests: Arc<AtomicUsize>,
    /// Those that are over.
    finished: Arc<Requests>,
    inquiries: Arc<Inquiries>,
    /// Dropped with the last connection and request; nothing is ever sent.
    _alive: mpsc::Sender<Infallible>,
}

impl Serving {
    fn new(app: Arc<App>) -> (Self, mpsc::Receiver<Infallible>) {
        let (alive, ended) = mpsc::channel(1);
        let sources = Sources {
            permits: Arc::new(Permits::new()),
            bounds: Arc::default(),
            disk: Arc::new(Disk::new(&app.registry)),
            requests: Arc::default(),
            under_way: Arc::default(),
            app: Arc::clone(&app),
        };
        let serving = Self {
            app,
            permits: Arc::clone(&sources.permits),
            bounds: Arc::clone(&sources.bounds),
            requests: Arc::clone(&sources.under_way),
            finished: Arc::clone(&sources.requests),
            inquiries: Arc::new(Inquiries::new(sources)),
            _alive: alive,
        };
        (serving, ended)
    }
}

/// Counts a request from its head to the last byte of the reply.
#[derive(Debug)]
struct UnderWay {
    serving: Serving,
    begun: Instant,
    route: RouteClass,
    method: Method,
    /// What it is answered with; `None` for what is not counted.
    status: Option<StatusCode>,
}

impl UnderWay {
    fn new(serving: Serving, request: &Request<Incoming>) -> Self {
        serving.requests.fetch_add(1, Ordering::Relaxed);
        Self {
            serving,
            begun: Instant::now(),
            route: RouteClass::of(request.uri().path()),
            method: request.method().clone(),
            // What a panic is answered with.
            status: Some(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.serving.requests.fetch_sub(1, Ordering::Relaxed);
        if let Some(status) = self.status {
            self.serving.finished.count(Finished {
                route: self.route,
                method: self.method.as_str(),
                status: status.as_u16(),
                duration: self.begun.elapsed(),
            });
        }
    }
}

/// Serves one connection until the client closes it or, between two requests, `stopped` says so.
async fn connection(serving: Serving, stream: UnixStream, mut stopped: watch::Receiver<bool>) {
    let handover = Handover::default();
    let (inbox, outbox) = handover.boxes();
    let stream = Stream::new(stream, inbox, outbox);
    let service = service_fn(|request: Request<Incoming>| {
        let under_way = UnderWay::new(serving.clone(), &request);
        let (parts, payload, wishes) = handover.open(request);
        // A task of its own: hyper drops what a client does not wait for, and half a push is worse
        // than a whole one that nobody awaits.
        let (client, presence) = Client::new();
        let answer = tokio::spawn(answer(under_way, client, parts, payload));
        let handover = &handover;
        async move {
            // Dropped with this, when the client goes away.
            let _presence = presence;
            let response = answer.await;
            let response =
                response.unwrap_or_else(|_panic| last(versioned(Error::Panicked.reply())));
            Ok::<_, Infallible>(handover.enclose(wishes, response))
        }
    });
    let connection = http1::Builder::new()
        // The edge is the only client, and closing its idle connections would race with its next
        // request on them; so there is no timeout between requests.
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = is_true(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = result {
        // The client's doing, or a blob that cannot be read to its end, which was logged there.
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "connection ended early"
        );
    }
}

async fn is_true(value: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, and then there is nothing left to wait for.
    drop(value.wait_for(|value| *value).await);
}

async fn answer(
    mut under_way: UnderWay,
    client: Client,
    parts: Parts,
    mut payload: Payload,
) -> Response<Body> {
    let Serving {
        app,
        permits,
        bounds,
        inquiries,
        ..
    } = &under_way.serving;
    if let Some(response) = inquiries.answer(&parts).await {
        under_way.status = None;
        return response.map(|body| body.keeping(under_way));
    }
    let rights = router::Rights { permits, bounds };
    let response = match router::route(app, rights, &client, &parts, &mut payload).await {
        Ok(response) => response,
        Err(error) => {
            error.log(app.registry.name(), &parts);
            error.reply()
        }
    };
    under_way.status = Some(response.status());
    let goes_on = payload.leaves_room() && !app.is_draining();
    payload.discard(parts.headers.contains_key(header::EXPECT));
    let response = versioned(response).map(|body| body.keeping(under_way));
    if goes_on { response } else { last(response) }
}

/// Makes a reply the last one on its connection.
fn last(mut response: Response<Body>) -> Response<Body> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

fn versioned(mut response: Response<Body>) -> Response<Body> {
    let version = HeaderValue::from_static("registry/2.0");
    response
        .headers_mut()
        .insert("docker-distribution-api-version", version);
    response
}
