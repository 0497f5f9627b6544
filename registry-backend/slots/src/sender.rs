//! The side that writes.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use tokio::net::unix::pipe;

use crate::memory::Memory;
use crate::note::Note;
use crate::{SLOT_BYTES, SLOTS};

const _: () = assert!(SLOTS <= u8::BITS as usize, "each has a bit");

/// Fills slots.
#[derive(Debug)]
pub struct Sender {
    memory: Memory,
    /// Takes notes of those that were filled.
    notes: OwnedFd,
    /// Gives the numbers of slots to be filled again.
    freed: pipe::Receiver,
    /// Those that are at hand; the last one is used next, so that no more have memory than are needed.
    free: Vec<u8>,
    /// Which of them have memory, a bit for each.
    warm: u8,
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
    /// Opens what was [offered](crate::Offer::descriptors).
    ///
    /// # Errors
    /// When the descriptors are others than those, or the system has no more memory.
    pub fn open([memory, notes, freed]: [OwnedFd; 3]) -> io::Result<Self> {
        let slots = u8::try_from(SLOTS).expect("invariant: there are few slots");
        Ok(Self {
            memory: Memory::open(memory)?,
            notes: checked(notes)?,
            freed: pipe::Receiver::from_owned_fd(freed)?,
            free: (0..slots).rev().collect(),
            warm: 0,
        })
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
            self.freed.readable().await?;
            let mut numbers = [0; SLOTS];
            let read = self.freed.try_read(&mut numbers);
            self.collect(read, numbers)?;
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
        rustix::io::write(&self.notes, &Note::Slot { number, len }.write())?;
        Ok(())
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
        let read = rustix::io::read(&self.freed, &mut numbers);
        self.collect(read.map_err(io::Error::from), numbers)
    }

    /// Takes in that slots are free again, as a read from the pipe has said.
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

/// Checks that notes can be written to a descriptor without waiting. The runtime, which has a check of
/// its own, is not to know the pipe: it would be woken by each note that is read.
fn checked(notes: OwnedFd) -> io::Result<OwnedFd> {
    let is_pipe = FileType::from_raw_mode(fstat(&notes)?.st_mode) == FileType::Fifo;
    let flags = fcntl_getfl(&notes)?;
    let never_waits = flags.contains(OFlags::NONBLOCK);
    if !is_pipe || !never_waits || flags & OFlags::ACCMODE != OFlags::WRONLY {
        return Err(io::Error::other("the pipe for notes is not as agreed"));
    }
    Ok(notes)
}
