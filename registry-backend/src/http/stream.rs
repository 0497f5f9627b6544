//! A connection of the edge's, that can carry open files beside bytes (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use slots::descriptors;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::registry::Blob;

/// How many descriptors may come with a request: those of memory for bodies.
const FILES_MAX: usize = 2;

/// What goes with the next bytes that are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<Mutex<Option<Enclosure>>>);

/// What came with the bytes that were read.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbox(Arc<Mutex<Vec<OwnedFd>>>);

/// Something that has open files.
#[derive(Debug)]
pub(super) enum Enclosure {
    /// The file of a blob.
    Blob(Blob),
    /// Where the edge tells of slots that it has filled.
    Notes(OwnedFd),
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

impl Inbox {
    /// Takes what has come.
    pub(super) fn take(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut *self.content())
    }

    /// Puts in what has come; refuses more than anyone has a use for.
    fn put(&self, files: Vec<OwnedFd>) -> io::Result<()> {
        let mut content = self.content();
        if content.len() + files.len() > FILES_MAX {
            descriptors::discard(files);
            return Err(io::Error::other("more descriptors than a request has"));
        }
        content.extend(files);
        Ok(())
    }

    fn content(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, its inbox and its outbox.
#[derive(Debug)]
pub(super) struct Stream {
    socket: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
}

impl Stream {
    pub(super) fn new(socket: UnixStream, inbox: Inbox, outbox: Outbox) -> Self {
        Self {
            socket,
            inbox,
            outbox,
        }
    }

    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(enclosure) = self.outbox.take() else {
            return self.socket.try_write_vectored(pieces);
        };
        let send = |files: &[BorrowedFd<'_>]| {
            let send = || descriptors::send(&self.socket, pieces, files);
            self.socket.try_io(Interest::WRITABLE, send)
        };
        let sent = match &enclosure {
            Enclosure::Blob(blob) => send(blob.as_file().as_slice()),
            Enclosure::Notes(notes) => send(&[notes.as_fd()]),
        };
        if sent.is_err() {
            self.outbox.put(enclosure);
        }
        sent
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        descriptors::discard(self.inbox.take());
        descriptors::hang_up(&self.socket);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let files = ready!(descriptors::poll_receive(&self.socket, cx, buffer))?;
        if files.is_empty() {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.inbox.put(files))
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
