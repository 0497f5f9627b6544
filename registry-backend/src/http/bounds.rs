//! How much of a registry's memory replies may take at once, and of its time lists.
//!
//! A reply that is small enough to be one write takes nothing from here. What is larger is either read
//! on the way to the client, in pieces, or takes from a share: each principal has a part of it, so that
//! nobody waits for a crowd behind another name.

use permits::{Permit, Pool, Shares};

use super::few_threads::FewThreads;
use super::permits::Work;
use super::shelf::Shelf;
use crate::registry::Principal;

/// How many pages of lists are made at once, and how many of them for the same principal. A page may
/// take a look at each of a hundred thousand folders, and pushes need threads, too.
const LISTS: u32 = 4;
const LISTS_OF_ONE: u32 = 2;

/// How many threads make them, and read large manifests.
const LARGE_READS: usize = 6;

/// How many threads check large manifests that are pushed.
const LARGE_CHECKS: usize = 4;

/// How many indexes of referrers are made anew at once, and how many of them for the same principal:
/// each takes the memory of the largest manifest there is.
const INDEXES: u32 = 4;
const INDEXES_OF_ONE: u32 = 2;

/// How many pieces of files are read at once, on threads that may block. Of a file that the kernel has
/// in memory, which is the rule, that takes no time.
pub(super) const PIECE_READS: u32 = 16;

/// How much of large manifests is in memory at once: from the read until it is known that they are
/// what they are called. Never while a client reads them.
const MANIFESTS_KIB: u32 = 16 << 10;
const MANIFESTS_OF_ONE_KIB: u32 = MANIFESTS_KIB / 2;

/// How much of referrers is held for clients to take.
const REFERRERS_KIB: u32 = 16 << 10;
const REFERRERS_OF_ONE_KIB: u32 = REFERRERS_KIB / 2;

/// How much of pieces on their way is held, beside those of [`PIECE_MIN_BYTES`], which everyone may
/// have at any time.
const PIECES_KIB: u32 = 16 << 10;

/// How large a piece on its way is, and a page of a list, while there is room for such.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// How large it is when there is none: many clients take nothing of what they asked for. Those that do
/// get theirs in smaller pieces.
pub(super) const PIECE_MIN_BYTES: usize = 16 << 10;

/// The bounds of one registry.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) lists: Shares<Principal>,
    /// What makes lists and reads large manifests.
    pub(super) large_reads: FewThreads,
    /// What checks large manifests that are pushed.
    pub(super) large_checks: FewThreads,
    /// Indexes of referrers that are made anew.
    pub(super) indexes: Shares<Principal>,
    pub(super) manifests: Shares<Principal>,
    pub(super) names: Shelf,
    pub(super) referrers: Shares<Principal>,
    pub(super) pieces: Pieces,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            lists: Shares::new(LISTS, LISTS_OF_ONE),
            large_reads: FewThreads::new("large-reads", LARGE_READS),
            large_checks: FewThreads::new("large-checks", LARGE_CHECKS),
            indexes: Shares::new(INDEXES, INDEXES_OF_ONE),
            manifests: Shares::new(MANIFESTS_KIB, MANIFESTS_OF_ONE_KIB),
            names: Shelf::default(),
            referrers: Shares::new(REFERRERS_KIB, REFERRERS_OF_ONE_KIB),
            pieces: Pieces::new(),
        }
    }
}

impl Bounds {
    /// Returns how many lists wait, and how many are in progress.
    pub(super) fn work(&self) -> Work {
        Work::new("list", self.lists.waiting()).of(LISTS, self.lists.available())
    }
}

/// Room for pieces on their way; its clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    room: Pool,
    reads: Pool,
}

impl Pieces {
    fn new() -> Self {
        Self {
            room: Pool::new(PIECES_KIB),
            reads: Pool::new(PIECE_READS),
        }
    }

    /// Waits for the right to read one of a file.
    pub(super) async fn to_read(&self) -> Permit {
        self.reads.acquire(1).await
    }

    /// Returns how large the next piece may be, and the room that it takes for as long as it is there.
    pub(super) fn room(&self) -> (usize, Option<Permit>) {
        match self.room.try_acquire(kib(PIECE_BYTES as u64)) {
            Some(permit) => (PIECE_BYTES, Some(permit)),
            None => (PIECE_MIN_BYTES, None),
        }
    }
}

/// Returns how many permits so many bytes take.
pub(super) fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_pieces_are_small() {
        let pieces = Bounds::default().pieces;
        let mut held = Vec::new();
        while let (PIECE_BYTES, room) = pieces.room() {
            held.push(room);
        }
        assert_eq!(held.len() * PIECE_BYTES, (PIECES_KIB as usize) << 10);
        assert_eq!(pieces.room().0, PIECE_MIN_BYTES);
        held.pop();
        assert_eq!(pieces.room().0, PIECE_BYTES);
    }
}
