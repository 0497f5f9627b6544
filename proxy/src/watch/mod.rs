//! Files and folders that are read again when they look changed.

mod folder;
mod stamp;

pub(crate) use folder::FolderWatch;

use std::fmt::Display;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use self::stamp::Stamp;

/// What files looked like when they were last read.
#[derive(Debug, Default)]
pub(crate) struct Watch(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    stamps: Vec<Option<Stamp>>,
    /// They could not be read, and may be the next time, looking the same.
    again: bool,
    told: Option<String>,
}

impl Watch {
    /// Looks at files that are about to be read for the first time: what changes after this is seen
    /// the next time.
    pub(crate) fn over(files: impl IntoIterator<Item: AsRef<Path>>) -> Self {
        Self(Mutex::new(Seen {
            stamps: stamps(files),
            ..Seen::default()
        }))
    }

    /// Reads the files again if they look changed, or if they could not be read the last time.
    ///
    /// `None` means that there is nothing to be told: nothing has changed, or what is wrong was told.
    pub(crate) fn look<T, E: Display>(
        &self,
        files: impl IntoIterator<Item: AsRef<Path>>,
        read: impl FnOnce() -> Result<T, E>,
        may_pass: impl FnOnce(&E) -> bool,
    ) -> Option<Result<T, E>> {
        let stamps = stamps(files);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = seen.stamps != stamps;
        if !changed && !seen.again {
            return None;
        }
        seen.stamps = stamps;
        let read = read();
        seen.again = read.as_ref().is_err_and(may_pass);
        let wrong = read.as_ref().err().map(ToString::to_string);
        let known = wrong.is_some() && wrong == seen.told && (seen.again || !changed);
        seen.told = wrong;
        (!known).then_some(read)
    }
}

fn stamps(files: impl IntoIterator<Item: AsRef<Path>>) -> Vec<Option<Stamp>> {
    let files = files.into_iter();
    files.map(|file| Stamp::of(file.as_ref()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "a").unwrap();
        let watch = Watch::over([&*file]);
        let look = |found: Result<u8, &'static str>| {
            watch.look([&*file], || found, |wrong| *wrong == "busy")
        };
        assert_eq!(look(Ok(1)), None);
        fs::write(&file, "ab").unwrap();
        assert_eq!(look(Err("busy")), Some(Err("busy")));
        assert_eq!(look(Err("busy")), None);
        // The file looks as it did.
        assert_eq!(look(Ok(2)), Some(Ok(2)));
        assert_eq!(look(Ok(3)), None);

        fs::write(&file, "abc").unwrap();
        assert_eq!(look(Err("broken")), Some(Err("broken")));
        assert_eq!(look(Ok(4)), None);
        fs::write(&file, "abcd").unwrap();
        assert_eq!(look(Err("broken")), Some(Err("broken")));
        fs::remove_file(&file).unwrap();
        assert_eq!(look(Err("busy")), Some(Err("busy")));
        assert_eq!(look(Err("busy")), None);
    }
}
