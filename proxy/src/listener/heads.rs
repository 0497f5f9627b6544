//! What is minded about each connection that HTTP is spoken on: its number, and the time that a
//! request's head may take.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

use super::SETTLE;
use crate::edge::EdgeProxy;
use crate::in_flight::InFlight;
use crate::limits::pace::Pace;
use crate::limits::resets::Resets;
use crate::limits::transfers::{Streams, Transfers};
use crate::state::Current;

/// Every connection: counted from its first byte to its last.
pub(crate) struct Connections {
    proxy: Arc<HttpProxy<EdgeProxy>>,
    current: Arc<Current>,
    open: Arc<InFlight>,
    transfers: Arc<Transfers>,
}

impl Connections {
    /// Serves connections with `proxy`, counting them in `open`, and what their streams hold in
    /// `transfers`.
    pub(crate) fn new(
        proxy: HttpProxy<EdgeProxy>,
        current: Arc<Current>,
        open: Arc<InFlight>,
        transfers: Arc<Transfers>,
    ) -> Self {
        Self {
            proxy: Arc::new(proxy),
            current,
            open,
            transfers,
        }
    }
}

#[async_trait]
impl ServerApp for Connections {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let _open = self.open.enter();
        let limits = self.current.load().limits;
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(limits.keepalive_timeout);
        let heads = Arc::new(Heads {
            proxy: Arc::clone(&self.proxy),
            options,
            current: Arc::clone(&self.current),
            begun: AtomicBool::new(false),
            resets: Resets::new(),
            streams: self.transfers.connection(),
        });
        let resets = Arc::clone(&heads.resets);
        let mut connection = Box::pin(async {
            tokio::select! {
                reused = heads.process_new(stream, shutdown) => reused,
                () = resets.too_many() => {
                    tracing::debug!("too many streams reset, closing the connection");
                    None
                }
            }
        });
        match tokio::time::timeout(limits.header_timeout, &mut connection).await {
            Ok(reused) => reused,
            Err(_) if heads.begun.load(Ordering::Relaxed) => connection.await,
            // HTTP/2 was agreed on, and there has been no request: Pingora would wait for its
            // first bytes for ever.
            Err(_) => None,
        }
    }

    async fn cleanup(&self) {
        tokio::time::sleep(SETTLE).await;
        // From here on, who is silent is sent away.
        self.proxy.http_cleanup().await;
    }
}

/// The heads of one connection's requests: each has to arrive in time.
///
/// Pingora's own timeout is for each read, so a client that drips a byte at a time would never meet
/// it.
struct Heads {
    proxy: Arc<HttpProxy<EdgeProxy>>,
    /// Those that hold for HTTP/2: what was in force when the connection came.
    options: HttpServerOptions,
    current: Arc<Current>,
    /// HTTP/1 is spoken, whose heads are timed one by one, or HTTP/2 has brought a request.
    begun: AtomicBool,
    /// The streams that the client has reset.
    resets: Arc<Resets>,
    /// What its streams hold.
    streams: Arc<Streams>,
}

/// Tells [`Heads`] that a connection has carried a request before.
pub(crate) struct Kept;

/// Tells [`Heads`] that the head it waits for has been read.
pub(crate) struct HeadRead(Arc<AtomicBool>);

impl HeadRead {
    /// Says so.
    pub(crate) fn done(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Heads {
    /// Serves one stream of an HTTP/2 connection, by doing `request`, which `sends` a body or does not.
    async fn process_stream(&self, request: Served<'_>, sends: bool) -> Option<ReusedHttpStream> {
        let limits = self.current.load().limits;
        let request = Arc::clone(&self.streams).serve(request);
        let request = async {
            if sends {
                // Pingora would wait for a stopped body for ever.
                let pace = Pace::new(limits.read_timeout, limits.min_body_rate);
                pace.watch(request).await.flatten()
            } else {
                request.await
            }
        };
        self.resets.watch(limits.http2_max_resets, request).await
    }
}

impl Heads {
    /// Serves one request over HTTP/1.1: its head has to arrive in time.
    async fn process_http1(
        &self,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let limits = self.current.load().limits;
        let kept = session
            .take_connection_user_context()
            .is_some_and(|carried| carried.is::<Kept>());
        // A kept connection may be silent before the head begins. Where the one ends and the other
        // begins cannot be seen from here, so it has the time of both.
        let silence = if kept {
            limits.keepalive_timeout
        } else {
            Duration::ZERO
        };
        let deadline = silence + limits.header_timeout;
        let read = Arc::new(AtomicBool::new(false));
        session.set_connection_user_context(Some(Box::new(HeadRead(Arc::clone(&read)))));
        let mut request = self.proxy.process_new_http(session, shutdown);
        match tokio::time::timeout(deadline, &mut request).await {
            Ok(reused) => reused,
            Err(_) if read.load(Ordering::Relaxed) => request.await,
            Err(_) => None,
        }
    }
}

/// What `async_trait` makes of an `async fn`.
type Served<'a> = Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'a>>;

#[async_trait]
impl HttpServerApp for Heads {
    // Written out, for each way to have a future of its own size: there can be thousands of streams
    // that wait for their client.
    fn process_new_http<'a, 'b, 'r>(
        self: &'a Arc<Self>,
        mut session: ServerSession,
        shutdown: &'b ShutdownWatch,
    ) -> Served<'r>
    where
        'a: 'r,
        'b: 'r,
    {
        self.begun.store(true, Ordering::Relaxed);
        if session.is_http2() {
            // HTTP/2 hands over whole heads only.
            let sends = !session.is_body_done();
            let request = self.proxy.process_new_http(session, shutdown);
            Box::pin(self.process_stream(request, sends))
        } else {
            Box::pin(self.process_http1(session, shutdown))
        }
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
