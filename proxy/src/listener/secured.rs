//! A connection within TLS, read several records at a time.
//!
//! OpenSSL hands over one record, 16 KiB, and whoever reads has a turn of all it does for each. A body
//! comes in many, and those that are here already are read at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{ALPN, SslDigest, SslStream, TlsRef};
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that a record holds (RFC 8446, section 5.1).
const RECORD_BYTES: usize = 16 << 10;

/// A connection that hands were shaken over.
#[derive(Debug)]
pub(super) struct Secured<S> {
    stream: SslStream<S>,
    /// What came after something that was read, and is told at the next read.
    failed: Option<io::Error>,
}

impl<S: IO> Secured<S> {
    pub(super) fn new(stream: SslStream<S>) -> Self {
        Self {
            stream,
            failed: None,
        }
    }
}

impl<S: IO> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Err(error));
        }
        let mut before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        // A full record is followed by another, where there is room for it. Any other is the last of
        // something, and to look for more would be in vain.
        while buf.filled().len() - before == RECORD_BYTES && buf.remaining() >= RECORD_BYTES {
            before = buf.filled().len();
            if let Poll::Ready(Err(error)) = Pin::new(&mut this.stream).poll_read(cx, buf) {
                this.failed = Some(error);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: IO> AsyncWrite for Secured<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl<S: IO> Shutdown for Secured<S> {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

impl<S: IO> UniqueID for Secured<S> {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl<S: IO> Ssl for Secured<S> {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl<S: IO> Peek for Secured<S> {}

impl<S: IO> GetTimingDigest for Secured<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl<S: IO> GetProxyDigest for Secured<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl<S: IO> GetSocketDigest for Secured<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.stream.set_socket_digest(digest);
    }
}

#[cfg(test)]
mod tests {
    use openssl::pkey::PKey;
    use openssl::ssl::{Ssl as Tls, SslContext, SslMethod, SslVerifyMode};
    use openssl::x509::X509;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::tls::self_signed;

    /// What a buffer of Pingora's holds.
    const BUFFER_BYTES: usize = 64 << 10;

    /// Two ends of a connection, on which nothing is lost or waits.
    async fn connected() -> (Secured<DuplexStream>, SslStream<DuplexStream>) {
        let pair = self_signed::generate(&["a.test".to_owned()], &[]).unwrap();
        let mut server = SslContext::builder(SslMethod::tls_server()).unwrap();
        let certificate = X509::from_pem(&pair.cert_pem).unwrap();
        server.set_certificate(&certificate).unwrap();
        let key = PKey::private_key_from_pem(&pair.key_pem).unwrap();
        server.set_private_key(&key).unwrap();
        let mut client = SslContext::builder(SslMethod::tls_client()).unwrap();
        client.set_verify(SslVerifyMode::NONE);
        let (near, far) = duplex(1 << 20);
        let stream = |context: SslContext, io| SslStream::new(Tls::new(&context).unwrap(), io);
        let mut server = stream(server.build(), near).unwrap();
        let mut client = stream(client.build(), far).unwrap();
        let (accepted, connected) = tokio::join!(server.accept(), client.connect());
        accepted.and(connected).unwrap();
        (Secured::new(server), client)
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    #[tokio::test]
    async fn records_that_are_there_are_read_at_once() {
        let (mut server, mut client) = connected().await;
        let sent = noise(5 * RECORD_BYTES + 7);
        client.write_all(&sent).await.unwrap();
        client.flush().await.unwrap();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut got = Vec::new();
        for len in [4 * RECORD_BYTES, RECORD_BYTES + 7] {
            assert_eq!(server.read(&mut buffer).await.unwrap(), len);
            got.extend_from_slice(&buffer[..len]);
        }
        assert!(got == sent);
        // What is not full is the last of something.
        for word in [b"one", b"two"] {
            client.write_all(word).await.unwrap();
        }
        for word in [b"one", b"two"] {
            assert_eq!(server.read(&mut buffer).await.unwrap(), word.len());
            assert_eq!(&buffer[..word.len()], word);
        }
    }

    #[tokio::test]
    async fn all_that_was_sent_is_read_with_buffers_of_any_size() {
        for len in [5, RECORD_BYTES - 1, RECORD_BYTES, 50_000, BUFFER_BYTES] {
            let (mut server, mut client) = connected().await;
            let sent = noise(300_000);
            client.write_all(&sent).await.unwrap();
            Shutdown::shutdown(&mut client).await;
            let (mut got, mut buffer) = (Vec::new(), vec![0; len]);
            while let count @ 1.. = server.read(&mut buffer).await.unwrap() {
                got.extend_from_slice(&buffer[..count]);
            }
            assert!(got == sent, "{len}");
        }
    }

    #[tokio::test]
    async fn what_came_before_a_failure_is_read_before_it_is_told() {
        let (mut server, mut client) = connected().await;
        client.write_all(&noise(RECORD_BYTES)).await.unwrap();
        client.get_mut().write_all(b"no record").await.unwrap();
        let mut buffer = vec![0; BUFFER_BYTES];
        let read = server.read(&mut buffer).await.unwrap();
        assert!(buffer[..read] == noise(RECORD_BYTES));
        let error = server.read(&mut buffer).await.unwrap_err();
        assert!(error.to_string().contains("SSL routines"), "{error}");
    }
}
