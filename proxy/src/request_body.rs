//! A request's body on its way: counted against the site's limit, and gathered into larger pieces.
//!
//! TLS hands over 16 KiB at a time. Sending each to the registry alone costs it a read of its own;
//! eight at once cost one. What is held back is bounded by [`PIECE_BYTES`] and goes with the last
//! piece at the latest, so it is only done where the upstream answers after the whole body.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

/// How much is gathered: measured, larger pieces gain no more.
const PIECE_BYTES: usize = 128 << 10;

/// How long the upstream may see nothing for the sake of gathering: from a slow client it gets
/// smaller pieces instead, and never takes a body that moves for one that has stopped.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// The body of one request.
#[derive(Debug, Default)]
pub(crate) struct RequestBody {
    max: Option<u64>,
    seen: u64,
    gather: bool,
    held: BytesMut,
    /// When the last piece was let go or, before that, when the first one came.
    let_go: Option<Instant>,
}

/// Says that a body is longer than it may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TooLarge {
    /// How long it may be.
    pub(crate) max: u64,
}

impl RequestBody {
    /// Begins a body of `max` bytes at most.
    pub(crate) fn new(max: Option<u64>, gather: bool) -> Self {
        Self {
            max,
            gather,
            ..Self::default()
        }
    }

    /// Refuses a body whose announced length is too much, before any of it is sent.
    pub(crate) fn announce(&self, length: u64) -> Result<(), TooLarge> {
        match self.max {
            Some(max) if length > max => Err(TooLarge { max }),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a piece and returns what to send on: an empty one when it is held back.
    ///
    /// `None` in and out means that there is nothing more to come.
    pub(crate) fn pass(
        &mut self,
        piece: Option<Bytes>,
        last: bool,
    ) -> Result<Option<Bytes>, TooLarge> {
        self.pass_at(Instant::now(), piece, last)
    }

    fn pass_at(
        &mut self,
        now: Instant,
        piece: Option<Bytes>,
        last: bool,
    ) -> Result<Option<Bytes>, TooLarge> {
        self.seen += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        self.announce(self.seen)?;
        if !self.gather {
            return Ok(piece);
        }
        let let_go = *self.let_go.get_or_insert(now);
        let waited = now.saturating_duration_since(let_go) >= HOLD_MAX;
        let len = self.held.len() + piece.as_ref().map_or(0, Bytes::len);
        let goes = last || waited || len >= PIECE_BYTES;
        if goes {
            self.let_go = Some(now);
        }
        if self.held.is_empty() && (goes || piece.is_none()) {
            return Ok(piece);
        }
        if let Some(piece) = piece {
            // Room for the piece that overflows, so that the buffer never grows.
            if self.held.capacity() == 0 {
                self.held.reserve(2 * PIECE_BYTES);
            }
            self.held.extend_from_slice(&piece);
        }
        if goes {
            return Ok(Some(std::mem::take(&mut self.held).freeze()));
        }
        Ok(Some(Bytes::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(body: &mut RequestBody, pieces: &[(Option<usize>, bool)]) -> Vec<Option<usize>> {
        pieces
            .iter()
            .map(|(len, last)| {
                let piece = len.map(|len| Bytes::from(vec![7; len]));
                body.pass(piece, *last).unwrap().map(|piece| piece.len())
            })
            .collect()
    }

    #[test]
    fn pieces_are_gathered_and_none_is_lost() {
        let k = 1 << 10;
        for (pieces, expected) in [
            (vec![(None, true)], vec![None]),
            (vec![(Some(5), true)], vec![Some(5)]),
            (vec![(Some(5), false), (None, true)], vec![Some(0), Some(5)]),
            (
                vec![(Some(5), false), (Some(6), true)],
                vec![Some(0), Some(11)],
            ),
            (
                vec![
                    (Some(64 * k), false),
                    (Some(63 * k), false),
                    (Some(2 * k), false),
                    (None, true),
                ],
                vec![Some(0), Some(0), Some(129 * k), None],
            ),
            (
                vec![(Some(128 * k), false), (Some(1), false), (Some(0), true)],
                vec![Some(128 * k), Some(0), Some(1)],
            ),
        ] {
            let mut body = RequestBody::new(None, true);
            assert_eq!(send(&mut body, &pieces), expected, "{pieces:?}");
        }
    }

    #[test]
    fn from_a_slow_client_nothing_is_held_back_for_long() {
        let mut body = RequestBody::new(None, true);
        let begin = Instant::now();
        let sent = [0, 600, 1200, 1300, 3000].map(|at| {
            let now = begin + Duration::from_millis(at);
            let piece = Bytes::from_static(b"12345");
            body.pass_at(now, Some(piece), false)
                .unwrap()
                .unwrap()
                .len()
        });
        assert_eq!(sent, [0, 0, 15, 0, 10]);
    }

    #[test]
    fn without_gathering_everything_passes_as_it_comes() {
        let mut body = RequestBody::new(None, false);
        let pieces = [
            (Some(5), false),
            (Some(0), false),
            (Some(6), false),
            (None, true),
        ];
        assert_eq!(send(&mut body, &pieces), [Some(5), Some(0), Some(6), None]);
    }

    #[test]
    fn the_limit_counts_what_is_announced_and_what_comes() {
        let mut body = RequestBody::new(Some(10), true);
        assert_eq!(body.announce(10), Ok(()));
        assert_eq!(body.announce(11), Err(TooLarge { max: 10 }));
        assert!(
            body.pass(Some(Bytes::from_static(b"1234567890")), false)
                .is_ok()
        );
        assert_eq!(
            body.pass(Some(Bytes::from_static(b"1")), false),
            Err(TooLarge { max: 10 })
        );
    }
}
