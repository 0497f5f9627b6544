//! A connection to the registry, over which open files come as well as bytes (`SCM_RIGHTS`, unix(7)).
//!
//! A registry that is no longer what it was must not stop the edge: no more files are kept than were
//! asked for, none is closed here before it is known to be of a kind that is closed at once, and more
//! of them than were asked for end the connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::header::HOST;
use oci::handover::{self, Slots, TAKEN};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use rustix::net::{RecvFlags, recv};
use slots::descriptors;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the registry may take to open memory: a body that waits for it is not told to begin.
const OFFER_PATIENCE: Duration = Duration::from_secs(1);

/// How many descriptors of registries may wait to be closed when there is another connection: there
/// are never as many unless a registry sends such as cannot be.
const UNCLOSED_MAX: usize = 1024;

/// A connection; its clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Wire(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: UnixStream,
    /// The files that have come and were not taken yet.
    files: Mutex<Vec<OwnedFd>>,
    /// How many more may come.
    asked_for: AtomicUsize,
    /// What goes with the next bytes: memory that is offered.
    outbox: Mutex<Option<[OwnedFd; 2]>>,
    /// Whether the registry was offered memory for bodies.
    offered: AtomicBool,
    /// Whether it is not kept for another request.
    once: AtomicBool,
    /// That memory, while no body is under way.
    slots: Mutex<Option<slots::Sender>>,
}

