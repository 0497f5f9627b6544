//! Writing past the page cache.
//!
//! To write through it costs a copy, memory for the copy, and the work of getting both to the disk
//! in the background: together more than all else that the registry does with a blob. What is lost is
//! that the first reader finds the bytes in memory. So this is for large pieces of large objects; the
//! small ones, such as the configs of images, are those that are read soon.
//!
//! What begins and ends at the edges of blocks never shares a page with what is written through the
//! cache before and after it, so the two ways are safe beside each other in one file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::storage::piece::BLOCK_BYTES;

/// How large an object must have become.
const OBJECT_BYTES_MIN: u64 = 1 << 20;

/// How much must be written at once: each write waits for the disk.
const BYTES_MIN: usize = 64 << 10;

/// Whether files below a root are written to directly.
#[derive(Debug)]
pub(super) struct Direct {
    root: PathBuf,
    /// No longer once the file system has said that it cannot.
    enabled: AtomicBool,
}

impl Direct {
    pub(super) fn new(root: &Path, enabled: bool) -> Self {
        Self {
            root: root.to_owned(),
            enabled: AtomicBool::new(enabled),
        }
    }

    /// Returns which of `bytes`, to be written at `offset`, to write directly: from where to where.
    pub(super) fn part(&self, bytes: &[u8], offset: u64) -> Option<(usize, usize)> {
        let end = offset + bytes.len() as u64;
        if end < OBJECT_BYTES_MIN || !self.enabled.load(Ordering::Relaxed) {
            return None;
        }
        let block = BLOCK_BYTES as u64;
        let first = usize::try_from(offset.next_multiple_of(block) - offset).ok()?;
        let last = bytes
            .len()
            .checked_sub(usize::try_from(end % block).ok()?)?;
        let part = bytes.get(first..last)?;
        let is_aligned = part.as_ptr().addr().is_multiple_of(BLOCK_BYTES);
        (is_aligned && part.len() >= BYTES_MIN).then_some((first, last))
    }

    /// Takes note that the file system cannot do it, if that is what `error` says; otherwise it is
    /// one to report.
    pub(super) fn refused(&self, error: io::Error) -> io::Result<()> {
        match Errno::from_io_error(&error) {
            Some(Errno::INVAL | Errno::OPNOTSUPP) => {}
            _ => return Err(error),
        }
        if self.enabled.swap(false, Ordering::Relaxed) {
            tracing::info!(
                root = %self.root.display(),
                "file system takes no direct writes: blobs go through the page cache"
            );
        }
        Ok(())
    }
}

/// Lets writes to the file go past the page cache, or through it again.
///
/// # Errors
/// `EINVAL` where the file system cannot do that for blocks of [`BLOCK_BYTES`].
pub(super) fn set(file: &File, direct: bool) -> io::Result<()> {
    let flags = if direct {
        check_alignment(file)?;
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    Ok(rustix::fs::fcntl_setfl(file, flags)?)
}

/// Checks that the file system wants no other alignment, if it says what it wants.
fn check_alignment(file: &File) -> io::Result<()> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    let Ok(stat) = stat else {
        return Ok(()); // the write will tell
    };
    if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN) {
        for wanted in [stat.stx_dio_mem_align, stat.stx_dio_offset_align] {
            let wanted = usize::try_from(wanted).unwrap_or(0);
            if wanted == 0 || !BLOCK_BYTES.is_multiple_of(wanted) {
                return Err(Errno::INVAL.into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(piece: &crate::storage::Piece, offset: u64) -> Option<(usize, usize)> {
        Direct::new(Path::new("/"), true).part(piece, offset)
    }

    fn piece(offset: u64, len: usize) -> crate::storage::Piece {
        let mut piece = crate::storage::Piece::at(offset);
        assert!(piece.fill(&vec![1; len]).is_empty());
        piece
    }

    #[test]
    fn whole_blocks_of_large_objects_are_written_directly() {
        assert_eq!(part(&piece(0, 1 << 20), 0), Some((0, 1 << 20)));
        assert_eq!(
            part(&piece(0, (1 << 20) - 1), 0),
            None,
            "the object is small"
        );
        let at = 5 << 20;
        assert_eq!(part(&piece(at, 100_000), at), Some((0, 98_304)));
        assert_eq!(part(&piece(at + 1, 100_000), at + 1), Some((4095, 98_303)));
        assert_eq!(
            part(&piece(at, 100_000), at + 1),
            None,
            "laid out for another place"
        );
        assert_eq!(part(&piece(at, 60_000), at), None, "too little at once");
        assert_eq!(part(&piece(at, 0), at), None);
        let off = Direct::new(Path::new("/"), false);
        assert_eq!(off.part(&piece(0, 1 << 20), 0), None);
    }

    #[test]
    fn a_file_system_that_refuses_is_not_asked_again() {
        let direct = Direct::new(Path::new("/"), true);
        direct.refused(Errno::IO.into()).unwrap_err();
        assert!(direct.part(&piece(0, 1 << 20), 0).is_some());
        direct.refused(Errno::INVAL.into()).unwrap();
        assert!(direct.part(&piece(0, 1 << 20), 0).is_none());
    }
}
