//! The door of those who count: `GET /metrics` in plain HTTP, on an address of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::accept::EXHAUSTED;
use super::buffered::Buffers;
use super::socket::Socket;
use crate::state::Current;
use crate::telemetry::metrics::{MEDIA_TYPE, Metrics};

/// For a connection as a whole: it carries one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than count at once on any machine.
static PLACES: Semaphore = Semaphore::const_new(16);

/// The text is a few kilobytes.
const BUFFERS: Buffers = Buffers {
    read: 4 << 10,
    write: 16 << 10,
};

/// Answers whoever may ask, for ever.
pub(crate) async fn tell(socket: TcpListener, current: Arc<Current>, metrics: Arc<Metrics>) {
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                if let Ok(place) = PLACES.try_acquire()
                    && may_ask(&current, peer.ip())
                {
                    let metrics = Arc::clone(&metrics);
                    tokio::spawn(async move {
                        let _place = place;
                        // Who does not wait for the answer does not need it.
                        drop(timeout(PATIENCE, answer(stream, peer, metrics)).await);
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

fn may_ask(current: &Current, peer: IpAddr) -> bool {
    let state = current.load();
    let admitted = state.metrics.admit(peer);
    if let Err(list) = admitted {
        let list = list.key();
        tracing::debug!(client = %peer, because = %format_args!("metrics.{list}"), "connection refused");
    }
    admitted.is_ok()
}

async fn answer(stream: TcpStream, peer: SocketAddr, metrics: Arc<Metrics>) -> pingora::Result<()> {
    let mut socket = Socket::new(stream, BUFFERS);
    socket.set_client(peer);
    let mut session = ServerSession::new_http1(Box::new(socket));
    if !session.read_request().await? {
        return Ok(());
    }
    session.set_keepalive(None);
    let head = session.req_header();
    let asked = head.method == Method::GET && head.uri.path() == "/metrics";
    let text = if asked {
        let text = spawn_blocking(move || metrics.text()).await;
        text.ok().and_then(Result::ok)
    } else {
        None
    };
    let status = match (asked, &text) {
        (false, _) => StatusCode::NOT_FOUND,
        (true, None) => StatusCode::INTERNAL_SERVER_ERROR,
        (true, Some(_)) => StatusCode::OK,
    };
    let text = text.unwrap_or_default();
    let mut header = ResponseHeader::build(status, Some(3))?;
    header.set_content_length(text.len())?;
    if asked {
        header.insert_header(CONTENT_TYPE, MEDIA_TYPE)?;
    }
    session.write_response_header(Box::new(header)).await?;
    session.write_response_body(Bytes::from(text), true).await?;
    session.finish().await?;
    Ok(())
}
