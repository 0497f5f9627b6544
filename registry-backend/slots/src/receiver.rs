//! The side that reads.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::channel::{Inlet, Outlet};
use crate::end::End;
use crate::memory::View;
use crate::note::{NOTE_BYTES, Note};
use crate::{SLOT_BYTES, SLOTS};

/// Takes what a sender has filled; its clones are the same one.
#[derive(Clone, Debug)]
pub struct Receiver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: View,
    /// Notes of slots that were filled.
    notes: Inlet,
    /// Takes the numbers of slots to be filled again.
    freed: Outlet,
    end: End,
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
    /// Nothing more, as the sender is gone.
    Gone,
}

impl Receiver {
    /// Opens what a sender has [offered](crate::Sender::offer); returns also the socket that takes
    /// its notes, to be handed to it.
    ///
    /// # Errors
    /// When the descriptors are others than those, or the system has no more memory or descriptors.
    pub fn open([memory, freed]: [OwnedFd; 2]) -> io::Result<(Self, OwnedFd)> {
        // Both are made the crate's own before either is looked at, or one would be closed here.
        let (memory, freed) = (View::open(memory), Outlet::open(freed));
        let (notes, notes_out) = Inlet::pair()?;
        let inner = Inner {
            memory: memory?,
            notes,
            freed: freed?,
            end: End::new()?,
            taken: AtomicU8::new(0),
        };
        Ok((Self(Arc::new(inner)), notes_out))
    }

    /// Takes the slot that the next note is about, if there is one.
    ///
    /// # Errors
    /// When it is none that a sender could have written.
    pub fn take(&self) -> io::Result<Next> {
        // If it was told before this look, all notes came before.
        let ended = self.0.end.is_told();
        let mut note = [0; NOTE_BYTES];
        match self.0.notes.read(&mut note) {
            Ok(NOTE_BYTES) => {
                let Note { number, len } = Note::read(note);
                let slot = self.claim(number, len);
                let slot = slot.ok_or_else(|| io::Error::other("a note of no slot to be taken"))?;
                Ok(Next::Slot(slot))
            }
            Ok(0) if !ended => Ok(Next::Gone),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ended => Ok(Next::Nothing),
            Ok(1..) => Err(io::Error::other("a part of a note")),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(_) | Err(_) => {
                self.0.end.forget()?;
                Ok(Next::End)
            }
        }
    }

    /// Waits for a note, the end, or that the sender goes.
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
        tokio::select! {
            ready = notes.readable() => ready.map(drop),
            () = self.0.end.wait() => Ok(()),
        }
    }

    /// Waits for the same on this thread, for some time.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn ready_within(&self, time: Duration) -> io::Result<()> {
        let mut either = [
            PollFd::new(&self.0.notes, PollFlags::IN),
            PollFd::new(&self.0.end, PollFlags::IN),
        ];
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        match poll(&mut either, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whoever takes slots that none will come after those that have.
    ///
    /// # Errors
    /// When the system cannot wake a thread that waits.
    pub fn tell_end(&self) -> io::Result<()> {
        self.0.end.tell()
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

/// Bytes in a slot, which is the sender's again when this is dropped.
///
/// They can be copied only, for a sender that breaks the agreement could change what was found right.
#[derive(Debug)]
pub struct Slot {
    inner: Arc<Inner>,
    number: u8,
    len: usize,
}

impl Slot {
    /// Returns how many bytes there are: one at least.
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies the bytes from the first `at` on, as many as `to` takes.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn copy_to(&self, at: usize, to: &mut [u8]) {
        let fits = at.checked_add(to.len()).is_some_and(|end| end <= self.len);
        assert!(fits, "invariant: no more is copied than there is");
        self.inner.memory.read(self.number, at, to);
    }

    /// Returns a copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.copy_to(0, &mut bytes);
        bytes
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.inner
            .taken
            .fetch_and(!(1 << self.number), Ordering::Release);
        // There is room for all of them. A sender that is gone, or does not read, needs none.
        self.inner.freed.write(&[self.number]).ok();
    }
}
