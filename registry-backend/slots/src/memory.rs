//! The memory itself, and the two places where it is touched.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    memfd_create,
};

use crate::{SLOT_BYTES, SLOTS, copy};

const BYTES: usize = SLOTS * SLOT_BYTES;

/// What is sealed: that the memory stays as large as it is, or whoever reads it would be killed.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Memory of all slots, mapped here.
#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
    map: MmapRaw,
}

impl Memory {
    pub(crate) fn create() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("tidegate-slots", flags)?);
        file.set_len(BYTES as u64)?;
        fcntl_add_seals(&file, SEALS)?;
        Self::map(file)
    }

    /// # Errors
    /// Also when another than [`Memory::create`] made it.
    pub(crate) fn open(file: OwnedFd) -> io::Result<Self> {
        let sealed = fcntl_get_seals(&file)?.contains(SEALS);
        let len = u64::try_from(fstat(&file)?.st_size);
        if !sealed || len != Ok(BYTES as u64) {
            return Err(io::Error::other("the memory is not as agreed"));
        }
        Self::map(file.into())
    }

    fn map(file: File) -> io::Result<Self> {
        let map = MmapOptions::new().len(BYTES).map_raw(&file)?;
        Ok(Self { file, map })
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Gives the memory back to the system; what was in it is gone.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, 0, BYTES as u64)?)
    }

    /// Gets memory for a slot.
    pub(crate) fn reserve(&self, slot: u8) -> io::Result<()> {
        let begin = place(slot, 0, SLOT_BYTES) as u64;
        Ok(fallocate(
            &self.file,
            FallocateFlags::KEEP_SIZE,
            begin,
            SLOT_BYTES as u64,
        )?)
    }

    /// Writes into a slot, which belongs to the caller, behind its first `at` bytes.
    ///
    /// # Panics
    /// When it does not fit.
    #[expect(unsafe_code, reason = "another process has this memory, too")]
    pub(crate) fn write(&self, slot: u8, at: usize, bytes: &[u8]) {
        let begin = place(slot, at, bytes.len());
        // SAFETY: `place` has checked that the range is within the mapping, which lives as long as
        // `self`; `bytes` cannot overlap it, as no reference into a slot of the sender's exists.
        unsafe {
            copy::past_caches(bytes, self.map.as_mut_ptr().add(begin));
        }
    }

    /// Returns the first bytes of a slot, which belongs to the caller.
    ///
    /// # Panics
    /// When it has not as many.
    #[expect(unsafe_code, reason = "another process has this memory, too")]
    pub(crate) fn read(&self, slot: u8, len: usize) -> &[u8] {
        let begin = place(slot, 0, len);
        // SAFETY: `place` has checked that the range is within the mapping, which lives as long as
        // `self`, is initialised, and cannot shrink. Nothing in this process writes to a slot that
        // the receiver has. The other process has no reason to; for one that does nonetheless the
        // bytes are to be copied, once, before anything is made of them ([`crate::Slot`]).
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(begin), len) }
    }
}

/// Returns where a range of a slot begins.
fn place(slot: u8, at: usize, len: usize) -> usize {
    let slot = usize::from(slot);
    let fits = at.checked_add(len).is_some_and(|end| end <= SLOT_BYTES);
    assert!(slot < SLOTS && fits, "invariant: it fits into a slot");
    slot * SLOT_BYTES + at
}
