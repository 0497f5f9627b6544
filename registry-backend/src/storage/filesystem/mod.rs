//! Objects as files of a local file system.
//!
//! Every change of the tree goes through [`durable::Tree`], which bundles it with the syncing that
//! makes it durable; nothing here renames or unlinks on its own.

mod append;
mod batch;
mod direct;
mod durable;
mod files;
mod first_reads;
mod side_by_side;
mod write_back;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags, openat, statvfs};

use super::layout::{self, Key};
use super::{
    Append, Driver, Durability, Entry, Error, Figures, Lock, Read, Space, Stat, Wait, Write,
    one_by_one,
};
use append::AppendFile;
use batch::Batch;
use direct::Direct;
use durable::{Staged, Tree};
use files::Files;
use first_reads::FirstReads;

/// How many objects are made durable together; fewer are one by one. Together is sooner from the
/// fourth on, but has to write what others have left to be written, too: a manifest with its tag is
/// four.
const BATCH_MIN: usize = 8;

/// The driver for a folder of a local file system.
#[derive(Debug)]
pub(crate) struct Filesystem {
    tree: Arc<Tree>,
    files: Files,
    epoch: String,
    /// Whether many files can be made durable together.
    batches: bool,
    first_reads: Arc<FirstReads>,
}

impl Filesystem {
    /// Opens the tree below `root`, which is made where it does not exist; with `direct_io`, what is
    /// large is written past the page cache, and read past it for the first time.
    ///
    /// # Errors
    /// [`Error`] naming the path when the folder cannot be made or written to.
    pub(crate) fn open(root: &Path, direct_io: bool) -> Result<Self, Error> {
        durable::make_root(root).map_err(|error| Error::Io {
            path: root.to_owned(),
            source: error,
        })?;
        let direct = Direct::new(root, direct_io);
        let tree = Tree::new(root.to_owned(), layout::staging().below(root), direct);
        // The first write of a client is the wrong moment to learn that the disk is read-only; but
        // one that is full can be read from, and may have room later.
        match tree.stage() {
            Ok(_) | Err(Error::NoSpace { .. }) => {}
            Err(error) => return Err(error),
        }
        // Relaxed writes live in the page cache, so they are lost with the boot that made them.
        let epoch = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(
            |_no_proc| uuid::Uuid::new_v4().to_string(),
            |id| id.trim().to_owned(),
        );
        let batches = batch::is_possible(tree.staging());
        Ok(Self {
            tree: Arc::new(tree),
            files: Files::new(root),
            epoch,
            batches,
            first_reads: Arc::new(FirstReads::new(direct_io)),
        })
    }

    /// Has each read waited for, as where the system cannot say what it has in memory.
    #[cfg(test)]
    pub(crate) fn waiting(self) -> Self {
        self.files.never_at_hand();
        self
    }

    fn path(&self, key: &Key) -> PathBuf {
        key.below(self.tree.root())
    }

    /// Makes a file with `content` outside of everyone's sight.
    fn stage(&self, content: &[u8], synced: bool) -> Result<Staged, Error> {
        let staged = self.tree.stage()?;
        let write = || {
            let mut file = OpenOptions::new().write(true).open(staged.path())?;
            file.write_all(content)?;
            if synced {
                self.tree.figures().timed(|| file.sync_data())?;
            }
            Ok(())
        };
        write().map_err(|error: io::Error| Error::io(staged.path(), error))?;
        self.tree.figures().wrote(content.len());
        Ok(staged)
    }

    /// Opens a folder to ask for what is below it: the way there is gone once.
    fn folder(&self, key: &Key) -> Folder {
        let path = self.path(key);
        let opened = openat(CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        Folder { path, opened }
    }
}

/// A folder that is open, if it could be opened.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    opened: rustix::io::Result<OwnedFd>,
}

impl Folder {
    /// Asks for what is at `path` below it.
    fn ask<T>(
        &self,
        path: &Path,
        ask: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Result<T, Error> {
        let answer = match &self.opened {
            Ok(folder) => ask(folder.as_fd()),
            Err(error) => Err((*error).into()),
        };
        answer.map_err(|error| Error::io(&self.path.join(path), error))
    }
}

impl Driver for Filesystem {
    fn read(&self, key: &Key, size_max: u64, wait: Wait) -> Result<Vec<u8>, Error> {
        let path = self.path(key);
        self.files
            .read(CWD, &path, size_max, wait)
            .map_err(|error| Error::io(&path, error))?
            .ok_or(Error::TooLarge { path, size_max })
    }

