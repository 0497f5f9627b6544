//! Sets the disk to work on part of a file, without waiting for all of it.
//!
//! The one system call that does this, `sync_file_range(2)`, has no safe wrapper in `rustix` or the
//! standard library. Without it the last reply of a push would wait for the whole blob to reach the
//! disk, which takes longer than clients wait.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use rustix::io::Errno;

/// Starts to write the bytes from `from` to `to`, those that are not being written already.
pub(super) fn start(file: &File, from: u64, to: u64) -> io::Result<()> {
    sync_file_range(file, from, to, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits until the bytes from `from` to `to` are written. This is for pace, not durability: neither
/// metadata nor the disk's own cache is flushed.
pub(super) fn wait(file: &File, from: u64, to: u64) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sync_file_range(file, from, to, flags)
}

#[expect(
    unsafe_code,
    reason = "the call has no safe wrapper; see the top of this file"
)]
fn sync_file_range(file: &File, from: u64, to: u64, flags: libc::c_uint) -> io::Result<()> {
    let invalid = |_too_large| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = i64::try_from(from).map_err(invalid)?;
    let len = i64::try_from(to.saturating_sub(from)).map_err(invalid)?;
    // SAFETY: the descriptor is open as long as `file` is borrowed, and the call takes only numbers.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match Errno::from_io_error(&error) {
        // A file system that cannot do this syncs at the end alone. Any other error must count: the
        // kernel reports a failed write only once, and the sync at the end would not see it again.
        Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::SPIPE | Errno::INTR) => Ok(()),
        _ => Err(error),
    }
}
