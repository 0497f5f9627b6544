//! Folders of the edge's own, where a file comes and goes with what it stands for.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::stamp::Stamp;

/// What a folder looked like when it was last read for good.
#[derive(Debug, Default)]
pub(crate) struct FolderWatch(Mutex<Option<Stamp>>);

impl FolderWatch {
    /// Reads the folder again if it looks changed, if the last time was not for good, or if it is
    /// `due`; `read` returns whether it may be left at that.
    ///
    /// A folder looks the same when a file in it is written in place. So whoever finds one that
    /// cannot be read does not leave it at that.
    pub(crate) fn look(&self, folder: &Path, due: bool, read: impl FnOnce() -> bool) {
        let stamp = Stamp::of(folder).ok();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp.is_some() && *seen == stamp && !due {
            return;
        }
        // What changes in the same tick of the clock after this look leaves the folder as it looks
        // now, so that only a look that is older than the last change counts.
        let settled = stamp.filter(Stamp::is_settled);
        let whole = read();
        *seen = settled.filter(|_| whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_until_that_is_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let looks = |folder: &Path, due: bool, whole: bool, watch: &FolderWatch| {
            let mut read = false;
            watch.look(folder, due, || {
                read = true;
                whole
            });
            read
        };
        // It has changed in this moment, and might once more.
        let watch = FolderWatch::default();
        assert!(looks(folder.path(), false, true, &watch));
        assert!(looks(folder.path(), false, true, &watch));
        // It is not there.
        let gone = folder.path().join("gone");
        assert!(looks(&gone, false, true, &watch));
        assert!(looks(&gone, false, true, &watch));
        // It has been there for long.
        let old = Path::new("/usr");
        assert!(looks(old, false, false, &watch));
        assert!(looks(old, false, true, &watch));
        assert!(!looks(old, false, true, &watch));
        assert!(looks(old, true, false, &watch));
        assert!(looks(old, false, true, &watch));
    }
}
