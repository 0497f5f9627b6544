//! Memory for large pieces, which is used again: that which the system gives anew costs more than what
//! is done with it. It is the system's, not an allocator's, which would keep what many threads had for
//! each of them.
//!
//! Two pieces share a huge page, where the system has them. A disk is given memory page by page: that of
//! a piece is one range then and not 256, and a write costs a fraction.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{Advice, MmapMut, MmapRaw};
use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

use super::piece::PIECE_BYTES;

/// What a huge page has on most processors.
const HUGE_BYTES: usize = 2 << 20;

const PIECES: usize = HUGE_BYTES / PIECE_BYTES;

/// How many huge pages are kept for the next pieces: what a few uploads hand round.
const SPARE_MAX: usize = 8;

static PAGES: Mutex<Vec<Page>> = Mutex::new(Vec::new());

/// Memory of one piece.
#[derive(Debug)]
pub(super) enum Memory {
    /// A place in a page, from `begin` in its mapping on.
    Place { map: Arc<MmapRaw>, begin: usize },
    /// Memory of its own.
    Own(MmapMut),
}

/// Memory of [`PIECES`] pieces.
#[derive(Debug)]
struct Page {
    map: Arc<MmapRaw>,
    /// Where those begin that nobody has.
    free: Vec<usize>,
}

impl Memory {
    /// Returns memory with anything in it, at once.
    ///
    /// # Errors
    /// When the system has no more.
    pub(super) fn at_hand() -> io::Result<Self> {
        match Self::spare() {
            Some(memory) => Ok(memory),
            None => MmapMut::map_anon(PIECE_BYTES).map(Self::Own),
        }
    }

    /// Returns memory with anything in it; waits while the system puts a huge page together.
    ///
    /// # Errors
    /// When the system has no more.
    pub(super) fn get() -> io::Result<Self> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        if let Some(memory) = Self::spare() {
            return Ok(memory);
        }
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // Who was here before may have left the other half.
        if let Some(memory) = Self::spare() {
            return Ok(memory);
        }
        let mut page = Page::new()?;
        let memory = page.take();
        pages().push(page);
        Ok(memory)
    }

    fn spare() -> Option<Self> {
        let mut pages = pages();
        // Those that are begun come first, so that others become free as a whole.
        let page = pages
            .iter_mut()
            .filter(|page| !page.free.is_empty())
            .min_by_key(|page| page.free.len());
        page.map(Page::take)
    }
}

impl Page {
    /// Maps memory that has a huge page in it, wherever it begins, and has the system give that page.
    /// Of the rest nothing is ever touched.
    fn new() -> io::Result<Self> {
        let mut map = MmapMut::map_anon(2 * HUGE_BYTES)?;
        let at = map.as_ptr().addr();
        let begin = at.next_multiple_of(HUGE_BYTES) - at;
        with_huge_pages(|| {
            // Where there are none it is slower, and no less right.
            map.advise_range(Advice::HugePage, begin, HUGE_BYTES).ok();
            if let Some(first) = map.get_mut(begin) {
                *first = 1;
            }
        });
        Ok(Self {
            map: Arc::new(map.into()),
            free: (0..PIECES)
                .map(|place| begin + place * PIECE_BYTES)
                .collect(),
        })
    }

    fn take(&mut self) -> Memory {
        Memory::Place {
            map: Arc::clone(&self.map),
            begin: self.free.pop().expect("invariant: one is free"),
        }
    }

    fn is_free(&self) -> bool {
        self.free.len() == PIECES
    }
}

fn pages() -> MutexGuard<'static, Vec<Page>> {
    PAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something, one at a time, while the process may have huge pages. Otherwise it does without:
/// its allocator lays out more than is used, and another thread that gets such a page meanwhile, by
/// chance, holds as much more.
fn with_huge_pages(work: impl FnOnce()) {
    let disabled = transparent_huge_pages_are_disabled().unwrap_or(false);
    if disabled {
        disable_transparent_huge_pages(false).ok();
    }
    work();
    if disabled {
        disable_transparent_huge_pages(true).ok();
    }
}

impl Deref for Memory {
    type Target = [u8];

    #[expect(unsafe_code, reason = "two pieces share a mapping, half and half")]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(map) => map,
            // SAFETY: a place lies within its mapping, which is initialised and lives as long as
            // `self`. One that was taken is nobody else's until this is dropped, so nothing writes to
            // it meanwhile.
            Self::Place { map, begin } => unsafe {
                std::slice::from_raw_parts(map.as_ptr().add(*begin), PIECE_BYTES)
            },
        }
    }
}

impl DerefMut for Memory {
    #[expect(unsafe_code, reason = "two pieces share a mapping, half and half")]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(map) => map,
            // SAFETY: as in `deref`; `self` is borrowed for writing, so nothing else reads it, either.
            Self::Place { map, begin } => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().add(*begin), PIECE_BYTES)
            },
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let Self::Place { map, begin } = self else {
            return;
        };
        let mut pages = pages();
        let mut spare = 0;
        pages.retain_mut(|page| {
            if Arc::ptr_eq(&page.map, map) {
                page.free.push(*begin);
            }
            spare += usize::from(page.is_free());
            !page.is_free() || spare <= SPARE_MAX
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own() {
        let mut many: Vec<_> = (0..40).map(|_| Memory::get().unwrap()).collect();
        for (number, memory) in (0..).zip(&mut many) {
            assert!(memory.as_ptr().addr().is_multiple_of(PIECE_BYTES));
            assert_eq!(memory.len(), PIECE_BYTES);
            memory.fill(number);
        }
        many.retain(|memory| memory[0] % 3 == 0);
        let mut more: Vec<_> = (0..20).map(|_| Memory::at_hand().unwrap()).collect();
        for memory in &mut more {
            memory.fill(0xee);
        }
        for memory in &many {
            assert!(
                memory
                    .iter()
                    .all(|byte| *byte == memory[0] && *byte % 3 == 0)
            );
        }
        drop((many, more));
        let spare = pages().iter().filter(|page| page.is_free()).count();
        assert!(spare <= SPARE_MAX, "{spare} are kept");
    }
}
