//! How much of a registry's memory replies may take at once, and of its time lists.
//!
//! A reply that is small enough to be one write takes nothing from here. What is larger is either read
//! on the way to the client, in pieces, or takes from a share: each principal has a part of it, so that
//! nobody waits for a crowd behind another name.

use std::hash::Hash;

use permits::{Keyed, Permit, Pool};

use super::few_threads::FewThreads;
use super::shelf::Shelf;
use crate::registry::Principal;

/// How many pages of lists are made at once, and how many of them for the same principal. A page may
/// take a look at each of a hundred thousand folders, and pushes need threads, too.
const LISTS: u32 = 4;
const LISTS_OF_ONE: u32 = 2;

/// How many threads make them, and check large manifests.
const LARGE_READS: usize = 6;

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
    /// What makes lists and checks large manifests.
    pub(super) large_reads: FewThreads,
    pub(super) manifests: Shares<Principal>,
    pub(super) names: Shelf,
    pub(super) referrers: Shares<Principal>,
    pub(super) pieces: Pieces,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            lists: Shares::new(LISTS, LISTS_OF_ONE),
            large_reads: FewThreads::new(LARGE_READS),
            manifests: Shares::new(MANIFESTS_KIB, MANIFESTS_OF_ONE_KIB),
            names: Shelf::default(),
            referrers: Shares::new(REFERRERS_KIB, REFERRERS_OF_ONE_KIB),
            pieces: Pieces(Pool::new(PIECES_KIB)),
        }
    }
}

/// Permits for all, of which each one has so many at most.
#[derive(Debug)]
pub(super) struct Shares<K> {
    of_one: Keyed<K>,
    max_of_one: u32,
    of_all: Pool,
}

/// Permits of both, given back on drop.
#[derive(Debug)]
pub(super) struct Share {
    pools: [Pool; 2],
    _permits: [Permit; 2],
}

impl<K: Eq + Hash> Shares<K> {
    fn new(max: u32, max_of_one: u32) -> Self {
        Self {
            of_one: Keyed::new(max_of_one),
            max_of_one,
            of_all: Pool::new(max),
        }
    }

    /// Waits for `count` permits for `key`; whoever asks for more than one can have gets all of those.
    pub(super) async fn acquire(&self, key: K, count: u32) -> Share {
        let count = count.min(self.max_of_one);
        let of_one = self.of_one.pool(key);
        let first = of_one.acquire(count).await;
        let second = self.of_all.acquire(count).await;
        Share {
            pools: [of_one, self.of_all.clone()],
            _permits: [first, second],
        }
    }
}

impl Share {
    /// Returns whether somebody waits for permits like these.
    pub(super) fn is_wanted(&self) -> bool {
        self.pools.iter().any(|pool| pool.waiting() > 0)
    }
}

/// Room for pieces on their way; its clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Pieces(Pool);

impl Pieces {
    /// Returns how large the next piece may be, and the room that it takes for as long as it is there.
    pub(super) fn room(&self) -> (usize, Option<Permit>) {
        match self.0.try_acquire(kib(PIECE_BYTES as u64)) {
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
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_waiting(future: Pin<&mut impl Future>) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        future.poll(cx).is_pending()
    }

    #[tokio::test]
    async fn one_never_takes_what_is_left_for_the_others() {
        let shares = Shares::new(4, 2);
        let first = shares.acquire("a", 1).await;
        let second = shares.acquire("a", 1).await;
        let third = shares.acquire("a", 1);
        tokio::pin!(third);
        assert!(is_waiting(third.as_mut()), "a has all of its own");
        let other = shares.acquire("b", 9).await;
        assert!(first.is_wanted() && !other.is_wanted());
        let waiting = shares.acquire("c", 1);
        tokio::pin!(waiting);
        assert!(is_waiting(waiting.as_mut()), "all are taken");
        assert!(other.is_wanted());
        drop(second);
        drop(waiting.await);
        drop(third.await);
        assert!(!other.is_wanted());
    }

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
