//! Where bytes live: objects under keys, with promises about when they are visible and durable.
//!
//! A [`Driver`] knows nothing of repositories or manifests; every key is made in [`layout`], which
//! is distribution's tree. What the rooms above rely on is written at the trait's methods, and each
//! promise is a check in `conformance`, run against each driver.
//!
//! All calls block, but for those that [`Wait::Never`] keeps from it: a request does its storage
//! work in one go on a blocking thread, so no client that goes away can stop it halfway.

pub(crate) mod claim;
pub(crate) mod error;
mod figures;
pub(crate) mod filesystem;
pub(crate) mod hash;
pub(crate) mod layout;
pub(crate) mod lock;
pub(crate) mod memory;
mod piece;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) mod faulty;

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::time::SystemTime;

pub(crate) use claim::Claim;
pub(crate) use error::Error;
use error::if_found;
pub(crate) use figures::{Figures, Space};
pub(crate) use filesystem::Filesystem;
pub(crate) use hash::Hasher;
pub(crate) use layout::Key;
pub(crate) use lock::Lock;
pub(crate) use piece::Piece;

/// What a write or a deletion survives once it has returned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Durability {
    /// The end of this process, but not a loss of power: for what can be made again.
    Process,
    /// A loss of power, too: content and directory entries are on the disk.
    Power,
}

/// Whether the caller waits for an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wait {
    /// For as long as it takes.
    AsNeeded,
    /// Not at all: the answer is at hand, or it is [`Error::WouldWait`]. A driver that never has
    /// anything at hand may say so each time.
    Never,
}

/// Size and age of an object or folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stat {
    /// The size of the content; without meaning for a folder.
    pub(crate) size_bytes: u64,
    /// When the content, or the list of a folder's children, last changed.
    pub(crate) modified: SystemTime,
}

/// One child of a folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// Its name, without the path.
    pub(crate) name: String,
    /// Whether it is a folder.
    pub(crate) is_folder: bool,
}

/// An object to be put: where, and what.
pub(crate) type Write<'a> = (Key, &'a [u8]);

/// Keeps objects under keys.
///
/// Every method can be called from any thread at any time. No reader ever sees an object that is
/// partly written: it is absent, or the old one, or the new one.
pub(crate) trait Driver: Debug + Send + Sync {
    /// Returns the whole of a small object.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing is; [`Error::TooLarge`] above `size_max` bytes;
    /// [`Error::WouldWait`].
    fn read(&self, key: &Key, size_max: u64, wait: Wait) -> Result<Vec<u8>, Error>;

    /// Does as [`Driver::read`], and returns also the object that was read, open: whoever reads it again
    /// reads what was read here, whatever is at `key` by then.
    ///
    /// # Errors
    /// Those of [`Driver::read`].
    fn read_open(
        &self,
        key: &Key,
        size_max: u64,
        wait: Wait,
    ) -> Result<(Vec<u8>, Box<dyn Read>), Error>;

    /// Opens an object to read parts of it. What is open stays readable when the key is deleted or
    /// replaced.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing is; [`Error::WouldWait`].
    fn open(&self, key: &Key, wait: Wait) -> Result<Box<dyn Read>, Error>;

    /// Returns the size and age of an object or folder.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing is; [`Error::WouldWait`].
    fn stat(&self, key: &Key, wait: Wait) -> Result<Stat, Error>;

    /// Returns the children of a folder, sorted by the bytes of their names.
    ///
    /// # Errors
    /// [`Error::NotFound`] where no folder is.
    fn list(&self, key: &Key) -> Result<Vec<Entry>, Error>;

    /// Calls `visit` with the name of each child of a folder, in any order: for folders so large that
    /// their list had better not be held.
    ///
    /// # Errors
    /// [`Error::NotFound`] where no folder is.
    fn visit(&self, key: &Key, visit: &mut dyn FnMut(&str)) -> Result<(), Error> {
        self.list(key)?.iter().for_each(|child| visit(&child.name));
        Ok(())
    }

    /// Returns the whole of the small object at `rest` below each of `names` in a folder, as
    /// [`Driver::read`] does of one: sooner than one after the other, where that can be.
    fn read_each(
        &self,
        folder: &Key,
        names: &[&str],
        rest: &str,
        size_max: u64,
    ) -> Vec<Result<Vec<u8>, Error>> {
        let read = |name: &&str| {
            let key = folder.child(name).child(rest);
            self.read(&key, size_max, Wait::AsNeeded)
        };
        names.iter().map(read).collect()
    }

