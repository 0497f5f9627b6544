//! Pieces of a body that leave one after the other.
//!
//! The server takes whatever a body has for it, up to some hundred KiB, also while the client takes
//! nothing. A body that lets the next piece go only when the system has the last one holds no more
//! than one.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use permits::Permit;
use tokio::sync::oneshot;

/// Lets one piece go at a time.
#[derive(Debug, Default)]
pub(super) struct Gate(Option<oneshot::Receiver<()>>);

/// A piece on its way.
struct Piece {
    bytes: Vec<u8>,
    _room: Option<Permit>,
    /// Dropped with the piece, which opens the gate.
    _gone: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Gate {
    /// Waits until the last piece is gone.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(gone) = &mut self.0 {
            // Nothing is ever sent: the end of the other side is the message.
            ready!(Pin::new(gone).poll(cx)).ok();
            self.0 = None;
        }
        Poll::Ready(())
    }

    /// Lets a piece go, and `room` with it, which is returned when the piece is gone.
    pub(super) fn let_go(&mut self, bytes: Vec<u8>, room: Option<Permit>) -> Bytes {
        let (sender, gone) = oneshot::channel();
        self.0 = Some(gone);
        Bytes::from_owner(Piece {
            bytes,
            _room: room,
            _gone: sender,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use permits::Pool;

    use super::*;

    #[test]
    fn the_next_piece_waits_for_all_of_the_last_one() {
        let cx = &mut Context::from_waker(Waker::noop());
        let (mut gate, pool) = (Gate::default(), Pool::new(1));
        assert!(gate.poll_open(cx).is_ready());
        let mut piece = gate.let_go(b"abc".to_vec(), pool.try_acquire(1));
        assert_eq!(&piece[..], b"abc");
        let part = piece.split_off(1);
        drop(piece);
        assert!(gate.poll_open(cx).is_pending());
        assert_eq!(pool.available(), 0);
        drop(part);
        assert!(gate.poll_open(cx).is_ready());
        assert_eq!(pool.available(), 1);
    }
}
