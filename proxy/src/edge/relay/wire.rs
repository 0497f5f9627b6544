//! A connection to the registry, over which open files come as well as bytes (`SCM_RIGHTS`, unix(7)).

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::header::HOST;
use oci::handover::{self, Slots};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recv, recvmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the registry may take to give memory: a body that waits for it is not told to begin.
const ASK_PATIENCE: Duration = Duration::from_secs(1);

/// A connection; its clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Wire(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: UnixStream,
    /// The files that have come and were not taken yet.
    files: Mutex<Vec<OwnedFd>>,
    /// Whether the registry was asked for memory for bodies.
    asked: AtomicBool,
    /// That memory, while no body is under way.
    slots: Mutex<Option<slots::Sender>>,
}

impl Wire {
    /// Connects to the socket at `path`.
    pub(super) async fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let connected = timeout(patience, UnixStream::connect(path)).await;
        let socket = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(Self(Arc::new(Inner {
            socket,
            files: Mutex::default(),
            asked: AtomicBool::new(false),
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

    /// Takes a file that has come.
    pub(super) fn take_file(&self) -> Option<OwnedFd> {
        self.files().pop()
    }

    /// Asks the registry for memory for bodies, if it was not asked yet. Returns whether the connection
    /// is still good for a request; without memory bodies go over the socket.
    pub(super) async fn ask_for_slots(&self) -> bool {
        if self.0.asked.swap(true, Ordering::Relaxed) {
            return true;
        }
        matches!(timeout(ASK_PATIENCE, self.ask()).await, Ok(Ok(true)))
    }

    /// Never asks the registry for memory.
    pub(super) fn ask_no_more(&self) {
        self.0.asked.store(true, Ordering::Relaxed);
    }

    async fn ask(&self) -> Result<bool> {
        let mut head = RequestHeader::build_no_case(Method::GET, b"/v2/", None)?;
        head.insert_header(HOST, "registry")?;
        head.insert_header(handover::SLOTS, Slots::Wanted.to_string())?;
        let mut client = self.client(ASK_PATIENCE);
        client.write_request_header(Box::new(head)).await?;
        client.read_response().await?;
        let head = client.resp_header();
        let offered = head.is_some_and(|head| head.headers.contains_key(handover::SLOTS));
        let stays = head.is_some_and(super::stays);
        while client.read_body_bytes().await?.is_some() {}
        if offered && let Err(error) = self.open_slots() {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "no memory to share with the registry"
            );
        }
        Ok(stays)
    }

    /// Opens the memory for bodies that has come.
    fn open_slots(&self) -> io::Result<()> {
        let files = std::mem::take(&mut *self.files());
        let files = <[OwnedFd; 3]>::try_from(files)
            .map_err(|files| io::Error::other(format!("{} files came", files.len())))?;
        self.give_slots(slots::Sender::open(files)?);
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

    /// Reads bytes, and files with them.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let buffers = &mut [IoSliceMut::new(buffer)];
        let socket = &self.0.socket;
        let received = recvmsg(socket, buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files().extend(files);
            }
        }
        Ok(received.bytes)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.socket.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            let read = || self.receive(room);
            match self.0.socket.try_io(Interest::READABLE, read) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
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
            match self.0.socket.try_write(bytes) {
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
