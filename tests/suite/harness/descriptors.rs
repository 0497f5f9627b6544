//! Descriptors on their way over a Unix socket (`SCM_RIGHTS`), as one who has no good in mind sends them.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Sends bytes, and files with them.
pub(crate) fn send_files(stream: &UnixStream, bytes: &[u8], files: &[OwnedFd]) -> io::Result<()> {
    let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    assert_eq!(sent, bytes.len(), "a short message goes at once");
    Ok(())
}

/// Receives some bytes, and the files that come with them.
pub(crate) fn receive_files(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    bytes.truncate(received.bytes);
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    Ok((bytes, files))
}

/// Writes to a pipe or socket until there is no room, and has whoever relies on the flags that it has
/// wait from then on.
pub(crate) fn fill_and_block(end: &OwnedFd, first: &[u8], then: &[u8]) {
    let flags = fcntl_getfl(end).unwrap();
    fcntl_setfl(end, flags | OFlags::NONBLOCK).unwrap();
    rustix::io::write(end, first).ok();
    while rustix::io::write(end, then).is_ok() {}
    block(end);
}

/// Has whoever relies on the flags that a pipe or socket has wait from then on.
pub(crate) fn block(end: &OwnedFd) {
    let flags = fcntl_getfl(end).unwrap();
    fcntl_setfl(end, flags - OFlags::NONBLOCK).unwrap();
}

/// A connection that nobody reads from: to close the last descriptor of it takes an hour, of this
/// process as well. What keeps it so is returned with it.
pub(crate) fn lingering() -> (OwnedFd, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 64 << 10]).is_ok() {}
    set_socket_linger(&stream, Some(Duration::from_secs(3600))).unwrap();
    (stream.into(), listener)
}
