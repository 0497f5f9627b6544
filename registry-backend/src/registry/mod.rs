//! What a registry does: repositories of blobs and manifests, tags, referrers, uploads.
//!
//! No HTTP and no paths: a caller brings checked values from [`oci`], and the keys of storage come
//! from its layout. Methods block, but for [`Registry::claim_upload`] and those that are told
//! [`Wait::Never`]; one call is one whole step, which finishes even when the client is gone.
//!
//! **Invariants:**
//! - what a method has returned `Ok` for is durable;
//! - what is visible is whole: a link is written after what it names, a tag after its manifest;
//! - a blob is reached through a link of its repository, and the link is written only after the
//!   bytes matched the digest;
//! - a link that cannot be read as a digest is absent, and the log says so once.

mod append;
mod blobs;
mod catalog;
mod error;
mod links;
mod manifests;
mod pages;
mod referrers;
mod tags;
mod uploads;
mod walk;

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci::RepositoryName;

use crate::storage::{Claim, Driver, Key};

pub(crate) use crate::storage::{Piece, Wait};

pub(crate) use append::{Append, Hashing, Writing};
pub(crate) use blobs::Blob;
pub(crate) use error::Error;
pub(crate) use manifests::{Layers, NewManifest, STORED_SIZE_MAX};
pub(crate) use pages::{Listing, Page};
pub(crate) use referrers::Wanted;

/// The registry over one storage.
#[derive(Debug)]
pub(crate) struct Registry {
    /// What it is called in the log where there are several.
    name: Option<Box<str>>,
    driver: Box<dyn Driver>,
    /// Uploads that this process has written to.
    sessions: uploads::Sessions,
    locks: Locks,
    /// Objects already reported as broken.
    reported: Mutex<HashSet<Key>>,
    /// Held for as long as any work on storage can go on.
    _claim: Option<Claim>,
}

impl Registry {
    /// Serves what `driver` keeps.
    pub(crate) fn new(driver: Box<dyn Driver>) -> Self {
        Self {
            name: None,
            driver,
            sessions: uploads::Sessions::default(),
            locks: Locks::default(),
            reported: Mutex::default(),
            _claim: None,
        }
    }

    /// Tells it from others in the log.
    pub(crate) fn named(self, name: Option<&str>) -> Self {
        Self {
            name: name.map(Box::from),
            ..self
        }
    }

    /// Returns what it is called in the log, if it is not the only one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Keeps other registries off the storage, until the last work on it has ended.
    pub(crate) fn holding(self, claim: Claim) -> Self {
        Self {
            _claim: Some(claim),
            ..self
        }
    }
}

/// Keeps changes of one repository's manifests and tags apart, where one reads what another writes.
#[derive(Debug)]
struct Locks {
    hasher: RandomState,
    /// A repository shares its lock with others: a fixed number needs no bookkeeping.
    shards: [Mutex<()>; 64],
}

impl Default for Locks {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Locks {
    fn hold(&self, repository: &RepositoryName) -> MutexGuard<'_, ()> {
        let shards = self.shards.len() as u64;
        let index = usize::try_from(self.hasher.hash_one(repository) % shards).unwrap_or(0);
        let shard = self.shards.get(index).unwrap_or(&self.shards[0]);
        // The lock guards the disk, not memory: what a panic left there is for readers to judge.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