impl Wire {
    /// Connects to the socket at `path`.
    pub(super) async fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        if descriptors::waiting_to_be_closed() > UNCLOSED_MAX {
            return Err(io::Error::other(
                "registries have sent files that cannot be closed",
            ));
        }
        let connected = timeout(patience, UnixStream::connect(path)).await;
        let socket = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(Self(Arc::new(Inner {
            socket,
            files: Mutex::default(),
            asked_for: AtomicUsize::new(0),
            outbox: Mutex::default(),
            offered: AtomicBool::new(false),
            once: AtomicBool::new(false),
            slots: Mutex::default(),
        })))
    }

    /// Returns an HTTP client that speaks over this connection.
    pub(super) fn client(&self, read_timeout: Duration) -> HttpSession {
        let mut client = HttpSession::new(Box::new(self.clone()));
        client.read_timeout = Some(read_timeout);
        client.write_timeout = Some(read_timeout);
        client
    }

    /// Says with how many files the next reply may come.
    pub(super) fn ask_for_files(&self, count: usize) {
        self.0.asked_for.store(count, Ordering::Relaxed);
    }

    /// Takes a file that has come.
    pub(super) fn take_file(&self) -> Option<OwnedFd> {
        self.files().pop()
    }

    /// Offers the registry memory for bodies, if that was not done yet. Returns whether the connection
    /// is still good for a request; without memory bodies go over the socket.
    pub(super) async fn offer_slots(&self) -> bool {
        if self.0.offered.swap(true, Ordering::Relaxed) {
            return true;
        }
        matches!(timeout(OFFER_PATIENCE, self.offer()).await, Ok(Ok(true)))
    }

    /// Is for one request, and offers no memory.
    pub(super) fn use_once(&self) {
        self.0.once.store(true, Ordering::Relaxed);
    }

    async fn offer(&self) -> Result<bool> {
        let (offer, files) = match slots::Sender::offer() {
            Ok(made) => made,
            Err(error) => {
                not_shared(&error);
                return Ok(true);
            }
        };
        let mut head = RequestHeader::build_no_case(Method::GET, b"/v2/", None)?;
        head.insert_header(HOST, "registry")?;
        head.insert_header(handover::SLOTS, Slots::Offered.to_string())?;
        *self.outbox() = Some(files);
        self.ask_for_files(1);
        let mut client = self.client(OFFER_PATIENCE);
        client.write_request_header(Box::new(head)).await?;
        client.read_response().await?;
        let head = client.resp_header();
        let said = head.and_then(|head| head.headers.get(handover::SLOTS));
        let is_taken = said.is_some_and(|said| said == TAKEN);
        let stays = head.is_some_and(super::stays);
        while client.read_body_bytes().await?.is_some() {}
        if is_taken && let Err(error) = self.open_slots(offer) {
            not_shared(&error);
        }
        Ok(stays && self.files().is_empty())
    }

    /// Opens the memory that the registry has taken.
    fn open_slots(&self, offer: slots::Offer) -> io::Result<()> {
        let notes = self.take_file();
        let notes = notes.ok_or_else(|| io::Error::other("no descriptor came"))?;
        self.give_slots(offer.taken(notes)?);
        Ok(())
    }

    /// Takes the memory for a body.
    pub(super) fn take_slots(&self) -> Option<slots::Sender> {
        self.slots().take()
    }

    /// Gives memory for the next bodies.
    pub(super) fn give_slots(&self, sender: slots::Sender) {
        *self.slots() = Some(sender);
    }

    /// Gets ready to be kept for a while, with no memory that lies idle; returns whether it can be.
    pub(super) fn rest(&self) -> bool {
        self.ask_for_files(0);
        if self.0.once.load(Ordering::Relaxed) || !self.files().is_empty() {
            return false;
        }
        let mut slots = self.slots();
        let resting = slots.as_mut().map(slots::Sender::rest);
        matches!(resting, None | Some(Ok(true)))
    }

    /// Returns whether the connection stands and nothing is on it that nobody asked for.
    pub(super) fn is_quiet(&self) -> bool {
        let looked = self.0.socket.try_io(Interest::READABLE, || self.look());
        let silent = matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        silent && self.files().is_empty()
    }

    /// Waits until the registry says something, or hangs up.
    pub(super) async fn answered(&self) {
        poll_fn(|cx| {
            loop {
                if ready!(self.0.socket.poll_read_ready(cx)).is_err() {
                    return Poll::Ready(());
                }
                match self.0.socket.try_io(Interest::READABLE, || self.look()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }

    /// Sends all of `pieces`; the registry may take each within `patience`.
    pub(super) async fn send(
        &self,
        mut pieces: &mut [IoSlice<'_>],
        patience: Duration,
    ) -> io::Result<()> {
        let socket = &self.0.socket;
        while !pieces.is_empty() {
            match socket.try_write_vectored(pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => IoSlice::advance_slices(&mut pieces, sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let ready = timeout(patience, socket.writable()).await;
                    ready.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn files(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> MutexGuard<'_, Option<[OwnedFd; 2]>> {
        self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, Option<slots::Sender>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether there is something to read, and leaves it there.
    fn look(&self) -> io::Result<()> {
        recv(
            &self.0.socket,
            &mut [0],
            RecvFlags::PEEK | RecvFlags::DONTWAIT,
        )?;
        Ok(())
    }

    /// Keeps files that have come, as many as were asked for.
    fn keep(&self, files: Vec<OwnedFd>) -> io::Result<()> {
        let asked_for = self.0.asked_for.load(Ordering::Relaxed);
        let Some(left) = asked_for.checked_sub(files.len()) else {
            descriptors::discard(files);
            return Err(io::Error::other("files that nobody asked for"));
        };
        self.ask_for_files(left);
        self.files().extend(files);
        Ok(())
    }

    /// Sends bytes, and what goes with them.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut outbox = self.outbox();
        let Some(files) = &*outbox else {
            return self.0.socket.try_write(bytes);
        };
        let sent = self.0.socket.try_io(Interest::WRITABLE, || {
            let files = files.each_ref().map(OwnedFd::as_fd);
            descriptors::send(&self.0.socket, &[IoSlice::new(bytes)], &files)
        })?;
        *outbox = None;
        Ok(sent)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let files = self.files.get_mut().unwrap_or_else(PoisonError::into_inner);
        descriptors::discard(files.drain(..));
        descriptors::hang_up(&self.socket);
    }
}

fn not_shared(error: &io::Error) {
    tracing::debug!(
        error = error as &dyn std::error::Error,
        "no memory is shared with the registry"
    );
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let files = ready!(descriptors::poll_receive(&self.0.socket, cx, buffer))?;
        if files.is_empty() {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.keep(files))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.socket.poll_write_ready(cx))?;
            match self.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end of a connection is the end of its last clone.
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {}
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.0.socket.as_raw_fd()
    }
}

impl Ssl for Wire {}

impl Peek for Wire {}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<pingora::protocols::raw_connect::ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
