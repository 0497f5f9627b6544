//! The hashing of a large body.

use slots::Slot;
use tokio::sync::mpsc;

use crate::registry::{self, Hashing, Piece};

/// How much of a slot is copied before it is hashed: so little that a core copies the next while it
/// still computes the hash of the last, which leaves most of it idle.
const BLOCK_BYTES: usize = 512;

/// What is to be hashed, and then written.
#[derive(Debug)]
pub(super) enum Part {
    /// Bytes that were gathered.
    Piece(Piece),
    /// Bytes where the edge has put them.
    Slot(Slot),
}

/// The half that hashes, and passes on what it has hashed.
#[derive(Debug)]
pub(super) struct Hash {
    hashing: Hashing,
    /// What has come in slots, hashed already.
    piece: Piece,
    writing: mpsc::Sender<Piece>,
}

impl Hash {
    pub(super) fn new(hashing: Hashing, writing: mpsc::Sender<Piece>) -> Self {
        Self {
            piece: Piece::on_thread_at(hashing.size_bytes()),
            hashing,
            writing,
        }
    }

    /// Returns how many bytes of the object were hashed.
    pub(super) fn size_bytes(&self) -> u64 {
        self.hashing.size_bytes()
    }

    /// Hashes what comes next.
    pub(super) fn take(&mut self, part: Part) -> Result<(), registry::Error> {
        match part {
            Part::Piece(piece) => {
                debug_assert!(
                    self.piece.is_empty(),
                    "slots come after all that was gathered"
                );
                self.hashing.update(&piece);
                self.piece = Piece::on_thread_at(self.hashing.size_bytes());
                self.pass_on(piece)
            }
            Part::Slot(slot) => {
                let mut begin = 0;
                while begin < slot.len() {
                    let block = BLOCK_BYTES.min(slot.len() - begin);
                    begin += self.copy(&slot, begin, block)?;
                }
                Ok(())
            }
        }
    }

    /// Copies as many of `len` bytes of a slot as fit, and hashes the copy: so it is what is written,
    /// whatever the edge does to a slot. Returns how many.
    fn copy(&mut self, slot: &Slot, at: usize, len: usize) -> Result<usize, registry::Error> {
        let begin = self.piece.len();
        let count = self.piece.fill_by(len, |to| slot.copy_to(at, to));
        let copied = self.piece.get(begin..).unwrap_or_default();
        self.hashing.update(copied);
        if self.piece.is_full() {
            let next = Piece::on_thread_at(self.hashing.size_bytes());
            let piece = std::mem::replace(&mut self.piece, next);
            self.pass_on(piece)?;
        }
        Ok(count)
    }

    fn pass_on(&self, piece: Piece) -> Result<(), registry::Error> {
        // A half that takes no more has failed, and says why.
        let sent = self.writing.blocking_send(piece);
        sent.map_err(|_failed| registry::Error::WouldWait)
    }

    /// Passes on what is left.
    pub(super) async fn end(self) -> Hashing {
        if !self.piece.is_empty() {
            self.writing.send(self.piece).await.ok();
        }
        self.hashing
    }
}
