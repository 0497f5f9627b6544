//! The way of short messages from one process to the other: a Unix socket at either end.
//!
//! The two ends of a pipe share a lock, which the kernel holds while it copies from or to memory of the
//! process that writes or reads, and that can take as long as this process likes. Of a pair of sockets
//! each end has its own. So whoever reads makes the pair, keeps the end it reads from to itself and
//! hands over the other; and whoever writes to an end that the other process may have kept as well is
//! held up by no lock of that end.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair, sockopt,
};

use crate::descriptors::{self, Foreign};

/// The end that is read from; no other process has it.
#[derive(Debug)]
pub(crate) struct Inlet(Foreign);

impl Inlet {
    /// Makes a pair; returns also the end for the other process to write to.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (inlet, outlet) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // What comes is the other's, descriptors included.
        Ok((Self(Foreign::new(inlet)), outlet))
    }

    /// Reads what has come; 0 once nobody can write any more.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when nothing has, and another when descriptors have.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut files = Vec::new();
        let read = descriptors::receive(&self.0, buffer, &mut files);
        if !files.is_empty() {
            descriptors::discard(files);
            return Err(io::Error::other("descriptors instead of messages"));
        }
        match read {
            // The other end was closed before it had read what it was sent: nothing is, from here.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            read => read,
        }
    }
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Inlet {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        // The other side is to hear of it now, whenever it is closed.
        shutdown(self, Shutdown::Both).ok();
    }
}

/// The end that is written to; the process that reads may have it as well.
#[derive(Debug)]
pub(crate) struct Outlet(Foreign);

impl Outlet {
    /// # Errors
    /// When it is none of a pair as [`Inlet::pair`] makes it.
    pub(crate) fn open(end: OwnedFd) -> io::Result<Self> {
        let end = Foreign::new(end);
        let is_unix = sockopt::socket_domain(&end)? == AddressFamily::UNIX;
        if !is_unix || sockopt::socket_type(&end)? != SocketType::STREAM {
            return Err(io::Error::other("the socket for messages is not as agreed"));
        }
        Ok(Self(end))
    }

    /// Writes `message`, whole.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when the other side reads nothing, [`ErrorKind::BrokenPipe`] when it
    /// is gone.
    pub(crate) fn write(&self, message: &[u8]) -> io::Result<()> {
        let written = descriptors::send(&self.0, &[IoSlice::new(message)], &[])?;
        match written == message.len() {
            true => Ok(()),
            false => Err(ErrorKind::WriteZero.into()),
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        shutdown(&self.0, Shutdown::Both).ok();
    }
}
