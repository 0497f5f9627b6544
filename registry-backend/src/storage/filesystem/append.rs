//! A file that grows while its bytes are already on their way to the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::durable::{Tree, with_parent};
use super::write_back;
use crate::storage::layout::Key;
use crate::storage::{Append, Durability, Error};

/// After how many bytes write-back is started: large enough for whole extents, small enough that
/// the last step of an upload finds little left to do.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// How far the writer may run ahead of the disk. A disk that is slower than the network holds the
/// client back here, so that the wait at the end is bounded whatever the size of the blob.
const UNWRITTEN_BYTES_MAX: u64 = 32 << 20;

/// As many parts as one call of `pwritev` takes (`UIO_MAXIOV`).
const PARTS_MAX: usize = 1024;

/// How much one call writes at most. The page cache takes what a call brings in pieces as large as
/// the call, and memory in large pieces comes cold, in a virtual machine from its host: a gibibyte
/// cost 2.3 s of CPU in calls of 512 KiB and 0.9 s in calls of 64 KiB.
const CALL_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct AppendFile {
    tree: Arc<Tree>,
    path: PathBuf,
    file: File,
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
            size_bytes,
            started: size_bytes,
            awaited: size_bytes,
        })
    }

    fn write_parts(&self, parts: &[Bytes]) -> io::Result<u64> {
        let mut slices: Vec<IoSlice<'_>> = parts
            .iter()
            .flat_map(|part| part.chunks(CALL_BYTES_MAX))
            .map(IoSlice::new)
            .collect();
        let mut rest = slices.as_mut_slice();
        let mut offset = self.size_bytes;
        while !rest.is_empty() {
            let batch = rest.get(..parts_of_a_call(rest)).unwrap_or(rest);
            let written =
                rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.file, batch, offset))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(offset)
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

/// How many of these, one at least, one call writes.
fn parts_of_a_call(parts: &[IoSlice<'_>]) -> usize {
    let mut bytes = 0;
    let fit = parts.iter().take(PARTS_MAX).take_while(|part| {
        bytes += part.len();
        bytes <= CALL_BYTES_MAX
    });
    fit.count().max(1)
}

impl Append for AppendFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn write(&mut self, parts: &[Bytes]) -> Result<(), Error> {
        match self.write_parts(parts) {
            Ok(end) => self.size_bytes = end,
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
        self.file
            .sync_data()
            .map_err(|error| Error::io(&self.path, error))?;
        let to = to.below(self.tree.root());
        self.tree.publish(&self.path, &to, Durability::Power)
    }
}
