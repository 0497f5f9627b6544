//! Many bytes in memory as a body, for which others may wait.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use permits::Share;
use tokio::time::{Instant, Sleep};

use super::bounds::Pieces;
use super::error::Error;
use super::gate::Gate;
use super::patience::{LOOK, is_late};

/// Bytes of which there may be only so much at once. A client that takes them too slowly is cut off
/// when others wait for their share, and only then.
#[derive(Debug)]
pub(super) struct Held {
    rest: Bytes,
    share: Share,
    pieces: Pieces,
    gate: Gate,
    begun: Instant,
    size_bytes: u64,
    /// Ends when it is to be looked for others again.
    look: Option<Pin<Box<Sleep>>>,
}

impl Held {
    pub(super) fn new(bytes: Vec<u8>, share: Share, pieces: &Pieces) -> Self {
        Self {
            size_bytes: bytes.len() as u64,
            rest: bytes.into(),
            share,
            pieces: pieces.clone(),
            gate: Gate::default(),
            begun: Instant::now(),
            look: None,
        }
    }

    /// Returns the number of bytes that are yet to be sent.
    pub(super) fn size_bytes(&self) -> u64 {
        self.rest.len() as u64
    }

    /// Takes out the next piece.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        while self.gate.poll_open(cx).is_pending() {
            let look = self
                .look
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK)));
            if look.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.look = None;
            if self.share.is_wanted() && self.is_late() {
                tracing::warn!(
                    size_bytes = self.size_bytes,
                    left_bytes = self.size_bytes(),
                    "reply broken off: its client takes too little, and others wait"
                );
                return Poll::Ready(Some(Err(Error::TakenTooSlowly)));
            }
        }
        self.look = None;
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let (size_max, room) = self.pieces.room();
        // A copy: the last piece, which a client may never take, must not hold the rest.
        let piece = self.rest.get(..size_max).unwrap_or(&self.rest).to_vec();
        self.rest.advance(piece.len());
        Poll::Ready(Some(Ok(self.gate.let_go(piece, room))))
    }

    /// Returns whether a client has taken less than it should have by now.
    fn is_late(&self) -> bool {
        let taken = self.size_bytes - self.size_bytes();
        is_late(self.begun, taken)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::super::bounds::{Bounds, PIECE_BYTES};
    use super::super::patience::GRACE;
    use super::*;
    use crate::registry::Principal;

    const SIZE: usize = 2 * PIECE_BYTES + 1;

    async fn held(bounds: &Bounds) -> Held {
        let share = bounds.referrers.acquire(Principal::Unknown, u32::MAX).await;
        Held::new(vec![7; SIZE], share, &bounds.pieces)
    }

    async fn next(held: &mut Held) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| held.poll_next(cx)).await
    }

    /// Whether nothing more comes within `time`.
    async fn is_silent(held: &mut Held, time: Duration) -> bool {
        tokio::time::timeout(time, next(held)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_when_others_wait_and_not_before() {
        let bounds = Bounds::default();
        let mut held = held(&bounds).await;
        let piece = next(&mut held).await.unwrap().unwrap();
        assert!(is_silent(&mut held, GRACE * 100).await, "nobody waits");
        let waiting = bounds.referrers.acquire(Principal::Unknown, 1);
        tokio::pin!(waiting);
        tokio::select! {
            _ = &mut waiting => panic!("all was taken"),
            cut = next(&mut held) => assert!(matches!(cut, Some(Err(Error::TakenTooSlowly)))),
        }
        drop(held);
        waiting.await;
        assert_eq!(piece.len(), PIECE_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_some_gets_all_whoever_waits() {
        let bounds = Bounds::default();
        let mut held = held(&bounds).await;
        let waiting = bounds.referrers.acquire(Principal::Unknown, 1);
        tokio::pin!(waiting);
        let mut taken = 0;
        let take_all = async {
            while held.size_bytes() > 0 {
                let piece = next(&mut held).await.unwrap().unwrap();
                assert!(is_silent(&mut held, LOOK * 3).await, "one at a time");
                taken += piece.len();
            }
            assert!(next(&mut held).await.is_none());
        };
        tokio::select! {
            _ = &mut waiting => panic!("all was taken"),
            () = take_all => {}
        }
        assert_eq!(taken, SIZE);
    }
}
