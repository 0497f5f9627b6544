//! Many small files, made durable together.
//!
//! To sync a file and then its folder is at least two commits of a file system's journal, whatever
//! the size of the file. `syncfs` has everything on the disk that was changed before, with one or two:
//! so the cost of many files is that of a few. It also writes what others have changed meanwhile, so
//! for few files it may cost more.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FsWord, statfs, syncfs};

use super::durable::{Staged, Tree, parent};
use crate::storage::Error;

/// The file systems (`f_type`, statfs(2)) whose `syncfs` is known to mean for all files what `fsync` means
/// for one. Others may do nothing at all, such as most of those in user space, or the network's; and
/// overlayfs does not report what the file system below it failed to write.
const KNOWN: [FsWord; 5] = [
    0x9123_683E, // btrfs
    0x0000_EF53, // ext2, ext3, ext4
    0xF2F5_2010, // f2fs
    0x0102_1994, // tmpfs
    0x5846_5342, // XFS
];

/// Returns whether files can be made durable together that are staged in this folder. They are moved from
/// there, so it is on their file system, whatever the tree's root is on.
pub(super) fn is_possible(staging: &Path) -> bool {
    statfs(staging).is_ok_and(|it| KNOWN.contains(&it.f_type))
}

/// Files that are made durable together.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    tree: &'a Tree,
    /// Open since before the first of the files was written: a failure to write any of them back is
    /// told to whoever had the file system open then.
    staging: File,
}

impl<'a> Batch<'a> {
    /// Begins one; the files are to be written after this.
    pub(super) fn new(tree: &'a Tree) -> Result<Self, Error> {
        let staging = tree.staging();
        let staging = File::open(staging).map_err(|error| Error::io(staging, error))?;
        Ok(Self { tree, staging })
    }

    /// Makes all that was written durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let figures = self.tree.figures();
        let synced = figures.timed(|| syncfs(&self.staging).map_err(io::Error::from));
        synced.map_err(|error| Error::io(self.tree.staging(), error))
    }

    /// Moves files, whose contents are durable, to their places, durably.
    pub(super) fn publish(&self, files: Vec<(Staged, PathBuf)>) -> Result<(), Error> {
        let mut fresh = Vec::new();
        for (staged, to) in files {
            let made = self.tree.in_folders(|| {
                let made = self.tree.make_folders(parent(&to))?;
                fs::rename(staged.path(), &to).map_err(|error| Error::io(&to, error))?;
                Ok(made.into_iter().map(Path::to_owned).collect::<Vec<_>>())
            })?;
            staged.published();
            fresh.extend(made);
        }
        self.sync()?;
        self.tree.remember(fresh);
        Ok(())
    }
}
