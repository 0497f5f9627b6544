//! Memory for bytes on their way to the disk.
//!
//! What is to be written past the page cache must begin in memory where it begins on the disk, at the
//! edge of a block. A [`Piece`] lays its bytes out so.

use std::fmt;
use std::ops::Deref;

use super::memory::Memory;

/// What every disk takes as the edge of a block, and every system as that of a page.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// How much a piece holds: large enough that handing it over costs nothing beside hashing it, small
/// enough for hundreds of uploads at once.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// Up to here a piece takes no more memory than it has bytes: most blobs are small.
const SMALL_BYTES: usize = 64 << 10;

/// Some of the bytes of an object.
pub(crate) struct Piece {
    /// The bytes, while they are few.
    small: Vec<u8>,
    /// The bytes, from `in_block` on.
    large: Option<Memory>,
    len: usize,
    /// Where in a block of the object they begin.
    in_block: usize,
    /// Whether memory that is better for the disk may be waited for.
    may_wait: bool,
}

impl Piece {
    /// Returns an empty piece, whose bytes come after the first `offset` of the object.
    pub(crate) fn at(offset: u64) -> Self {
        let in_block = offset % BLOCK_BYTES as u64;
        Self {
            small: Vec::new(),
            large: None,
            len: 0,
            in_block: usize::try_from(in_block).expect("invariant: a block is small"),
            may_wait: false,
        }
    }

    /// Returns the same for a thread that may block.
    pub(crate) fn on_thread_at(offset: u64) -> Self {
        Self {
            may_wait: true,
            ..Self::at(offset)
        }
    }

    /// Takes in as many of `len` bytes as fit, which `copy` writes; returns how many. A piece that is
    /// full ends where a block does.
    pub(crate) fn fill_by(&mut self, len: usize, copy: impl FnOnce(&mut [u8])) -> usize {
        let fits = len.min(self.room());
        let begin = self.len;
        self.len += fits;
        if self.large.is_none() && self.len > SMALL_BYTES {
            self.enlarge();
        }
        if let Some(large) = &mut self.large {
            copy(part(large, self.in_block + begin, fits));
        } else {
            self.small.resize(self.len, 0);
            copy(part(&mut self.small, begin, fits));
        }
        fits
    }

    /// Returns whether nothing more fits.
    pub(crate) fn is_full(&self) -> bool {
        self.room() == 0
    }

    fn room(&self) -> usize {
        PIECE_BYTES - self.in_block - self.len
    }

    fn enlarge(&mut self) {
        // Without such memory it is slower, and no less right.
        let memory = match self.may_wait {
            true => Memory::get(),
            false => Memory::at_hand(),
        };
        if let Ok(mut large) = memory {
            part(&mut large, self.in_block, self.small.len()).copy_from_slice(&self.small);
            self.small = Vec::new();
            self.large = Some(large);
        }
    }
}

#[cfg(test)]
impl Piece {
    /// Takes in as many bytes as fit; returns the rest.
    pub(crate) fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let copy = |to: &mut [u8]| to.copy_from_slice(bytes.get(..to.len()).unwrap());
        let count = self.fill_by(bytes.len(), copy);
        bytes.get(count..).unwrap()
    }
}

/// Returns the part of `memory` for as many bytes behind the first `at`.
fn part(memory: &mut [u8], at: usize, len: usize) -> &mut [u8] {
    let part = memory.get_mut(at..at + len);
    part.expect("invariant: a piece takes what fits")
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let large = self.large.as_ref();
        large.map_or(&self.small, |large| {
            let bytes = large.get(self.in_block..self.in_block + self.len);
            bytes.unwrap_or_default()
        })
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_lie_in_memory_as_in_their_object() {
        for offset in [0, 1, 4095, 4096, 1 << 40, (1 << 40) + 77] {
            let bytes: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
            let mut piece = Piece::at(offset);
            let mut rest = bytes.as_slice();
            for part in [1, 10_000, 60_000, 5_000_000] {
                let part = part.min(rest.len());
                let left = piece.fill(&rest[..part]).len();
                rest = &rest[part - left..];
            }
            assert!(piece.is_full());
            assert_eq!(piece.as_ptr().addr() % BLOCK_BYTES, piece.in_block);
            let end = offset + piece.len() as u64;
            assert_eq!(end % BLOCK_BYTES as u64, 0);
            assert!(*piece == bytes[..piece.len()] && piece.len() + rest.len() == bytes.len());
        }
    }

    #[test]
    fn a_small_piece_takes_little_memory() {
        let mut piece = Piece::at(5);
        assert!(piece.fill(&[7; 10_000]).is_empty());
        assert!(piece.large.is_none() && piece.small.capacity() <= 2 * SMALL_BYTES);
        assert!(*piece == [7; 10_000] && !piece.is_full());
    }
}
