//! Unix sockets between processes that do not trust each other, and the descriptors that go over them.
//!
//! Whoever holds the other end can send any descriptor (`SCM_RIGHTS`, unix(7)), and closing the last
//! reference to a file may block for as long as its sender likes: a TCP socket with `SO_LINGER`, a file
//! of a FUSE server that does not answer. The kernel closes what a reader has no room for, and what is
//! still queued when a socket is closed, and does so on the thread that reads or closes. So everything
//! that such a socket may carry is received here, and whatever nobody asked for is closed by a thread
//! that does nothing else.
//!
//! All operations are non-blocking by a flag of the call. `O_NONBLOCK` belongs to the open file
//! description, which a process that has a duplicate can change.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::task::{Context, Poll, ready};
use std::thread;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown, sockopt,
};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UnixStream;

/// How many descriptors one message can carry (`SCM_MAX_FD`). With room for fewer, the kernel would
/// close the rest on the thread that reads.
const MESSAGE_FILES_MAX: usize = 253;

/// How many are ever sent at once.
const SENT_FILES_MAX: usize = 2;

/// How many messages of a socket's queue are looked through for descriptors before it is closed: more
/// than fit into a queue. A peer that refills the queue of a socket which cannot be shut down must not
/// keep the closing thread busy for good.
const QUEUE_MESSAGES_MAX: usize = 1 << 16;

/// Receives bytes, and with them at most [`MESSAGE_FILES_MAX`] descriptors, which are appended to
/// `files`; never waits. The sender may not have been asked for any: [`discard`] those.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when there is nothing.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    files: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let buffers = &mut [IoSliceMut::new(buffer)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, buffers, &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    Ok(received.bytes)
}

/// Sends bytes, and with the first of them `files`, as many as [`SENT_FILES_MAX`]; never waits.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when there is no room.
pub fn send(
    socket: impl AsFd,
    pieces: &[IoSlice<'_>],
    files: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SENT_FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("more descriptors than are ever sent"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(socket, pieces, &mut control, flags)?)
}

/// [`tokio::io::AsyncRead::poll_read`] that returns the descriptors which came with the bytes.
///
/// # Errors
/// When the connection is broken.
pub fn poll_receive(
    socket: &UnixStream,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<Vec<OwnedFd>>> {
    let mut files = Vec::new();
    loop {
        ready!(socket.poll_read_ready(cx))?;
        let room = buffer.remaining();
        let mut received = None;
        let read = socket.try_io(Interest::READABLE, || {
            let count = receive(socket, unfilled(buffer), &mut files)?;
            received = Some(count);
            // As tokio does itself: what does not fill the buffer was all, and to find that out by
            // another call is needless. After a message with descriptors the kernel stops early.
            match (1..room).contains(&count) && files.is_empty() {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => Ok(()),
            }
        });
        match (received, read) {
            (Some(count), _) => {
                advance(buffer, count);
                return Poll::Ready(Ok(files));
            }
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                return Poll::Ready(Err(error));
            }
            // It was not ready after all, and says so when it is.
            (None, _) => {}
        }
    }
}

/// Returns the part of `buffer` that the kernel may write to.
#[expect(
    unsafe_code,
    reason = "to initialise what is overwritten costs as much as to receive it"
)]
fn unfilled<'a>(buffer: &'a mut ReadBuf<'_>) -> &'a mut [u8] {
    // SAFETY: The slice goes to a system call alone, which writes to it and never reads it; tokio does
    // the same. `MaybeUninit<u8>` and `u8` have the same layout.
    unsafe {
        let room = buffer.unfilled_mut();
        std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), room.len())
    }
}

#[expect(unsafe_code, reason = "the kernel has initialised them")]
fn advance(buffer: &mut ReadBuf<'_>, count: usize) {
    // SAFETY: The kernel has said that it has written as many bytes, to where `unfilled` said.
    unsafe { buffer.assume_init(count) };
    buffer.advance(count);
}

/// Closes descriptors from another process on a thread for that purpose: closing may block.
pub fn discard(files: impl IntoIterator<Item = OwnedFd>) {
    for file in files {
        CLOSER.close(file);
    }
}

/// How many descriptors wait to be closed: more than a few only if some cannot be.
pub fn waiting_to_be_closed() -> usize {
    CLOSER.waiting.load(Ordering::Relaxed)
}

/// Ends a connection whose socket the caller is about to drop. What is still queued in it, descriptors
/// among it, is left to the thread that closes.
pub fn hang_up(socket: impl AsFd) {
    // One that is gone already needs nothing.
    shutdown(&socket, Shutdown::Both).ok();
    // Not the last reference, the caller's drop of its own closes nothing.
    if let Ok(again) = socket.as_fd().try_clone_to_owned() {
        discard([again]);
    }
}

/// A descriptor that another process has or sent: closed by [`discard`].
#[derive(Debug)]
pub(crate) struct Foreign(Option<OwnedFd>);

impl Foreign {
    pub(crate) fn new(file: OwnedFd) -> Self {
        Self(Some(file))
    }

    /// Returns it, for the caller to close: one of a kind for which that does not block.
    pub(crate) fn into_inner(mut self) -> OwnedFd {
        self.0.take().expect("invariant: it is taken once")
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let file = self.0.as_ref();
        file.expect("invariant: it is taken with `self`").as_fd()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        discard(self.0.take());
    }
}

static CLOSER: LazyLock<Closer> = LazyLock::new(Closer::start);

/// The thread that closes.
#[derive(Debug)]
struct Closer {
    /// Not there when the system gave no thread; then nothing is closed rather than waited for.
    queue: Option<Sender<OwnedFd>>,
    waiting: AtomicUsize,
}

impl Closer {
    fn start() -> Self {
        let (queue, files) = mpsc::channel();
        let thread = thread::Builder::new().name("closer".to_owned());
        let started = thread.spawn(move || close_each(&files));
        Self {
            queue: started.is_ok().then_some(queue),
            waiting: AtomicUsize::new(0),
        }
    }

    fn close(&self, file: OwnedFd) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let Some(queue) = &self.queue else {
            std::mem::forget(file);
            return;
        };
        // The thread ends with the process.
        queue.send(file).ok();
    }
}

fn close_each(files: &Receiver<OwnedFd>) {
    for file in files {
        close(file);
        CLOSER.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Closes a descriptor, and those in its queue where it is a Unix socket.
fn close(file: OwnedFd) {
    let mut files = vec![file];
    while let Some(file) = files.pop() {
        // What is no socket has no such option, and no queue.
        if sockopt::set_socket_linger(&file, None).is_err()
            || sockopt::socket_domain(&file) != Ok(AddressFamily::UNIX)
        {
            continue;
        }
        shutdown(&file, Shutdown::Both).ok();
        for _ in 0..QUEUE_MESSAGES_MAX {
            // A socket of messages may have empty ones.
            match receive(&file, &mut [0; 4096], &mut files) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
}
