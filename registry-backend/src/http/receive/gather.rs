//! Pieces, filled with what comes of a body.

use std::collections::VecDeque;

use crate::http::error::Error;
use crate::http::payload::{Data, Payload};
use crate::registry::Piece;

/// Fills pieces, one after the other.
#[derive(Debug)]
pub(super) struct Gather {
    /// Those that are full.
    full: VecDeque<Piece>,
    piece: Piece,
    /// How many bytes the object has with all that has come.
    size_bytes: u64,
    /// How many it may have.
    size_max: u64,
}

impl Gather {
    /// Begins behind the first `begin` bytes of the object.
    pub(super) fn new(begin: u64, announced: Option<u64>) -> Self {
        Self {
            full: VecDeque::new(),
            piece: Piece::at(begin),
            size_bytes: begin,
            size_max: announced.map_or(u64::MAX, |announced| begin.saturating_add(announced)),
        }
    }

    /// Returns how many bytes the object has with all that has come.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns whether more has come than was announced.
    pub(super) fn is_too_much(&self) -> bool {
        self.size_bytes > self.size_max
    }

    /// Returns the next piece that is full, or nothing when the body is at its end or too long.
    pub(super) async fn next(&mut self, payload: &mut Payload) -> Result<Option<Piece>, Error> {
        loop {
            if let Some(piece) = self.full.pop_front() {
                return Ok(Some(piece));
            }
            let Some(data) = payload.next().await? else {
                return Ok(None);
            };
            self.size_bytes += data.len() as u64;
            if self.is_too_much() {
                return Ok(None);
            }
            self.fill(&data);
        }
    }

    /// Takes in what has come last.
    fn fill(&mut self, data: &Data) {
        let begin = self.size_bytes - data.len() as u64;
        let mut filled = 0;
        while filled < data.len() {
            let rest = data.len() - filled;
            let fill = |to: &mut [u8]| data.copy_to(filled, to);
            filled += self.piece.fill_by(rest, fill);
            if self.piece.is_full() {
                let next = Piece::at(begin + filled as u64);
                self.full
                    .push_back(std::mem::replace(&mut self.piece, next));
            }
        }
    }

    /// Takes out all that was gathered, for others to go on from there.
    pub(super) fn take(&mut self, first: Piece) -> VecDeque<Piece> {
        let mut pieces = std::mem::take(&mut self.full);
        pieces.push_front(first);
        pieces.push_back(std::mem::replace(
            &mut self.piece,
            Piece::at(self.size_bytes),
        ));
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// Returns how much more may come.
    pub(super) fn left(&self) -> u64 {
        self.size_max.saturating_sub(self.size_bytes)
    }

    /// Takes down how many bytes the object has with all that others have taken.
    pub(super) fn went_on(&mut self, size_bytes: u64) {
        self.size_bytes = size_bytes;
    }

    /// Returns the last piece, which is not full.
    pub(super) fn into_rest(self) -> Piece {
        self.piece
    }
}