    fn read_open(
        &self,
        key: &Key,
        size_max: u64,
        wait: Wait,
    ) -> Result<(Vec<u8>, Box<dyn Read>), Error> {
        let path = self.path(key);
        let read = || {
            let file = self.files.open(CWD, &path, wait)?;
            Ok((self.files.read_whole(&file, size_max, wait)?, file))
        };
        let (content, file) = read().map_err(|error: io::Error| Error::io(&path, error))?;
        let Some(content) = content else {
            return Err(Error::TooLarge { path, size_max });
        };
        let size_bytes = content.len() as u64;
        let file = OpenFile {
            path,
            file,
            size_bytes,
            first_reads: Arc::clone(&self.first_reads),
        };
        Ok((content, Box::new(file)))
    }

    fn open(&self, key: &Key, wait: Wait) -> Result<Box<dyn Read>, Error> {
        let path = self.path(key);
        let open = || {
            let file = self.files.open(CWD, &path, wait)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Ok((file, metadata.len()))
        };
        let (file, size_bytes) = open().map_err(|error: io::Error| Error::io(&path, error))?;
        Ok(Box::new(OpenFile {
            path,
            file,
            size_bytes,
            first_reads: Arc::clone(&self.first_reads),
        }))
    }

    fn stat(&self, key: &Key, wait: Wait) -> Result<Stat, Error> {
        let path = self.path(key);
        let stat = || {
            let metadata = self.files.metadata(CWD, &path, wait)?;
            Ok(Stat {
                size_bytes: metadata.len(),
                modified: metadata.modified()?,
            })
        };
        stat().map_err(|error: io::Error| Error::io(&path, error))
    }

    fn list(&self, key: &Key) -> Result<Vec<Entry>, Error> {
        let path = self.path(key);
        self.files
            .list(CWD, &path, Wait::AsNeeded)
            .map_err(|error| Error::io(&path, error))
    }

    fn visit(&self, key: &Key, visit: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let path = self.path(key);
        self.files
            .visit(CWD, &path, Wait::AsNeeded, &mut |_, _, name| visit(name))
            .map_err(|error| Error::io(&path, error))
    }

    fn read_each(
        &self,
        folder: &Key,
        names: &[&str],
        rest: &str,
        size_max: u64,
    ) -> Vec<Result<Vec<u8>, Error>> {
        let folder = self.folder(folder);
        side_by_side::ask(names, |name, wait| {
            let path = Path::new(name).join(rest);
            let read = folder.ask(&path, |at| self.files.read(at, &path, size_max, wait));
            read?.ok_or_else(|| Error::TooLarge {
                path: folder.path.join(path),
                size_max,
            })
        })
    }

    fn list_each(&self, folder: &Key, names: &[&str]) -> Vec<Result<Vec<Entry>, Error>> {
        let folder = self.folder(folder);
        side_by_side::ask(names, |name, wait| {
            let path = Path::new(name);
            folder.ask(path, |at| self.files.list(at, path, wait))
        })
    }

    fn write(&self, key: &Key, content: &[u8], durability: Durability) -> Result<(), Error> {
        let staged = self.stage(content, durability == Durability::Power)?;
        self.tree
            .publish(staged.path(), &self.path(key), durability)?;
        staged.published();
        Ok(())
    }

