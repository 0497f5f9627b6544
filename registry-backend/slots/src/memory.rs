//! The memory itself, as either side has it, and the two places where it is touched.
//!
//! The side that fills it makes it, and hands over a descriptor that cannot write. So nothing that the
//! other side can do changes what is in it, or holds the lock of it that `fallocate` takes.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{Ordering, compiler_fence};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    fstatfs, memfd_create,
};

use crate::descriptors::Foreign;
use crate::{SLOT_BYTES, SLOTS, copy};

const BYTES: usize = SLOTS * SLOT_BYTES;

/// What is sealed: that the memory stays as large as it is, or whoever reads it would be killed.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// The file system of memory in ordinary pages (`TMPFS_MAGIC`). The other one that has seals is that
/// of huge pages, of which there may be none when a page is touched, which kills.
const TMPFS: u64 = 0x0102_1994;

/// Memory of all slots, for the side that fills them.
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
        // Nobody else opens it again to write, as they could by way of /proc.
        file.set_permissions(Permissions::from_mode(0o600))?;
        fcntl_add_seals(&file, SEALS)?;
        let map = MmapOptions::new().len(BYTES).map_raw(&file)?;
        Ok(Self { file, map })
    }

    /// Returns a descriptor by which it can be read only.
    pub(crate) fn to_be_read(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(File::open(path)?.into())
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
        // `self`; `bytes` cannot overlap it, as there are no references into it.
        unsafe {
            copy::past_caches(bytes, self.map.as_mut_ptr().add(begin));
        }
    }
}

#[cfg(test)]
impl Memory {
    /// Returns how much of it is in use.
    pub(crate) fn size_bytes(&self) -> u64 {
        let stat = fstat(&self.file).unwrap();
        u64::try_from(stat.st_blocks).unwrap() * 512
    }
}

/// Memory of all slots, for the side that reads them.
#[derive(Debug)]
pub(crate) struct View(MmapRaw);

impl View {
    /// # Errors
    /// Also when it is none as [`Memory::create`] makes it.
    pub(crate) fn open(file: OwnedFd) -> io::Result<Self> {
        let file = Foreign::new(file);
        // First, as this asks no file system: what has no seals is an error here.
        let sealed = fcntl_get_seals(&file)?.contains(SEALS);
        if !sealed || u64::try_from(fstatfs(&file)?.f_type) != Ok(TMPFS) {
            return Err(io::Error::other("the memory is not as agreed"));
        }
        let file = file.into_inner();
        if u64::try_from(fstat(&file)?.st_size) != Ok(BYTES as u64) {
            return Err(io::Error::other("the memory has another size"));
        }
        let map = MmapOptions::new().len(BYTES).map_raw_read_only(&file)?;
        Ok(Self(map))
    }

    /// Copies bytes of a slot, from its first `at` on. Another process may write to them meanwhile, so
    /// what comes is not known, but is the same however often it is looked at.
    ///
    /// # Panics
    /// When the slot has not as many.
    #[expect(unsafe_code, reason = "another process has this memory, too")]
    pub(crate) fn read(&self, slot: u8, at: usize, to: &mut [u8]) {
        let begin = place(slot, at, to.len());
        // SAFETY: `place` has checked that the range is within the mapping, which lives as long as
        // `self`, is initialised, and cannot shrink. `to` cannot overlap it, as there are no references
        // into it.
        unsafe {
            std::ptr::copy_nonoverlapping(self.0.as_ptr().add(begin), to.as_mut_ptr(), to.len());
        }
        // From here on the compiler must not take the memory for the copy.
        compiler_fence(Ordering::SeqCst);
    }
}

/// Returns where a range of a slot begins.
fn place(slot: u8, at: usize, len: usize) -> usize {
    let slot = usize::from(slot);
    let fits = at.checked_add(len).is_some_and(|end| end <= SLOT_BYTES);
    assert!(slot < SLOTS && fits, "invariant: it fits into a slot");
    slot * SLOT_BYTES + at
}
