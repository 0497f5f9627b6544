//! How the registry and its storage are, for whoever watches them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Error, Registry};
use crate::storage::error::if_found;
use crate::storage::{Durability, Figures, Space, layout};

/// How much is written to see whether anything can be: more than a file system keeps beside a name.
const PROBE_BYTES: usize = 4096;

/// What was done since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    blobs: AtomicU64,
    manifests: AtomicU64,
    expired: AtomicU64,
}

impl Tally {
    pub(super) fn wrote_blob(&self) {
        self.blobs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wrote_manifest(&self) {
        self.manifests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn expired_upload(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many blobs, manifests apart, were written.
    pub(crate) fn blobs(&self) -> u64 {
        self.blobs.load(Ordering::Relaxed)
    }

    /// Returns how many manifests were written.
    pub(crate) fn manifests(&self) -> u64 {
        self.manifests.load(Ordering::Relaxed)
    }

    /// Returns how many uploads were removed since nobody went on with them.
    pub(crate) fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }
}

/// How many uploads there are, as far as is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct UploadCounts {
    /// In all.
    pub(crate) open: usize,
    /// Of these, how many nobody has gone on with for an hour.
    pub(crate) abandoned: usize,
}

impl Registry {
    /// Writes a small object, durably, and removes it.
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::Storage`]: pushes fail as well, then.
    pub(crate) fn probe_storage(&self) -> Result<(), Error> {
        let key = layout::probe();
        self.driver
            .write(&key, &[0; PROBE_BYTES], Durability::Power)?;
        // Another process on the same tree may have done so.
        if_found(self.driver.delete(&key, Durability::Process))?;
        Ok(())
    }

    /// Returns how much room there is.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn space(&self) -> Result<Space, Error> {
        Ok(self.driver.space()?)
    }

    /// Returns what storage has measured.
    pub(crate) fn storage_figures(&self) -> &Figures {
        self.driver.figures()
    }

    /// Returns what was done since the start.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Counts the uploads.
    pub(crate) fn upload_counts(&self) -> UploadCounts {
        self.open_uploads.counts()
    }

    /// Returns how many wait for a repository's lock.
    pub(crate) fn waiting_for_locks(&self) -> usize {
        self.locks.waiting()
    }
}
