//! The side that makes the memory, and reads.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::memory::Memory;
use crate::note::{NOTE_BYTES, Note};
use crate::{SLOT_BYTES, SLOTS};

/// What the other side needs to become the sender.
#[derive(Debug)]
pub struct Offer {
    inner: Arc<Inner>,
    freed: OwnedFd,
}

impl Offer {
    /// Returns the memory, the pipe that takes notes, and the one that tells of slots to be filled
    /// again.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        let inner = &self.inner;
        [
            inner.memory.file(),
            inner.notes_in.as_fd(),
            self.freed.as_fd(),
        ]
    }
}

/// Takes what a sender has filled; its clones are the same one.
#[derive(Clone, Debug)]
pub struct Receiver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: Memory,
    /// Notes of slots that were filled.
    notes: OwnedFd,
    /// Where the sender writes them, and the end is told.
    notes_in: OwnedFd,
    /// Takes the numbers of slots to be filled again.
    freed: OwnedFd,
    /// Which slots are here, a bit for each.
    taken: AtomicU8,
}

/// What a receiver has.
#[derive(Debug)]
pub enum Next {
    /// A slot that was filled.
    Slot(Slot),
    /// Nothing, until a note comes.
    Nothing,
    /// Nothing more, as was [told](Receiver::tell_end).
    End,
}

impl Receiver {
    /// Makes the memory, for the other side to be offered.
    ///
    /// # Errors
    /// When the system has no more memory or descriptors.
    pub fn offer() -> io::Result<(Self, Offer)> {
        let memory = Memory::create()?;
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (notes, notes_in) = pipe_with(flags)?;
        let (freed, write_freed) = pipe_with(flags)?;
        let inner = Arc::new(Inner {
            memory,
            notes,
            notes_in,
            freed: write_freed,
            taken: AtomicU8::new(0),
        });
        let offer = Offer {
            inner: Arc::clone(&inner),
            freed,
        };
        Ok((Self(inner), offer))
    }

    /// Takes the slot that the next note is about, if there is one.
    ///
    /// # Errors
    /// When it is none that a sender could have written.
    pub fn take(&self) -> io::Result<Next> {
        let mut note = [0; NOTE_BYTES];
        match retry_on_intr(|| read(&self.0.notes, &mut note)) {
            Ok(NOTE_BYTES) => {}
            Err(Errno::AGAIN) => return Ok(Next::Nothing),
            Ok(_) => return Err(io::Error::other("a part of a note")),
            Err(error) => return Err(error.into()),
        }
        match Note::read(note) {
            Note::Slot { number, len } => {
                let slot = self.claim(number, len);
                let slot = slot.ok_or_else(|| io::Error::other("a note of no slot to be taken"))?;
                Ok(Next::Slot(slot))
            }
            Note::End => Ok(Next::End),
        }
    }

    /// Waits for a note.
    ///
    /// # Errors
    /// When the runtime cannot wait for it, as when another does.
    #[expect(unsafe_code, reason = "a descriptor that is lent to the runtime")]
    pub async fn ready(&self) -> io::Result<()> {
        // Known to the runtime no longer than this: else it would be woken by each note that a thread
        // waits for.
        let notes = self.0.notes.as_fd();
        // SAFETY: `self`, which keeps the descriptor open and the same, outlives what borrows it.
        let notes = unsafe { AsyncFd::register_with_interest(notes, Interest::READABLE) }?;
        notes.readable().await.map(drop)
    }

    /// Waits for a note on this thread, for some time.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn ready_within(&self, time: Duration) -> io::Result<()> {
        let mut notes = [PollFd::new(&self.0.notes, PollFlags::IN)];
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        match poll(&mut notes, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whoever takes slots that none will come after those that have.
    ///
    /// # Errors
    /// When the pipe is full, as no sender leaves it.
    pub fn tell_end(&self) -> io::Result<()> {
        rustix::io::write(&self.0.notes_in, &Note::End.write())?;
        Ok(())
    }

    fn claim(&self, number: u8, len: usize) -> Option<Slot> {
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