    fn write_in_steps(&self, steps: &[&[Write<'_>]]) -> Result<(), Error> {
        let count: usize = steps.iter().map(|step| step.len()).sum();
        if count < BATCH_MIN || !self.batches {
            return one_by_one(self, steps);
        }
        let batch = Batch::new(&self.tree)?;
        let mut staged = Vec::with_capacity(steps.len());
        for step in steps {
            let step = step
                .iter()
                .map(|(key, content)| Ok((self.stage(content, false)?, self.path(key))));
            staged.push(step.collect::<Result<Vec<_>, Error>>()?);
        }
        batch.sync()?;
        let mut steps = staged.into_iter().filter(|step| !step.is_empty());
        steps.try_for_each(|step| batch.publish(step))
    }

    fn make_folder(&self, key: &Key) -> Result<(), Error> {
        self.tree.make_folder(&self.path(key))
    }

    fn delete(&self, key: &Key, durability: Durability) -> Result<(), Error> {
        self.tree.remove(&self.path(key), durability)
    }

    fn delete_each(&self, folder: &Key, names: &[&str]) -> Result<(), Error> {
        self.tree.remove_each(&self.path(folder), names)
    }

    fn append(&self, key: &Key) -> Result<Box<dyn Append>, Error> {
        let file = AppendFile::open(Arc::clone(&self.tree), self.path(key))?;
        Ok(Box::new(file))
    }

    fn try_lock(&self, folder: &Key, wait: Wait) -> Result<Option<Lock>, Error> {
        let path = self.path(folder);
        let folder = self.files.open(CWD, &path, wait);
        let folder = folder.map_err(|error| Error::io(&path, error))?;
        // Where there are no locks, whoever claimed the tree has said so.
        let lock = Lock::try_take(folder);
        Ok(lock.unwrap_or_else(|_no_locks| Some(Lock::without_effect())))
    }

    fn epoch(&self) -> &str {
        &self.epoch
    }

    fn figures(&self) -> &Figures {
        self.tree.figures()
    }

    fn space(&self) -> Result<Space, Error> {
        let root = self.tree.root();
        let disk = statvfs(root).map_err(|error| Error::io(root, error))?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Space {
            free_bytes: bytes(disk.f_bavail),
            used_bytes: bytes(disk.f_blocks.saturating_sub(disk.f_bfree)),
        })
    }

    fn sweep(&self, before: SystemTime) -> Result<usize, Error> {
        self.tree.sweep(before)
    }
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    first_reads: Arc<FirstReads>,
}

impl Read for OpenFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| Error::io(&self.path, error))
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn prepare_file(&self, first: u64, size_bytes: u64) {
        self.first_reads.prepare(&self.file, first, size_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance;

    #[test]
    fn the_file_system_keeps_every_promise_of_a_driver() {
        let root = tempfile::tempdir().unwrap();
        conformance::check(&Filesystem::open(root.path(), true).unwrap());
        let root = tempfile::tempdir().unwrap();
        conformance::check(&Filesystem::open(root.path(), false).unwrap().waiting());
    }

    #[test]
    fn a_root_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Filesystem::open(&file.join("root"), true).unwrap_err();
        assert_eq!(error.to_string(), file.join("root").display().to_string());
    }

    #[test]
    fn a_repository_that_was_removed_by_hand_can_be_pushed_to_again() {
        let root = tempfile::tempdir().unwrap();
        let driver = Filesystem::open(root.path(), true).unwrap();
        let repository = "a/b".parse().unwrap();
        let layers = layout::layers(&repository);
        let link = |name: &str| layers.child(name).child("link");
        driver.write(&link("one"), b"x", Durability::Power).unwrap();
        fs::remove_dir_all(layout::repository(&repository).below(root.path())).unwrap();

        driver.write(&link("two"), b"y", Durability::Power).unwrap();
        assert_eq!(driver.read(&link("two"), 9, Wait::AsNeeded).unwrap(), b"y");
        driver.make_folder(&layers.child("three")).unwrap();
        assert_eq!(driver.list(&layers).unwrap().len(), 2);

        fs::remove_dir_all(layout::repository(&repository).below(root.path())).unwrap();
        driver.make_folder(&layers).unwrap();
        assert!(driver.list(&layers).unwrap().is_empty());
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_says_nothing_about_the_others() {
        let root = tempfile::tempdir().unwrap();
        let driver = Filesystem::open(root.path(), true).unwrap();
        let tags = layout::tags(&"a".parse().unwrap());
        let (folder, file) = (tags.child("folder"), tags.child("file"));
        driver.make_folder(&folder).unwrap();
        driver.write(&file, b"x", Durability::Power).unwrap();
        assert_eq!(driver.read(&file, 9, Wait::Never).unwrap(), b"x");
        driver.read(&folder, 9, Wait::Never).unwrap_err();
        assert_eq!(driver.read(&file, 9, Wait::Never).unwrap(), b"x");
    }

    #[test]
    fn nothing_temporary_is_made_outside_the_staging_folder() {
        let root = tempfile::tempdir().unwrap();
        let driver = Filesystem::open(root.path(), true).unwrap();
        let repository = "a".parse().unwrap();
        let tags = layout::tags(&repository);
        driver
            .write(&tags.child("v1"), b"x", Durability::Power)
            .unwrap();
        let names: Vec<String> = driver
            .list(&tags)
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names, ["v1"]);
        assert!(driver.list(&layout::staging()).unwrap().is_empty());
    }
}
