//! Reading past the page cache what is read for the first time.
//!
//! What was [written past](super::direct) the cache is not in it. To read it through the cache costs
//! memory, which on a virtual machine may have to come from the host first: several times as much as all
//! else about the read. Much of what a registry stores is read once or never. So the first reader gets
//! it directly, and who asks for it again soon reads it into the cache, for all that follow.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::direct;

/// How much must be read: each direct read waits for the disk.
const BYTES_MIN: u64 = 1 << 20;

/// How many files are remembered that were read.
const REMEMBERED_MAX: usize = 4096;

/// The files that were read directly of late, the latest at the end.
#[derive(Debug)]
pub(super) struct FirstReads {
    enabled: bool,
    files: Mutex<VecDeque<Id>>,
}

/// Device and inode. One that is used again, for a file that then counts as read, does no harm.
type Id = (u64, u64);

impl FirstReads {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            files: Mutex::default(),
        }
    }

    /// Has `size_bytes` from `first` on be read past the cache, by whoever reads from this open file, if
    /// that is its first read and it is not in the cache.
    pub(super) fn prepare(&self, file: &File, first: u64, size_bytes: u64) {
        if !self.enabled || size_bytes < BYTES_MIN {
            return;
        }
        // To look must not have the kernel read ahead. Only a wish; the answer is the same without it.
        fadvise(file, 0, None, Advice::Random).ok();
        let middle = first + size_bytes / 2;
        let is_cached = is_cached(file, first) || is_cached(file, middle);
        fadvise(file, 0, None, Advice::Normal).ok();
        if is_cached {
            return;
        }
        if self.is_first(file).unwrap_or(false) {
            // Where it cannot be done, the cache does.
            direct::set(file, true).ok();
        }
    }

    /// Returns whether nobody has read this file of late, and remembers that somebody does.
    fn is_first(&self, file: &File) -> io::Result<bool> {
        let stat = file.metadata()?;
        let id = (stat.dev(), stat.ino());
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.contains(&id) {
            return Ok(false);
        }
        if files.len() == REMEMBERED_MAX {
            files.pop_front();
        }
        files.push_back(id);
        Ok(true)
    }
}

/// Returns whether the kernel has the byte at `offset` in memory.
fn is_cached(file: &File, offset: u64) -> bool {
    let byte = &mut [0];
    let buffers = &mut [IoSliceMut::new(byte)];
    let read = rustix::io::retry_on_intr(|| preadv2(file, buffers, offset, ReadWriteFlags::NOWAIT));
    // Where it cannot say, reads are left as they are.
    !matches!(read, Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{OFlags, fcntl_getfl};
    use tempfile::NamedTempFile;

    use super::*;

    const SIZE: u64 = CONTENT.len() as u64;

    static CONTENT: [u8; 2 << 20] = [7; 2 << 20];

    /// Returns a file that only the disk has.
    fn on_disk() -> NamedTempFile {
        let file = tempfile::Builder::new().tempfile_in("/var/tmp").unwrap();
        std::fs::write(file.path(), &CONTENT[..]).unwrap();
        file.as_file().sync_all().unwrap();
        fadvise(file.as_file(), 0, None, Advice::DontNeed).unwrap();
        file
    }

    /// Whether the next reader of this file reads past the cache.
    fn is_direct(reads: &FirstReads, file: &NamedTempFile, size_bytes: u64) -> bool {
        let opened = File::open(file.path()).unwrap();
        reads.prepare(&opened, 0, size_bytes);
        fcntl_getfl(&opened).unwrap().contains(OFlags::DIRECT)
    }

    #[test]
    fn the_first_reader_reads_past_the_cache_and_the_next_into_it() {
        let reads = FirstReads::new(true);
        let once_direct = |file: &NamedTempFile| {
            assert!(!is_direct(&reads, file, BYTES_MIN - 1), "it is small");
            let first = is_direct(&reads, file, SIZE);
            assert!(!is_direct(&reads, file, SIZE), "somebody has read it");
            first
        };
        // While much else is written, the kernel may keep a file in memory that it need not.
        let files: Vec<_> = (0..10).map(|_| on_disk()).collect();
        let direct = files.iter().filter(|file| once_direct(file)).count();
        assert!(direct >= 2, "{direct} of 10");
        assert!(!is_direct(&FirstReads::new(false), &on_disk(), SIZE));
    }

    #[test]
    fn what_is_in_the_cache_is_read_from_there() {
        let file = on_disk();
        std::fs::read(file.path()).unwrap();
        assert!(!is_direct(&FirstReads::new(true), &file, SIZE));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let reads = FirstReads::new(true);
        *reads.files.lock().unwrap() = (0..REMEMBERED_MAX as u64).map(|id| (0, id)).collect();
        assert!(is_direct(&reads, &on_disk(), SIZE));
        let files = reads.files.lock().unwrap();
        assert_eq!(files.len(), REMEMBERED_MAX);
        assert!(!files.contains(&(0, 0)), "the oldest has made room");
    }
}
