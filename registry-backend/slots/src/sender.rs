//! The side that writes.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::channel::{Inlet, Outlet};
use crate::memory::Memory;
use crate::note::Note;
use crate::{SLOT_BYTES, SLOTS};

const _: () = assert!(SLOTS <= u8::BITS as usize, "each has a bit");

/// What becomes a sender once the other side has taken what it is offered.
#[derive(Debug)]
pub struct Offer {
    memory: Memory,
    freed: Inlet,
}

/// Fills slots.
#[derive(Debug)]
pub struct Sender {
    memory: Memory,
    /// Takes notes of those that were filled.
    notes: Outlet,
    /// Gives the numbers of slots to be filled again.
    freed: AsyncFd<Inlet>,
    /// Those that are at hand; the last one is used next, so that no more have memory than are needed.
    free: Vec<u8>,
    /// Which of them have memory, a bit for each.
    warm: u8,
}

impl Offer {
    /// Becomes a sender, whose notes go to the socket that the receiver [made](crate::Receiver::open).
    ///
    /// # Errors
    /// When it is another descriptor than that.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[expect(unsafe_code, reason = "a descriptor that is lent to the runtime")]
    pub fn taken(self, notes: OwnedFd) -> io::Result<Sender> {
        let slots = u8::try_from(SLOTS).expect("invariant: there are few slots");
        let notes = Outlet::open(notes)?;
        // SAFETY: What is lent keeps the descriptor open, and the same, until it is dropped.
        let freed = unsafe { AsyncFd::register_with_interest(self.freed, Interest::READABLE) }?;
        Ok(Sender {
            memory: self.memory,
            notes,
            freed,
            free: (0..slots).rev().collect(),
            warm: 0,
        })
    }
}

/// A slot that is being filled. One that is dropped before it was [sent](Sender::send) is lost.
#[derive(Debug)]
#[must_use]
pub struct Filling {
    number: u8,
    len: usize,
}

impl Filling {
    /// Returns whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.len == SLOT_BYTES
    }
}

impl Sender {
    /// Makes the memory; returns also what is for the other side: the memory to be read, and the
    /// socket that takes the numbers of slots to be filled again.
    ///
    /// # Errors
    /// When the system has no more memory or descriptors.
    pub fn offer() -> io::Result<(Offer, [OwnedFd; 2])> {
        let memory = Memory::create()?;
        let to_be_read = memory.to_be_read()?;
        let (freed, freed_out) = Inlet::pair()?;
        Ok((Offer { memory, freed }, [to_be_read, freed_out]))
    }

    /// Returns a slot to be filled, once there is one. To give up waiting loses nothing.
    ///
    /// # Errors
    /// When the receiver is gone, or the system has no more memory.
    pub async fn slot(&mut self) -> io::Result<Filling> {
        loop {
            self.collect_now()?;
            if let Some(number) = self.free.pop() {
                self.warm_up(number)?;
                return Ok(Filling { number, len: 0 });
            }
            let mut numbers = [0; SLOTS];
            let mut readable = self.freed.readable().await?;
            // One that is not ready after all is waited for again.
            if let Ok(read) = readable.try_io(|freed| freed.get_ref().read(&mut numbers)) {
                self.collect(read, numbers)?;
            }
        }
    }

    /// Takes in as many bytes as fit; returns the rest.
    pub fn fill<'a>(&mut self, filling: &mut Filling, bytes: &'a [u8]) -> &'a [u8] {
        let fits = bytes.len().min(SLOT_BYTES - filling.len);
        let (taken, rest) = bytes.split_at(fits);
        self.memory.write(filling.number, filling.len, taken);
        filling.len += taken.len();
        rest
    }

    /// Makes the slot, which is not empty, the receiver's.
    ///
    /// # Errors
    /// When the receiver is gone, or reads no notes.
    pub fn send(&mut self, filling: Filling) -> io::Result<()> {
        let Filling { number, len } = filling;
        // There is room for many more notes than there are slots.
        self.notes.write(&Note { number, len }.write())
    }

    /// Gives memory back to the system, for the time in which nothing is sent; returns whether the
    /// receiver has returned all slots, without which it can't be done.
    ///
    /// # Errors
    /// When the receiver is gone.
    pub fn rest(&mut self) -> io::Result<bool> {
        self.collect_now()?;
        if self.free.len() < SLOTS {
            return Ok(false);
        }
        if self.warm != 0 {
            self.memory.clear()?;
            self.warm = 0;
        }
        Ok(true)
    }

    /// Gets memory for a slot that has none: to be refused it is an error, to touch what cannot be
    /// had ends the process.
    fn warm_up(&mut self, number: u8) -> io::Result<()> {
        let bit = 1 << number;
        if self.warm & bit == 0 {
            self.memory.reserve(number)?;
            self.warm |= bit;
        }
        Ok(())
    }

    /// Takes in which slots are free again; past tokio, which may not have seen it yet.
    fn collect_now(&mut self) -> io::Result<()> {
        let mut numbers = [0; SLOTS];
        let read = self.freed.get_ref().read(&mut numbers);
        self.collect(read, numbers)
    }

    /// Takes in that slots are free again, as a read has said.
    fn collect(&mut self, read: io::Result<usize>, numbers: [u8; SLOTS]) -> io::Result<()> {
        match read {
            Ok(0) => Err(io::ErrorKind::BrokenPipe.into()),
            Ok(count) => numbers.iter().take(count).try_for_each(|number| {
                if usize::from(*number) >= SLOTS || self.free.contains(number) {
                    return Err(io::Error::other("the receiver frees what it never had"));
                }
                self.free.push(*number);
                Ok(())
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
impl Sender {
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }
}
