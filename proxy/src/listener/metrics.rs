//! The door of those who watch: `GET /metrics`, `/healthz` and `/readyz` in plain HTTP, on an address of
//! its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::accept::EXHAUSTED;
use super::buffered::Buffers;
use super::figures;
use super::socket::Socket;
use crate::edge::health::{Health, Probe};
use crate::state::Current;
use crate::telemetry::exposition::Format;
use crate::telemetry::metrics::Metrics;

/// For a connection as a whole: it carries one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than watch at once on any machine.
static PLACES: Semaphore = Semaphore::const_new(16);

/// The text is some ten kilobytes.
const BUFFERS: Buffers = Buffers {
    read: 4 << 10,
    write: 16 << 10,
};

/// What can be told.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) current: Arc<Current>,
    pub(crate) health: Health,
    pub(crate) metrics: Arc<Metrics>,
}

/// How long an edge that is stopping leaves a connection to its successor.
const AFTER_OTHERS: Duration = Duration::from_millis(100);

/// Answers whoever may ask, for ever.
pub(crate) async fn tell(socket: TcpListener, known: Known) {
    let mut stop = known.health.stop.clone();
    loop {
        let accepted = tokio::select! {
            () = is_true(&mut stop) => accept_after_others(&socket).await,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Ok(place) = PLACES.try_acquire()
                    && may_ask(&known.current, peer.ip())
                {
                    let known = known.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        // Who does not wait for the answer does not need it.
                        drop(timeout(PATIENCE, answer(stream, peer, known)).await);
                    });
                }
            }
            Err(error) => {
                tracing::debug!(%error, "nobody can ask for metrics");
                sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn is_true(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to stop it, which is to stop it.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Accepts a connection that nobody else has taken for a while: a successor may have the same socket, and
/// its answer is the one that counts.
async fn accept_after_others(socket: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        sleep(AFTER_OTHERS).await;
        let now = Timespec::default();
        if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&now))? == 0 {
            continue;
        }
        sleep(AFTER_OTHERS).await;
        if let Ok(accepted) = timeout(Duration::ZERO, socket.accept()).await {
            return accepted;
        }
    }
}

fn may_ask(current: &Current, peer: IpAddr) -> bool {
    let state = current.load();
    let admitted = state.metrics.admit(peer);
    if let Err(list) = admitted {
        let list = list.key();
        tracing::debug!(client = %peer, because = %format_args!("metrics.{list}"), "connection refused");
    }
    admitted.is_ok()
}

async fn answer(stream: TcpStream, peer: SocketAddr, known: Known) -> pingora::Result<()> {
    let mut socket = Socket::new(stream, BUFFERS);
    socket.set_client(peer);
    let mut session = ServerSession::new_http1(Box::new(socket));
    if !session.read_request().await? {
        return Ok(());
    }
    session.set_keepalive(None);
    let (status, media_type, text) = page(session.req_header(), &known).await;
    let mut header = ResponseHeader::build(status, Some(3))?;
    header.set_content_length(text.len())?;
    header.insert_header(CONTENT_TYPE, media_type)?;
    let has_body = session.req_header().method != Method::HEAD;
    session.write_response_header(Box::new(header)).await?;
    if has_body {
        session.write_response_body(Bytes::from(text), true).await?;
    }
    session.finish().await?;
    Ok(())
}

async fn page(head: &Parts, known: &Known) -> (StatusCode, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    if let Some(probe) = Probe::of(head) {
        let (status, text) = known.health.explain(probe).await;
        return (status, TEXT, text);
    }
    if head.method != Method::GET || head.uri.path() != "/metrics" {
        return (StatusCode::NOT_FOUND, TEXT, String::new());
    }
    let format = Format::of(&head.headers);
    let state = known.current.take();
    match figures::text(&state, &known.metrics, format).await {
        Some(text) => (StatusCode::OK, format.media_type(), text),
        None => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, String::new()),
    }
}