    /// Returns the children of each of `names` in a folder, as [`Driver::list`] does of one: sooner
    /// than one after the other, where that can be.
    fn list_each(&self, folder: &Key, names: &[&str]) -> Vec<Result<Vec<Entry>, Error>> {
        let list = |name: &&str| self.list(&folder.child(name));
        names.iter().map(list).collect()
    }

    /// Puts an object, replacing what was there in one step. Folders are made as needed.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; what was there before is then unchanged.
    fn write(&self, key: &Key, content: &[u8], durability: Durability) -> Result<(), Error>;

    /// Puts small objects, each as [`Driver::write`] does with [`Durability::Power`], step by step:
    /// all objects of a step are durable before any of the next can be seen. Many of them wait for the
    /// disk together, where that can be.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; each object is then the old one or the new one, and the new one of no step
    /// is there without all of those before.
    fn write_in_steps(&self, steps: &[&[Write<'_>]]) -> Result<(), Error> {
        one_by_one(self, steps)
    }

    /// Makes a folder and those above it, durably; one that exists is fine.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    fn make_folder(&self, key: &Key) -> Result<(), Error>;

    /// Removes an object, or a folder with all that is in it, from sight in one step.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing is.
    fn delete(&self, key: &Key, durability: Durability) -> Result<(), Error>;

    /// Removes each of `names` in a folder, as [`Driver::delete`] does with [`Durability::Power`]; one
    /// that is not there is fine.
    ///
    /// # Errors
    /// [`Error::Io`]; some are removed then.
    fn delete_each(&self, folder: &Key, names: &[&str]) -> Result<(), Error> {
        for name in names {
            if_found(self.delete(&folder.child(name), Durability::Power))?;
        }
        Ok(())
    }

    /// Opens an object to write at its end, making it if needed. That only one is open for a key at
    /// a time is for the caller to see to.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    fn append(&self, key: &Key) -> Result<Box<dyn Append>, Error>;

    /// Locks an existing folder against others who lock it, in this process and any other on the same tree,
    /// until the lock is dropped; returns nothing where it is locked. It keeps nobody from anything else.
    ///
    /// # Errors
    /// [`Error::NotFound`] where no folder is; [`Error::WouldWait`].
    fn try_lock(&self, folder: &Key, wait: Wait) -> Result<Option<Lock>, Error>;

    /// Names the span in which no write of [`Durability::Process`] has been lost: another name means
    /// that some may be gone.
    fn epoch(&self) -> &str;

    /// Returns what was measured since the start.
    fn figures(&self) -> &Figures;

    /// Returns how much room there is.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn space(&self) -> Result<Space, Error>;

    /// Removes what interrupted writes left behind and is older than `before`; returns how many.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn sweep(&self, before: SystemTime) -> Result<usize, Error>;
}

/// Writes objects as [`Driver::write_in_steps`] does, each on its own.
fn one_by_one<D: Driver + ?Sized>(driver: &D, steps: &[&[Write<'_>]]) -> Result<(), Error> {
    let mut writes = steps.iter().copied().flatten();
    writes.try_for_each(|(key, content)| driver.write(key, content, Durability::Power))
}

/// An object open for reading.
pub(crate) trait Read: Debug + Send + Sync {
    /// Returns the size of the content.
    fn size_bytes(&self) -> u64;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`Error::Io`], also when the content ends early.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error>;

    /// Returns the open file that the content is the whole of, where it is one.
    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Prepares the open file for somebody who is going to read so much of it, aligned to blocks if it
    /// then is open for direct I/O, in place of everyone else: [`Read::read_at`] may fail from then on.
    fn prepare_file(&self, _first: u64, _size_bytes: u64) {}
}

/// An object open for writing at its end.
///
/// What is written survives the end of the process, and the disk is set to work on it early: a
/// disk that cannot follow slows the writer down instead of leaving all the work to the end.
pub(crate) trait Append: Debug + Send {
    /// Returns the size of the content so far.
    fn size_bytes(&self) -> u64;

    /// Adds `bytes` at the end, or nothing at all: cheapest in large ones, laid out as in a [`Piece`].
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Cuts the content back to `size_bytes`.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn truncate(&mut self, size_bytes: u64) -> Result<(), Error>;

    /// Moves the content to `to` in one step, replacing what was there, with
    /// [`Durability::Power`]: first the content is made durable, then the move.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; nothing is then visible at `to` that was not before.
    fn publish(self: Box<Self>, to: &Key) -> Result<(), Error>;
}
