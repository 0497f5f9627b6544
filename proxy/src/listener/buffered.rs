//! Buffers around a stream that take memory as it is used.
//!
//! Those of tokio have their full size from the start, and the reader's is zeroed: to a connection
//! that only shakes hands, or is silent, that is a large part of what it costs.

use std::future::Future as _;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What a buffer begins with: a hello fits, and so do most heads.
const FIRST: usize = 16 << 10;

/// How much larger the next buffer is when one was full.
const GROWTH: usize = 4;

/// How much is read and written at once, at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffers {
    pub(super) read: usize,
    pub(super) write: usize,
}

/// A stream, what was read from it ahead, and what is to be written to it.
#[derive(Debug)]
pub(super) struct Buffered<S> {
    stream: S,
    max: Buffers,
    read: Vec<u8>,
    /// How much of that was taken.
    taken: usize,
    write: Vec<u8>,
    /// How much of that was written.
    written: usize,
}

impl<S> Buffered<S> {
    /// Puts buffers around `stream`.
    pub(super) fn new(stream: S, max: Buffers) -> Self {
        Self {
            stream,
            max,
            read: Vec::new(),
            taken: 0,
            write: Vec::new(),
            written: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> Buffered<S> {
    /// Reads ahead, when all that was read is taken.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let size = self.read.capacity();
        let full = self.read.len() == size;
        self.read.clear();
        self.taken = 0;
        if full && size < self.max.read {
            let next = (size * GROWTH).max(FIRST).min(self.max.read);
            self.read = Vec::with_capacity(next);
        }
        // It keeps nothing between its polls.
        let reading = pin!(self.stream.read_buf(&mut self.read));
        reading.poll(cx).map_ok(drop)
    }

    /// Waits for the next byte, and leaves it where it is; nothing at the end.
    pub(super) async fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.taken == self.read.len() {
            poll_fn(|cx| self.poll_fill(cx)).await?;
        }
        Ok(self.read.get(self.taken).copied())
    }
}

impl<S: AsyncWrite + Unpin> Buffered<S> {
    /// Writes what is to be written.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .write
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.write.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Buffered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.taken == this.read.len() {
            if buf.remaining() >= this.max.read {
                return Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            ready!(this.poll_fill(cx))?;
        }
        let ahead = this.read.get(this.taken..).unwrap_or_default();
        let (part, _) = ahead.split_at(ahead.len().min(buf.remaining()));
        buf.put_slice(part);
        this.taken += part.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Buffered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let needed = this.write.len() + bytes.len();
        if needed > this.max.write {
            ready!(this.poll_drain(cx))?;
        }
        if bytes.len() >= this.max.write {
            return Pin::new(&mut this.stream).poll_write(cx, bytes);
        }
        if needed > this.write.capacity() {
            let next = needed.max(this.write.capacity() * 2).max(FIRST);
            let next = next.min(this.max.write);
            this.write
                .reserve_exact(next.saturating_sub(this.write.len()));
        }
        this.write.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const MAX: Buffers = Buffers {
        read: 128 << 10,
        write: 96 << 10,
    };

    fn noise(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    async fn send(bytes: &[u8], piece: usize, mut into: Buffered<DuplexStream>) {
        for piece in bytes.chunks(piece) {
            into.write_all(piece).await.unwrap();
        }
        into.shutdown().await.unwrap();
        assert!(into.write.capacity() <= MAX.write);
    }

    async fn receive(piece: usize, mut from: Buffered<DuplexStream>) -> Vec<u8> {
        let (mut got, mut piece) = (Vec::new(), vec![0; piece]);
        while let count @ 1.. = from.read(&mut piece).await.unwrap() {
            got.extend_from_slice(&piece[..count]);
        }
        assert!(from.read.capacity() <= MAX.read);
        got
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_in_pieces_of_any_size() {
        let sent = noise(3 << 20);
        for (pipe, piece, len) in [
            (1 << 20, 5, sent.len()),
            (1 << 20, 100 << 10, sent.len()),
            (7, 16 << 10, sent.len() / 30),
            (64 << 10, 200 << 10, sent.len()),
        ] {
            let (near, far) = duplex(pipe);
            let (near, far) = (Buffered::new(near, MAX), Buffered::new(far, MAX));
            let sending = send(&sent[..len], piece, near);
            let ((), got) = tokio::join!(sending, receive(piece, far));
            assert!(got == sent[..len], "{pipe} {piece}");
        }
    }

    #[tokio::test]
    async fn a_buffer_is_as_large_as_it_has_to_be() {
        let (near, mut far) = duplex(1 << 20);
        let mut near = Buffered::new(near, MAX);
        assert_eq!((near.read.capacity(), near.write.capacity()), (0, 0));
        far.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        near.read_exact(&mut got).await.unwrap();
        near.write_all(b"hello").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(
            (near.read.capacity(), near.write.capacity()),
            (FIRST, FIRST)
        );
        let many = noise(500 << 10);
        far.write_all(&many).await.unwrap();
        for piece in many.chunks(10 << 10) {
            near.read_exact(&mut vec![0; piece.len()]).await.unwrap();
            near.write_all(piece).await.unwrap();
        }
        assert_eq!(
            (near.read.capacity(), near.write.capacity()),
            (MAX.read, MAX.write)
        );
    }
}
