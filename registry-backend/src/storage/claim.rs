//! One registry for one tree, in one generation of processes after the other.
//!
//! What is changed together is locked ([`Driver::try_lock`](super::Driver::try_lock)), but counts and
//! limits are each process's own, and two registries that know nothing of each other are a mistake. So a
//! registry claims the tree first: it locks the root's folder. A successor is handed the open folder,
//! and the lock with it, which therefore lasts without a gap until the last of them has ended.

use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::Error;

/// How often a tree is asked for that another process still has.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The right to write to a tree; ends when dropped, and every process that was handed it has ended.
#[derive(Debug)]
pub(crate) struct Claim {
    folder: File,
}

impl Claim {
    /// Claims the tree below `root`, with one of the open folders that a predecessor left if one of them
    /// is the root; returns nothing where another registry still has it after `patience`, which one that
    /// is dying may need.
    ///
    /// # Errors
    /// [`Error`] when the folder cannot be opened.
    pub(crate) fn take(
        root: &Path,
        handed: &[File],
        patience: Duration,
    ) -> Result<Option<Self>, Error> {
        let failed = |error| Error::io(root, error);
        let mut folder = File::open(root).map_err(failed)?;
        let same = |handed: &&File| is_same(handed, &folder).unwrap_or(false);
        if let Some(handed) = handed.iter().find(same) {
            folder = handed.try_clone().map_err(failed)?;
        }
        let deadline = Instant::now() + patience;
        let mut told = false;
        loop {
            match folder.try_lock() {
                Ok(()) => return Ok(Some(Self { folder })),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(
                        path = %root.display(),
                        error = &error as &dyn std::error::Error,
                        "file system has no locks: see to it that no other registry uses this tree"
                    );
                    return Ok(Some(Self { folder }));
                }
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!(path = %root.display(), "waiting for another process to let go of the tree");
            }
            thread::park_timeout(ASK_EVERY);
        }
    }
}

impl AsFd for Claim {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

fn is_same(one: &File, other: &File) -> std::io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
