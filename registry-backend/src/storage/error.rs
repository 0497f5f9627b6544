//! What can go wrong with storage, by what a caller can do about it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why storage did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing is there.
    #[error("{}: not found", path.display())]
    NotFound {
        /// Where it should be.
        path: PathBuf,
    },
    /// The disk, or the quota on it, is full: the same may succeed later.
    #[error("{}", path.display())]
    NoSpace {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The object has more bytes than the caller wants to hold in memory.
    #[error("{}: larger than {size_max} bytes", path.display())]
    TooLarge {
        /// The object.
        path: PathBuf,
        /// The caller's limit.
        size_max: u64,
    },
    /// The answer is not at hand, and the caller said not to wait for it.
    #[error("{}: not at hand", path.display())]
    WouldWait {
        /// What was asked for.
        path: PathBuf,
    },
    /// The system failed in a way that only its operator can mend.
    #[error("{}", path.display())]
    Io {
        /// What was worked on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Sorts an error of the system.
    pub(crate) fn io(path: &Path, error: impl Into<io::Error>) -> Self {
        let source: io::Error = error.into();
        let path = path.to_owned();
        match source.kind() {
            // A folder where an object should be, or the other way round, is nothing of ours.
            ErrorKind::IsADirectory | ErrorKind::NotADirectory | ErrorKind::NotFound => {
                Self::NotFound { path }
            }
            ErrorKind::QuotaExceeded | ErrorKind::StorageFull => Self::NoSpace { path, source },
            ErrorKind::WouldBlock => Self::WouldWait { path },
            _ => Self::Io { path, source },
        }
    }
}

/// Turns "nothing is there" into `None`.
pub(crate) fn if_found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
