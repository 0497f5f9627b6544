//! One registry for one tree.
//!
//! A registry knows which of its requests writes to an upload, but not what another process does;
//! two that write to one upload could publish bytes that are not those of the digest. So a registry
//! claims the tree first. The claim is the system's lock on the root's folder: it ends with the
//! process, however that ends, and leaves nothing behind.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::Error;

/// The right to write to a tree; ends when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    _folder: File,
}

impl Claim {
    /// Claims the tree below `root`; returns nothing where another registry has it.
    ///
    /// # Errors
    /// [`Error`] when the folder cannot be opened.
    pub(crate) fn take(root: &Path) -> Result<Option<Self>, Error> {
        let folder = File::open(root).map_err(|error| Error::io(root, error))?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => tracing::warn!(
                path = %root.display(),
                error = &error as &dyn std::error::Error,
                "file system has no locks: see to it that no other registry uses this tree"
            ),
        }
        Ok(Some(Self { _folder: folder }))
    }
}
