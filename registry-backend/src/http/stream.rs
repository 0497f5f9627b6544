//! A connection of the edge's, that can carry open files beside bytes (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::registry::Blob;

/// What goes with the next bytes that are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<Mutex<Option<Enclosure>>>);

/// Something that has open files.
#[derive(Debug)]
pub(super) enum Enclosure {
    /// The file of a blob.
    Blob(Blob),
    /// Memory for the bodies of requests.
    Slots(slots::Offer),
}

impl Outbox {
    /// Puts something in.
    pub(super) fn put(&self, enclosure: Enclosure) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(enclosure);
    }

    fn take(&self) -> Option<Enclosure> {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        content.take()
    }
}

/// A connection and its outbox.
#[derive(Debug)]
pub(super) struct Stream {
    socket: UnixStream,
    outbox: Outbox,
}

impl Stream {
    pub(super) fn new(socket: UnixStream, outbox: Outbox) -> Self {
        Self { socket, outbox }
    }

    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(enclosure) = self.outbox.take() else {
            return self.socket.try_write_vectored(pieces);
        };
        let send = |files: &[BorrowedFd<'_>]| {
            let send = || Ok(send(&self.socket, pieces, files)?);
            self.socket.try_io(Interest::WRITABLE, send)
        };
        let sent = match &enclosure {
            Enclosure::Blob(blob) => send(blob.as_file().as_slice()),
            Enclosure::Slots(offer) => send(&offer.descriptors()),
        };
        if sent.is_err() {
            self.outbox.put(enclosure);
        }
        sent
    }
}

/// Sends bytes with files.
fn send(
    socket: &UnixStream,
    pieces: &[IoSlice<'_>],
    files: &[BorrowedFd<'_>],
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(files));
    debug_assert!(fits, "there is room for three files");
    sendmsg(socket, pieces, &mut control, SendFlags::NOSIGNAL)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.write(pieces) {
                // It was not ready after all, and says so when it is.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
