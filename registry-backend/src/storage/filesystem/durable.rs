//! The only code that changes the tree's folders.
//!
//! A rename or unlink is durable only when the folder it happened in has been synced, and a new
//! folder only when its parent has. Each operation here does its syncing itself, so that no caller
//! can forget it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use uuid::Uuid;

use super::direct::Direct;
use crate::storage::error::if_found;
use crate::storage::{Durability, Error, Figures};

/// How many folders are remembered as durable, at some 200 bytes each; forgetting one costs a sync.
const DURABLE_FOLDERS_MAX: usize = 8192;

/// A tree of folders and the staging folder through which everything enters it.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    staging: PathBuf,
    direct: Direct,
    figures: Figures,
    /// Folders whose own entry this process has synced. One that merely exists may have been made
    /// by someone who was killed before syncing it.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Tree {
    pub(super) fn new(root: PathBuf, staging: PathBuf, direct: Direct) -> Self {
        Self {
            root,
            staging,
            direct,
            figures: Figures::default(),
            durable: Mutex::default(),
        }
    }

    /// Returns the folder through which everything enters the tree.
    pub(super) fn staging(&self) -> &Path {
        &self.staging
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn direct(&self) -> &Direct {
        &self.direct
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Makes an empty file outside of everyone's sight, to be filled and published.
    pub(super) fn stage(&self) -> Result<Staged, Error> {
        let path = self.staging.join(Uuid::new_v4().to_string());
        with_parent(&path, || File::create_new(&path).map(drop))?;
        Ok(Staged {
            path,
            published: false,
        })
    }

    /// Moves the file `from`, whose content the caller has synced, to `to`.
    pub(super) fn publish(
        &self,
        from: &Path,
        to: &Path,
        durability: Durability,
    ) -> Result<(), Error> {
        if durability == Durability::Process {
            return with_parent(to, || fs::rename(from, to));
        }
        let folder = parent(to);
        self.in_folders(|| {
            let fresh = self.make_folders(folder)?;
            fs::rename(from, to).map_err(|error| Error::io(to, error))?;
            self.sync_folder(folder)?;
            self.sync_entries(fresh)
        })
    }

    /// Makes `folder`, and those above it, durable.
    pub(super) fn make_folder(&self, folder: &Path) -> Result<(), Error> {
        if self.is_durable(folder) && !folder.is_dir() {
            self.forget(None);
        }
        self.in_folders(|| {
            let fresh = self.make_folders(folder)?;
            self.sync_entries(fresh)
        })
    }

    /// Takes a file, or a folder with all that is in it, out of sight in one step.
    pub(super) fn remove(&self, path: &Path, durability: Durability) -> Result<(), Error> {
        let metadata = fs::symlink_metadata(path).map_err(|error| Error::io(path, error))?;
        let trash = if metadata.is_dir() {
            let trash = self.staging.join(Uuid::new_v4().to_string());
            let moved = with_parent(&trash, || fs::rename(path, &trash));
            self.forget(Some(path));
            match moved {
                Ok(()) => Some(trash),
                // No room for a name: then in place, since room is what is missing.
                Err(Error::NoSpace { .. }) => {
                    fs::remove_dir_all(path).map_err(|error| Error::io(path, error))?;
                    None
                }
                Err(error) => return Err(error),
            }
        } else {
            fs::remove_file(path).map_err(|error| Error::io(path, error))?;
            None
        };
        if durability == Durability::Power {
            self.sync_folder(parent(path))?;
        }
        match trash {
            Some(trash) => fs::remove_dir_all(&trash).map_err(|error| Error::io(&trash, error)),
            None => Ok(()),
        }
    }

    /// Takes each of `names` in a folder out of sight, and syncs the folder once.
    pub(super) fn remove_each(&self, folder: &Path, names: &[&str]) -> Result<(), Error> {
        for name in names {
            if_found(self.remove(&folder.join(name), Durability::Process))?;
        }
        if_found(self.sync_folder(folder)).map(drop)
    }

    /// Removes what was staged before `before` and never published.
    pub(super) fn sweep(&self, before: SystemTime) -> Result<usize, Error> {
        let staging = &self.staging;
        let mut removed = 0;
        for child in fs::read_dir(staging).map_err(|error| Error::io(staging, error))? {
            let child = child.map_err(|error| Error::io(staging, error))?;
            let Ok(metadata) = child.metadata() else {
                continue; // published or removed meanwhile
            };
            if metadata.modified().is_ok_and(|modified| modified < before) {
                let path = child.path();
                let removal = if metadata.is_dir() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                removal.map_err(|error| Error::io(&path, error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Does `action`, which makes folders; once more if one is gone that this process had made
    /// durable, as when somebody removes a repository by hand.
    pub(super) fn in_folders<T>(&self, action: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match action() {
            Err(Error::NotFound { .. }) => {
                self.forget(None);
                action()
            }
            result => result,
        }
    }

    /// Makes the folders on the way to `folder`; returns those whose entries are yet to be synced,
    /// deepest first: syncing the deepest usually takes the others along in one journal commit.
    pub(super) fn make_folders<'a>(&self, folder: &'a Path) -> Result<Vec<&'a Path>, Error> {
        let fresh: Vec<&Path> = {
            let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            folder
                .ancestors()
                .take_while(|ancestor| *ancestor != self.root && !durable.contains(*ancestor))
                .collect()
        };
        for folder in fresh.iter().rev() {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io(folder, error));
                }
                _made_or_there => {}
            }
        }
        Ok(fresh)
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), Error> {
        let sync = || File::open(folder).and_then(|folder| folder.sync_all());
        let synced = self.figures.timed(sync);
        synced.map_err(|error| Error::io(folder, error))
    }

    fn sync_entries(&self, folders: Vec<&Path>) -> Result<(), Error> {
        if folders.is_empty() {
            return Ok(());
        }
        for folder in &folders {
            self.sync_folder(parent(folder))?;
        }
        self.remember(folders.into_iter().map(Path::to_owned).collect());
        Ok(())
    }

    /// Remembers folders as durable, with all above them.
    pub(super) fn remember(&self, folders: Vec<PathBuf>) {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() + folders.len() > DURABLE_FOLDERS_MAX {
            // Not even these: a folder is only remembered together with all above it.
            durable.clear();
        } else {
            durable.extend(folders);
        }
    }

    fn is_durable(&self, folder: &Path) -> bool {
        let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.contains(folder)
    }

    /// Forgets that `folder`, or every folder, was made durable.
    fn forget(&self, folder: Option<&Path>) {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        match folder {
            // Without it there is nothing below it either: an upload's folder, most often.
            Some(folder) if !durable.contains(folder) => {}
            Some(folder) => durable.retain(|known| !known.starts_with(folder)),
            None => durable.clear(),
        }
    }
}

/// A staged file, removed again unless it is published.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    published: bool,
}

impl Staged {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Says that the file is now someplace else.
    pub(super) fn published(mut self) {
        self.published = true;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now, the next sweep removes.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Makes the root of a tree, durably, with the folders above it that are not there.
pub(super) fn make_root(root: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = root
        .ancestors()
        .take_while(|folder| !folder.exists())
        .collect();
    fs::create_dir_all(root)?;
    missing
        .into_iter()
        .try_for_each(|folder| File::open(parent(folder))?.sync_all())
}

/// Does `action`, and if the folder for `path` is not there, makes it and tries once more.
pub(super) fn with_parent<T>(path: &Path, action: impl Fn() -> io::Result<T>) -> Result<T, Error> {
    let result = match action() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(parent(path)).and_then(|()| action())
        }
        result => result,
    };
    result.map_err(|error| Error::io(path, error))
}

pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent == Path::new("") => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}
