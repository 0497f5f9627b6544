//! A file that grows while its bytes are already on their way to the disk, or there.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::direct;
use super::durable::{Tree, with_parent};
use super::write_back;
use crate::storage::layout::Key;
use crate::storage::piece::BLOCK_BYTES;
use crate::storage::{Append, Durability, Error};

/// After how many bytes write-back is started: large enough for whole extents, small enough that
/// the last step of an upload finds little left to do.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// How far the writer may run ahead of the disk. A disk that is slower than the network holds the
/// client back here, so that the wait at the end is bounded whatever the size of the blob.
const UNWRITTEN_BYTES_MAX: u64 = 32 << 20;

/// How much one call writes to the page cache at most. It takes what a call brings in pieces as large
/// as the call, and memory in large pieces comes cold, in a virtual machine from its host: a gibibyte
/// cost 2.3 s of CPU in calls of 512 KiB and 0.9 s in calls of 64 KiB.
const CALL_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct AppendFile {
    tree: Arc<Tree>,
    path: PathBuf,
    file: File,
    /// Whether writes to `file` go past the page cache.
    is_direct: bool,
    size_bytes: u64,
    /// Up to where write-back was started.
    started: u64,
    /// Up to where write-back was awaited.
    awaited: u64,
}

impl AppendFile {
    pub(super) fn open(tree: Arc<Tree>, path: PathBuf) -> Result<Self, Error> {
        let file = with_parent(&path, || {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
        })?;
        let size_bytes = file
            .metadata()
            .map_err(|error| Error::io(&path, error))?
            .len();
        Ok(Self {
            tree,
            path,
            file,
            is_direct: false,
            size_bytes,
            started: size_bytes,
            awaited: size_bytes,
        })
    }

    /// Writes `bytes` after the content; returns where they end.
    fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let mut written = 0;
        if let Some((first, last)) = self.tree.direct().part(bytes, self.size_bytes) {
            self.write_buffered(bytes, 0, first)?;
            written = match self.write_directly(bytes, first, last) {
                Ok(end) => end,
                Err(error) => {
                    self.tree.direct().refused(error)?;
                    first
                }
            };
        }
        self.write_buffered(bytes, written, bytes.len())?;
        Ok(self.size_bytes + bytes.len() as u64)
    }

    /// Writes the bytes from `first` to `last`, whole blocks, past the page cache; returns how far
    /// it came with whole blocks.
    fn write_directly(&mut self, bytes: &[u8], first: usize, last: usize) -> io::Result<usize> {
        self.set_direct(true)?;
        let mut written = first;
        // What is left after part of a block goes through the cache.
        while written < last && (written - first).is_multiple_of(BLOCK_BYTES) {
            written += self.write_once(bytes, written, last)?;
        }
        Ok(written)
    }

    fn write_buffered(&mut self, bytes: &[u8], first: usize, last: usize) -> io::Result<()> {
        if first < last {
            self.set_direct(false)?;
        }
        let mut written = first;
        while written < last {
            written += self.write_once(bytes, written, last.min(written + CALL_BYTES_MAX))?;
        }
        Ok(())
    }

    /// Writes some of the bytes from `first` to `last`; returns how many.
    fn write_once(&self, bytes: &[u8], first: usize, last: usize) -> io::Result<usize> {
        let bytes = bytes.get(first..last).unwrap_or_default();
        let offset = self.size_bytes + first as u64;
        let write = || rustix::io::pwrite(&self.file, bytes, offset);
        match rustix::io::retry_on_intr(write)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        }
    }

    fn set_direct(&mut self, is_direct: bool) -> io::Result<()> {
        if self.is_direct != is_direct {
            direct::set(&self.file, is_direct)?;
            self.is_direct = is_direct;
        }
        Ok(())
    }

    fn write_back(&mut self) -> io::Result<()> {
        if self.size_bytes - self.started < WRITE_BACK_BYTES {
            return Ok(());
        }
        write_back::start(&self.file, self.started, self.size_bytes)?;
        self.started = self.size_bytes;
        let await_to = self.size_bytes.saturating_sub(UNWRITTEN_BYTES_MAX);
        if await_to > self.awaited {
            write_back::wait(&self.file, self.awaited, await_to)?;
            self.awaited = await_to;
        }
        Ok(())
    }
}

impl Append for AppendFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.write_bytes(bytes) {
            Ok(end) => {
                self.size_bytes = end;
                self.tree.figures().wrote(bytes.len());
            }
            Err(error) => {
                self.truncate(self.size_bytes)?;
                return Err(Error::io(&self.path, error));
            }
        }
        self.write_back()
            .map_err(|error| Error::io(&self.path, error))
    }

    fn truncate(&mut self, size_bytes: u64) -> Result<(), Error> {
        self.file
            .set_len(size_bytes)
            .map_err(|error| Error::io(&self.path, error))?;
        self.size_bytes = size_bytes;
        self.started = self.started.min(size_bytes);
        self.awaited = self.awaited.min(size_bytes);
        Ok(())
    }

    fn publish(self: Box<Self>, to: &Key) -> Result<(), Error> {
        let figures = self.tree.figures();
        figures
            .timed(|| self.file.sync_data())
            .map_err(|error| Error::io(&self.path, error))?;
        let to = to.below(self.tree.root());
        self.tree.publish(&self.path, &to, Durability::Power)
    }
}
