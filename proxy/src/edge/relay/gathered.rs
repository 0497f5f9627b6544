//! A body that goes over the socket.
//!
//! TLS hands over 64 KiB at a time, and less of a slow client. Sending each alone would cost the registry
//! a read of its own, so they are gathered, without being copied, and sent with one system call.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::upload::Flush;
use super::wire::Wire;

/// How much is gathered.
const GATHERED_BYTES: usize = 256 << 10;

/// From where on a body is large.
const LARGE_BYTES: u64 = 64 << 10;

/// How a body's end is told (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// By the length in the head.
    Length(u64),
    /// By an empty chunk.
    Chunked,
}

impl Framing {
    /// Returns whether the body is worth more than to be sent as it is, or may be.
    pub(super) fn is_large(&self) -> bool {
        self.length().is_none_or(|length| length >= LARGE_BYTES)
    }

    /// Returns how long the body is, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(*length),
            Self::Chunked => None,
        }
    }
}

/// Pieces that have come and were not sent yet.
pub(super) struct Gathered {
    framing: Framing,
    pieces: Vec<Bytes>,
    bytes: usize,
    /// Since when the registry has seen nothing of what is here.
    since: Option<Instant>,
}

impl Gathered {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            framing,
            pieces: Vec::new(),
            bytes: 0,
            since: None,
        }
    }

    /// Takes in a piece; returns since when something waits, and whether it is worth sending.
    pub(super) fn push(&mut self, piece: Option<Bytes>, now: Instant) -> (Option<Instant>, bool) {
        if let Some(piece) = piece {
            self.since.get_or_insert(now);
            self.bytes += piece.len();
            self.pieces.push(piece);
        }
        (self.since, self.bytes >= GATHERED_BYTES)
    }

    /// Sends everything, as one chunk where there are chunks.
    pub(super) async fn send(
        &mut self,
        flush: Flush,
        wire: &Wire,
        patience: Duration,
    ) -> io::Result<()> {
        let chunked = self.framing == Framing::Chunked;
        let size = format!("{:x}\r\n", self.bytes);
        let mut slices = Vec::with_capacity(self.pieces.len() + 3);
        if self.bytes > 0 {
            if chunked {
                slices.push(IoSlice::new(size.as_bytes()));
            }
            slices.extend(self.pieces.iter().map(|piece| IoSlice::new(piece)));
            if chunked {
                slices.push(IoSlice::new(b"\r\n"));
            }
        }
        if chunked && flush == Flush::Last {
            slices.push(IoSlice::new(b"0\r\n\r\n"));
        }
        wire.send(&mut slices, patience).await?;
        self.pieces.clear();
        self.bytes = 0;
        // What has gone marks the time from which the next is late.
        self.since = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_worth_sending_when_there_are_enough() {
        let begin = Instant::now();
        let mut gathered = Gathered::new(Framing::Chunked);
        assert_eq!(gathered.push(None, begin), (None, false));
        let five = Some(Bytes::from_static(b"12345"));
        assert_eq!(gathered.push(five, begin), (Some(begin), false));
        let later = begin + Duration::from_secs(1);
        let many = Some(vec![7; GATHERED_BYTES].into());
        assert_eq!(gathered.push(many, later), (Some(begin), true));
    }
}
