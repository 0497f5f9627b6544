//! What storage measures of its own work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use instruments::Histogram;

/// How long syncing takes, and how much was written.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Calls that wait until something is on the disk.
    pub(crate) syncs: Histogram,
    written_bytes: AtomicU64,
}

impl Figures {
    /// Does `sync`, and counts how long it takes.
    pub(super) fn timed<T>(&self, sync: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let synced = sync();
        self.syncs.observe(begun.elapsed());
        synced
    }

    /// Counts bytes that were written.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns how many bytes of objects were written.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }
}

/// How much room there is, on the file system as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Space {
    /// What this process may still fill.
    pub(crate) free_bytes: u64,
    /// What is taken, by whomever.
    pub(crate) used_bytes: u64,
}
