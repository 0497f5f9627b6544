//! A file that the registry has handed over.
//!
//! It is the registry's choice what that is. Whatever is none that a blob is in is refused before it is
//! read: a pipe that nobody writes to would hold a thread for good. One of a file system that another
//! process serves (FUSE, NFS) is read, and closed, where nobody waits for it.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use oci::range::ByteRange;
use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, statx};
use slots::descriptors;

/// A file that a blob may be in.
#[derive(Debug)]
pub(super) struct Handed {
    file: Option<File>,
    /// Whether the kernel serves it by itself, so that to close it waits for no other process.
    is_local: AtomicBool,
    /// Whether it is open for direct I/O.
    is_direct: AtomicBool,
}

impl Handed {
    /// Opens a file of which `part` is a body.
    ///
    /// # Errors
    /// When it is not a plain file, to be read only, with all of `part`.
    pub(super) fn open(file: OwnedFd, part: ByteRange) -> io::Result<Self> {
        let checked = check(&file, part);
        let handed = Self::unchecked(file.into());
        let flags = checked?;
        handed
            .is_direct
            .store(flags.contains(OFlags::DIRECT), Ordering::Relaxed);
        Ok(handed)
    }

    pub(super) fn unchecked(file: File) -> Self {
        Self {
            file: Some(file),
            is_local: AtomicBool::new(false),
            is_direct: AtomicBool::new(false),
        }
    }

    /// Returns whether it is to be read past the page cache.
    pub(super) fn is_direct(&self) -> bool {
        self.is_direct.load(Ordering::Relaxed)
    }

    /// Has it be read through the page cache from now on.
    pub(super) fn read_through_cache(&self) -> io::Result<()> {
        if self.is_direct.swap(false, Ordering::Relaxed) {
            fcntl_setfl(&**self, OFlags::empty())?;
        }
        Ok(())
    }

    /// Takes down that the kernel was able to say whether it has the bytes at hand, which it is of the
    /// file systems that it serves by itself.
    pub(super) fn is_local(&self) {
        self.is_local.store(true, Ordering::Relaxed);
    }
}

impl Deref for Handed {
    type Target = File;

    fn deref(&self) -> &File {
        let file = self.file.as_ref();
        file.expect("invariant: it is taken with `self`")
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if !*self.is_local.get_mut() {
            descriptors::discard(self.file.take().map(OwnedFd::from));
        }
    }
}

/// Checks a file; returns how it is open.
fn check(file: &OwnedFd, part: ByteRange) -> io::Result<OFlags> {
    // What the kernel knows, without a question to whoever serves the file system.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(file, "", flags, StatxFlags::TYPE | StatxFlags::SIZE)?;
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
        return Err(io::Error::other("it is not a plain file"));
    }
    let opened = fcntl_getfl(file)?;
    if opened & (OFlags::ACCMODE | OFlags::PATH) != OFlags::RDONLY {
        return Err(io::Error::other("it is not open to be read only"));
    }
    match part.last < stat.stx_size {
        true => Ok(opened),
        false => Err(io::Error::other("it is shorter than its part")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::net::UnixStream;

    use rustix::fs::{Mode, mknodat};

    use super::*;

    const PART: ByteRange = ByteRange { first: 2, last: 9 };

    fn check(file: impl Into<OwnedFd>) -> io::Result<()> {
        Handed::open(file.into(), PART).map(drop)
    }

    #[test]
    fn what_no_blob_is_in_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        fs::write(&path, [0; 10]).unwrap();
        check(File::open(&path).unwrap()).unwrap();
        let with = |options: &mut OpenOptions| options.open(&path).unwrap();
        check(with(OpenOptions::new().write(true))).unwrap_err();
        check(with(OpenOptions::new().read(true).write(true))).unwrap_err();
        let path_only = rustix::fs::open(&path, OFlags::PATH, Mode::empty()).unwrap();
        check(path_only).unwrap_err();
        fs::write(&path, [0; 9]).unwrap();
        check(File::open(&path).unwrap()).unwrap_err();

        check(File::open(folder.path()).unwrap()).unwrap_err();
        check(File::open("/dev/zero").unwrap()).unwrap_err();
        check(File::open("/proc/version").unwrap()).unwrap_err();
        check(UnixStream::pair().unwrap().0).unwrap_err();
        let fifo = folder.path().join("fifo");
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        check(rustix::fs::open(&fifo, flags, Mode::empty()).unwrap()).unwrap_err();
    }
}
