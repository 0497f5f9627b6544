//! What a registry does: repositories of blobs and manifests, tags, referrers, uploads.
//!
//! No HTTP and no paths: a caller brings checked values from [`oci`], and the keys of storage come
//! from its layout. Methods block, but for those that are `async` and those that are told
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
mod condition;
mod error;
mod links;
mod lock;
mod manifests;
mod names;
mod open_uploads;
mod pages;
mod principal;
mod pushes;
mod referrers;
mod tags;
mod uploads;
mod walk;

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use oci::RepositoryName;
use permits::Keyed;

use crate::storage::{Claim, Driver, Key};

pub(crate) use crate::storage::{Piece, Space, Wait};

pub(crate) use append::{Append, Hashing, Writing};
pub(crate) use blobs::Blob;
pub(crate) use condition::UploadCounts;
pub(crate) use error::Error;
pub(crate) use lock::RepositoryLock;
pub(crate) use manifests::{CHECKED_AT_ONCE_MAX, ManifestContent, STORED_SIZE_MAX, StoredManifest};
pub(crate) use open_uploads::{UploadLimits, UploadScope};
pub(crate) use pages::{Listing, Page};
pub(crate) use principal::Principal;
pub(crate) use pushes::{CheckedManifest, Layers, NewManifest};
pub(crate) use referrers::{PAGE_BYTES, Referrers, Wanted};
pub(crate) use tags::TagRun;
pub(crate) use uploads::NewUpload;

use condition::Tally;
use open_uploads::OpenUploads;

/// The registry over one storage.
#[derive(Debug)]
pub(crate) struct Registry {
    /// What it is called in the log where there are several.
    name: Option<Box<str>>,
    driver: Box<dyn Driver>,
    /// Uploads that this process has written to.
    sessions: uploads::Sessions,
    open_uploads: OpenUploads,
    tally: Tally,
    /// One permit for each repository, for changes of its manifests and tags.
    locks: Keyed<RepositoryName>,
    /// Objects already reported as broken.
    reported: Mutex<HashSet<Key>>,
    /// Held for as long as any work on storage can go on.
    claim: Option<Claim>,
}

impl Registry {
    /// Serves what `driver` keeps.
    pub(crate) fn new(driver: Box<dyn Driver>) -> Self {
        Self {
            name: None,
            driver,
            sessions: uploads::Sessions::default(),
            open_uploads: OpenUploads::default(),
            tally: Tally::default(),
            locks: Keyed::new(1),
            reported: Mutex::default(),
            claim: None,
        }
    }

    /// Tells it from others in the log.
    pub(crate) fn named(self, name: Option<&str>) -> Self {
        Self {
            name: name.map(Box::from),
            ..self
        }
    }

    /// Returns the open folder by which the tree is claimed, for a successor to claim it by.
    pub(crate) fn claim(&self) -> Option<BorrowedFd<'_>> {
        self.claim.as_ref().map(AsFd::as_fd)
    }

    /// Returns what it is called in the log, if it is not the only one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Keeps other registries off the storage, until the last work on it has ended.
    pub(crate) fn holding(self, claim: Claim) -> Self {
        Self {
            claim: Some(claim),
            ..self
        }
    }
}
