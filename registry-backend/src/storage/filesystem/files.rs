//! Opening, reading and listing: however long it takes, or without a wait.
//!
//! What is asked for often is in memory: the kernel keeps the names that it has looked up and the
//! pages that it has read. To get such a thing takes less than to have another thread get it, and
//! the kernel can be asked for what it has at hand and nothing else. It is always what the disk
//! holds now, whoever wrote it.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, RawDirEntry, ResolveFlags, openat, openat2, statat,
};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::storage::{Entry, Wait};

/// How much is read at first. Nearly all links and manifests are smaller, and then that was it.
const FIRST_READ_BYTES: usize = 4096;

/// The kernel keeps files in pages of so many bytes, or of a multiple.
const PAGE_BYTES: usize = 4096;

/// How much of a folder is listed at once.
const LIST_BYTES: usize = 32 << 10;

/// How files below a root are opened and read. A path is that below a folder which is open, or
/// begins at the system's root.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// Whether the kernel and the file system can be asked for what they have at hand; no longer
    /// once one of them has said that it does not know how.
    at_hand: AtomicBool,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            at_hand: AtomicBool::new(true),
        }
    }

    /// Opens a file or folder to read.
    pub(super) fn open(&self, at: BorrowedFd<'_>, path: &Path, wait: Wait) -> io::Result<File> {
        self.open_as(at, path, OFlags::RDONLY, wait)
    }

    /// Returns what is known of a file or folder.
    pub(super) fn metadata(
        &self,
        at: BorrowedFd<'_>,
        path: &Path,
        wait: Wait,
    ) -> io::Result<Metadata> {
        self.open_as(at, path, OFlags::PATH, wait)?.metadata()
    }

    /// Returns the whole of a file, or nothing where it is larger than `size_max`.
    pub(super) fn read(
        &self,
        at: BorrowedFd<'_>,
        path: &Path,
        size_max: u64,
        wait: Wait,
    ) -> io::Result<Option<Vec<u8>>> {
        let file = self.open(at, path, wait)?;
        self.read_whole(&file, size_max, wait)
    }

    /// Returns the whole of an open file, or nothing where it is larger than `size_max`.
    pub(super) fn read_whole(
        &self,
        file: &File,
        size_max: u64,
        wait: Wait,
    ) -> io::Result<Option<Vec<u8>>> {
        let size_max = usize::try_from(size_max).unwrap_or(usize::MAX);
        // One byte more than may be there tells whether it is.
        let mut content = vec![0; size_max.saturating_add(1).min(FIRST_READ_BYTES)];
        let mut filled = 0;
        loop {
            let (_, rest) = content.split_at_mut(filled);
            let read = self.read_at(file, rest, filled as u64, wait)?;
            let is_full = read == rest.len();
            filled += read;
            if filled > size_max {
                return Ok(None);
            }
            if is_full {
                let size = file.metadata()?.len();
                if size > size_max as u64 {
                    return Ok(None);
                }
                let size = usize::try_from(size).unwrap_or(0);
                content.resize(size.max(filled * 2) + 1, 0);
            } else if read == 0 || !filled.is_multiple_of(PAGE_BYTES) {
                // Short of what was asked for: the end, or the end of what is at hand, which is that
                // of a page.
                content.truncate(filled);
                return Ok(Some(content));
            }
        }
    }

    /// Returns the children of a folder, sorted by the bytes of their names. With [`Wait::Never`] its
    /// name is at hand, and then most likely the rest.
    pub(super) fn list(
        &self,
        at: BorrowedFd<'_>,
        path: &Path,
        wait: Wait,
    ) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.visit(at, path, wait, &mut |folder, child, name| {
            let is_folder = match child.file_type() {
                FileType::Directory => true,
                FileType::Symlink | FileType::Unknown => {
                    let stat = statat(folder, child.file_name(), AtFlags::empty());
                    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
                }
                _ => false,
            };
            let name = name.to_owned();
            entries.push(Entry { name, is_folder });
        })?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Visits the children of a folder, in any order.
    pub(super) fn visit(
        &self,
        at: BorrowedFd<'_>,
        path: &Path,
        wait: Wait,
        visit: &mut dyn FnMut(&File, &RawDirEntry<'_>, &str),
    ) -> io::Result<()> {
        let folder = self.open_as(at, path, OFlags::RDONLY | OFlags::DIRECTORY, wait)?;
        let mut buffer = Vec::with_capacity(LIST_BYTES);
        let mut children = RawDir::new(&folder, buffer.spare_capacity_mut());
        while let Some(child) = children.next() {
            let child = child?;
            // No key has a name that is not UTF-8, so such a file is not ours.
            match child.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => visit(&folder, &child, name),
            }
        }
        Ok(())
    }

    fn read_at(
        &self,
        file: &File,
        buffer: &mut [u8],
        offset: u64,
        wait: Wait,
    ) -> io::Result<usize> {
        match wait {
            Wait::AsNeeded => file.read_at(buffer, offset),
            Wait::Never => {
                let buffers = &mut [IoSliceMut::new(buffer)];
                let ask = || preadv2(file, buffers, offset, ReadWriteFlags::NOWAIT);
                self.at_hand(|| match rustix::io::retry_on_intr(ask) {
                    // What no folder can do says nothing about the file system.
                    Err(Errno::OPNOTSUPP) if is_folder(file) => Err(Errno::ISDIR),
                    read => read,
                })
            }
        }
    }

    fn open_as(
        &self,
        at: BorrowedFd<'_>,
        path: &Path,
        flags: OFlags,
        wait: Wait,
    ) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC;
        if wait == Wait::AsNeeded {
            let open = || openat(at, path, flags, Mode::empty());
            return Ok(rustix::io::retry_on_intr(open)?.into());
        }
        // A file that is no plain one, put there by somebody, must not make the opening wait.
        let flags = match flags.contains(OFlags::PATH) {
            true => flags,
            false => flags | OFlags::NONBLOCK,
        };
        let open = || openat2(at, path, flags, Mode::empty(), ResolveFlags::CACHED);
        let opened = self.at_hand(|| rustix::io::retry_on_intr(open));
        opened.map(File::from)
    }

    /// Asks for what is at hand; what is not, or cannot be asked for, is [`ErrorKind::WouldBlock`].
    fn at_hand<T>(&self, ask: impl FnOnce() -> rustix::io::Result<T>) -> io::Result<T> {
        if !self.at_hand.load(Ordering::Relaxed) {
            return Err(ErrorKind::WouldBlock.into());
        }
        match ask() {
            // Not known to the kernel or the file system, or kept from us by a container's filter.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                self.never_at_hand();
                Err(ErrorKind::WouldBlock.into())
            }
            answer => Ok(answer?),
        }
    }

    /// Leaves all reading to those who may wait.
    pub(super) fn never_at_hand(&self) {
        if self.at_hand.swap(false, Ordering::Relaxed) {
            tracing::info!(
                root = %self.root.display(),
                "the system cannot say what it has in memory: each read is left to another thread"
            );
        }
    }
}

fn is_folder(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_dir())
}
