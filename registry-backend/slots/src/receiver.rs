//! The side that makes the memory, and reads.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::memory::Memory;
use crate::{NOTE_BYTES, SLOT_BYTES, SLOTS};

/// What the other side needs to become the sender.
#[derive(Debug)]
pub struct Offer {
    inner: Arc<Inner>,
    freed: OwnedFd,
}

impl Offer {
    /// Returns the memory, and the pipe that tells of slots to be filled again.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.inner.memory.file(), self.freed.as_fd()]
    }
}

/// Takes what a sender has filled; its clones are the same one.
#[derive(Clone, Debug)]
pub struct Receiver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: Memory,
    /// Takes the numbers of slots to be filled again.
    freed: OwnedFd,
    /// Which slots are here, a bit for each.
    taken: AtomicU8,
}

impl Receiver {
    /// Makes the memory, for the other side to be offered.
    ///
    /// # Errors
    /// When the system has no more memory or descriptors.
    pub fn offer() -> io::Result<(Self, Offer)> {
        let memory = Memory::create()?;
        let (freed, write_freed) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let inner = Arc::new(Inner {
            memory,
            freed: write_freed,
            taken: AtomicU8::new(0),
        });
        let offer = Offer {
            inner: Arc::clone(&inner),
            freed,
        };
        Ok((Self(inner), offer))
    }

    /// Takes the slot that a note is about; nothing if it is none that a sender could have written.
    pub fn take(&self, note: [u8; NOTE_BYTES]) -> Option<Slot> {
        let [number, len @ ..] = note;
        let len = len
            .iter()
            .fold(0, |len, byte| len << 8 | usize::from(*byte));
        if usize::from(number) >= SLOTS || !(1..=SLOT_BYTES).contains(&len) {
            return None;
        }
        let bit = 1 << number;
        if self.0.taken.fetch_or(bit, Ordering::Acquire) & bit != 0 {
            return None;
        }
        Some(Slot {
            inner: Arc::clone(&self.0),
            number,
            len,
        })
    }
}

#[cfg(test)]
impl Receiver {
    pub(crate) fn memory_bytes(&self) -> u64 {
        let stat = rustix::fs::fstat(self.0.memory.file()).unwrap();
        u64::try_from(stat.st_blocks).unwrap() * 512
    }
}

/// Bytes in a slot, which is the sender's again when this is dropped.
///
/// Copy them before they are looked at: a sender that breaks the agreement could change what was
/// found right.
#[derive(Debug)]
pub struct Slot {
    inner: Arc<Inner>,
    number: u8,
    len: usize,
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.inner.memory.read(self.number, self.len)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.inner
            .taken
            .fetch_and(!(1 << self.number), Ordering::Release);
        // The pipe has room for all of them. A sender that is gone needs none.
        rustix::io::write(&self.inner.freed, &[self.number]).ok();
    }
}
