//! A connection's socket as Pingora reads and writes it, with buffers of our own size.
//!
//! Pingora's own stream has room for buffers, but only its own accept loop may set their sizes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora::protocols::l4::socket::SocketAddr as Address;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::buffered::{Buffered, Buffers};

/// How long, and for how many bytes, a client is listened to whose handshake was refused: what it
/// has sent by then would make the kernel take back the alert that says why.
const LISTEN_ON: Duration = Duration::from_millis(500);
const LISTEN_ON_BYTES: u64 = 64 << 10;

/// How many are listened to at once: these are connections that no limit counts any more. Of any
/// others the kernel may take the alert back.
static LISTENED_TO: Semaphore = Semaphore::const_new(256);

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Socket {
    /// There until the socket is dropped.
    stream: Option<Buffered<TcpStream>>,
    id: UniqueIDType,
    client: Option<Arc<SocketDigest>>,
    established: SystemTime,
    /// A handshake is going on, which may end with an alert that the client has to see.
    shaking_hands: bool,
}

impl Socket {
    /// Puts buffers around an accepted connection.
    pub(super) fn new(stream: TcpStream, buffers: Buffers) -> Self {
        let id = stream.as_raw_fd();
        Self {
            stream: Some(Buffered::new(stream, buffers)),
            id,
            client: None,
            established: SystemTime::now(),
            shaking_hands: false,
        }
    }

    /// Says whom the connection is from, once that is known.
    pub(super) fn set_client(&mut self, client: SocketAddr) {
        let digest = SocketDigest::from_raw_fd(self.id);
        let fresh = digest.peer_addr.set(Some(Address::Inet(client)));
        debug_assert!(fresh.is_ok(), "a new digest has no address yet");
        self.client = Some(Arc::new(digest));
    }

    /// Says whether a handshake is going on.
    pub(super) fn set_shaking_hands(&mut self, going_on: bool) {
        self.shaking_hands = going_on;
    }

    /// Waits for the first byte that the client sends, and leaves it to be read; nothing at the end.
    pub(super) async fn peek(&mut self) -> io::Result<Option<u8>> {
        self.stream()?.peek().await
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Buffered<TcpStream>>> {
        let stream = self.stream.as_mut();
        stream
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        // What the kernel does not take at once is lost, as it is with Pingora's own streams.
        let mut nobody = Context::from_waker(Waker::noop());
        let sent = Pin::new(&mut stream).poll_flush(&mut nobody);
        if self.shaking_hands
            && matches!(sent, Poll::Ready(Ok(())))
            && let Ok(runtime) = Handle::try_current()
            && let Ok(place) = LISTENED_TO.try_acquire()
        {
            runtime.spawn(async move {
                let _place = place;
                // Whether it was listening is nobody's concern.
                drop(tokio::time::timeout(LISTEN_ON, listen_on(stream)).await);
            });
        }
    }
}

/// Reads what a refused client is still sending, so that it sees why it was refused.
async fn listen_on(mut stream: Buffered<TcpStream>) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(LISTEN_ON_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        // A client that is gone needs no goodbye.
        drop(AsyncWriteExt::shutdown(self).await);
    }
}

impl UniqueID for Socket {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl Ssl for Socket {}

impl Peek for Socket {}

impl GetTimingDigest for Socket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest {
            established_ts: self.established,
            ..TimingDigest::default()
        })]
    }
}

impl GetProxyDigest for Socket {
    fn get_proxy_digest(&self) -> Option<Arc<pingora::protocols::raw_connect::ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.client.clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn only_so_many_are_listened_to_after_a_refusal() {
        const SIZES: Buffers = Buffers {
            read: 1024,
            write: 1024,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let places = LISTENED_TO.available_permits();
        let refuse = async || {
            let client = TcpStream::connect(address).await.unwrap();
            let mut socket = Socket::new(listener.accept().await.unwrap().0, SIZES);
            socket.set_shaking_hands(true);
            drop(socket);
            client
        };
        let first = refuse().await;
        assert_eq!(LISTENED_TO.available_permits(), places - 1);
        // Without a place, the connection is over at once.
        let all = LISTENED_TO.acquire_many(u32::try_from(places - 1).unwrap());
        let all = all.await.unwrap();
        let mut second = refuse().await;
        assert_eq!(LISTENED_TO.available_permits(), 0);
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
        drop(all);
        // When the client is gone, its place is free.
        drop(first);
        while LISTENED_TO.available_permits() < places {
            tokio::task::yield_now().await;
        }
    }
}
