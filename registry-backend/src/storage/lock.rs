//! Locks that every process on the same tree heeds.
//!
//! They are the system's, on open folders (flock(2)): one ends with the process that holds it, however
//! that ends, and leaves nothing behind.

use std::fs::{File, TryLockError};
use std::io;

/// A folder that nobody else locks; until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Nothing where the file system has no locks.
    _folder: Option<File>,
}

impl Lock {
    /// Locks an open folder; returns nothing where it is locked already, by this process or another.
    ///
    /// # Errors
    /// When the file system has no locks.
    pub(crate) fn try_take(folder: File) -> io::Result<Option<Self>> {
        match folder.try_lock() {
            Ok(()) => Ok(Some(Self {
                _folder: Some(folder),
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Stands in for a lock where the file system has none.
    pub(crate) fn without_effect() -> Self {
        Self { _folder: None }
    }
}
