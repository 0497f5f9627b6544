//! Referrers: the manifests whose subject is another one (spec, "Listing Referrers").
//!
//! Distribution's tree has no place for them, so they are kept in an index beside it, which is
//! nothing but a memory of what a look through all manifests would find:
//!
//! - an entry says what its manifest says, so it is true for as long as it exists. It is written
//!   before the manifest's link and heeded only while that link is there;
//! - a stamp says up to which state of the repository the index is complete: the times at which the
//!   folders of manifests last changed. Whoever else adds a manifest changes them, and a stamp of
//!   another epoch of the storage counts for nothing.
//!
//! Where the stamp is not that of the repository as it stands, the index is made anew.

use std::time::{Duration, UNIX_EPOCH};

use oci::{Algorithm, Descriptor, Digest, RepositoryName};

use super::manifests::{Revision, STORED_SIZE_MAX};
use super::{Error, Registry, RepositoryLock};
use crate::storage::error::if_found;
use crate::storage::{self, Durability, Wait, layout};

/// A descriptor takes up its manifest's annotations, so it is no larger than a manifest.
const ENTRY_SIZE_MAX: u64 = 16 << 20;

const STAMP_SIZE_MAX: u64 = 1024;

/// Which manifests an index is of: one that was made when fewer were understood is not complete.
const INDEX_VERSION: &str = "v2";

/// A page ends before its descriptors are larger than this, unless it is a single one: clients read
/// no larger manifests, and some do not go on to a second page.
pub(crate) const PAGE_BYTES: usize = 4 << 20;

/// What is to be remembered of a manifest that is about another one.
#[derive(Clone, Debug)]
pub(super) struct Referrer {
    pub(super) subject: Digest,
    /// The descriptor that lists of the subject's referrers have, as JSON.
    pub(super) entry: Vec<u8>,
}

/// Which of a subject's referrers are asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Wanted {
    /// Only those of this artifact type.
    pub(crate) artifact_type: Option<String>,
    /// Only those after this one, which need not exist.
    pub(crate) last: Option<Digest>,
}

/// A page of a subject's referrers.
#[derive(Clone, Debug)]
pub(crate) struct Referrers {
    /// Their descriptors as JSON, with commas between them, in the order of their digests.
    pub(crate) json: Vec<u8>,
    /// The last of them.
    pub(crate) last: Option<Digest>,
    /// Whether there are more after the last one.
    pub(crate) more: bool,
    /// How large the page may be.
    bytes_max: usize,
}

impl Referrers {
    fn new(bytes_max: usize) -> Self {
        Self {
            json: Vec::new(),
            last: None,
            more: false,
            bytes_max,
        }
    }

    /// Adds a descriptor if it is wanted, or notes that the page is full.
    fn offer(&mut self, wanted: &Wanted, descriptor: &Descriptor) {
        let kind = &wanted.artifact_type;
        if self.more || (kind.is_some() && descriptor.artifact_type != *kind) {
            return;
        }
        let json = encoded(descriptor);
        let is_single = self.json.is_empty() && self.bytes_max >= PAGE_BYTES;
        self.more = self.json.len() + json.len() + 1 > self.bytes_max && !is_single;
        if self.more {
            return;
        }
        if self.last.is_some() {
            self.json.push(b',');
        }
        self.json.extend_from_slice(&json);
        self.last = Some(descriptor.digest.clone());
    }
}

impl Registry {
    /// Returns a page of the manifests of a repository that have `subject` as theirs, of `bytes_max` at
    /// most (of less than [`PAGE_BYTES`] there may be none that fits); nothing where the index has to be
    /// made anew first, which is for [`Registry::referrers_anew`] to do.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        wanted: &Wanted,
        bytes_max: usize,
    ) -> Result<Option<Referrers>, Error> {
        if self.index_is_complete(repository)? {
            return self.indexed_referrers(repository, subject, wanted, bytes_max);
        }
        // Of a repository without manifests there is no index, and no need for one.
        let has_manifests = self.has_manifests(repository)?;
        Ok((!has_manifests).then(|| Referrers::new(bytes_max)))
    }

    /// As [`Registry::referrers`], but makes the index anew where that has to be.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn referrers_anew(
        &self,
        lock: &RepositoryLock,
        subject: &Digest,
        wanted: &Wanted,
        bytes_max: usize,
    ) -> Result<Referrers, Error> {
        // Whoever held the lock before may have completed the index.
        let found = self.referrers(lock.repository(), subject, wanted, bytes_max)?;
        if let Some(referrers) = found {
            return Ok(referrers);
        }
        self.rebuild_index(lock, subject, wanted, bytes_max)
    }

    /// Runs `link`, which links a manifest to its repository, a `referrer` perhaps, and keeps the index complete if it was.
    pub(super) fn indexing_referrer(
        &self,
        lock: &RepositoryLock,
        digest: &Digest,
        referrer: Option<&Referrer>,
        link: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let repository = lock.repository();
        let mut complete = self.index_is_complete(repository)?;
        if complete && let Some(Referrer { subject, entry }) = referrer {
            let key = layout::referrer(repository, subject, digest);
            complete = self.driver.write(&key, entry, Durability::Process).is_ok();
        }
        link()?;
        if complete {
            let stamp = self.stamp(repository)?;
            // Without it the next query makes the index anew.
            drop(self.write_stamp(repository, &stamp));
        }
        Ok(())
    }

    /// Runs `unlink`, which takes a manifest from its repository, and keeps the index complete if it
    /// was.
    pub(super) fn keeping_index(
        &self,
        lock: &RepositoryLock,
        unlink: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let repository = lock.repository();
        let complete = self.index_is_complete(repository)?;
        unlink()?;
        if complete {
            let stamp = self.stamp(repository)?;
            // Without it the next query makes the index anew.
            drop(self.write_stamp(repository, &stamp));
        }
        Ok(())
    }

    fn index_is_complete(&self, repository: &RepositoryName) -> Result<bool, Error> {
        let key = layout::referrers_stamp(repository);
        match if_found(self.driver.read(&key, STAMP_SIZE_MAX, Wait::AsNeeded))? {
            Some(written) => Ok(written == self.stamp(repository)?.as_bytes()),
            None => Ok(false),
        }
    }

    /// Returns the stamp of a repository as it stands.
    fn stamp(&self, repository: &RepositoryName) -> Result<String, Error> {
        let mut stamp = format!("{INDEX_VERSION} {}", self.driver.epoch());
        for algorithm in Algorithm::ALL {
            let folder = layout::revisions(repository, algorithm);
            let modified = match if_found(self.driver.stat(&folder, Wait::AsNeeded))? {
                Some(stat) => stat.modified.duration_since(UNIX_EPOCH).unwrap_or_default(),
                None => Duration::ZERO,
            };
            stamp.push_str(&format!(" {algorithm}@{}", modified.as_nanos()));
        }
        Ok(stamp)
    }

    fn has_manifests(&self, repository: &RepositoryName) -> Result<bool, Error> {
        let manifests = layout::manifests(repository);
        Ok(if_found(self.driver.stat(&manifests, Wait::AsNeeded))?.is_some())
    }

    fn write_stamp(&self, repository: &RepositoryName, stamp: &str) -> Result<(), Error> {
        let key = layout::referrers_stamp(repository);
        Ok(self
            .driver
            .write(&key, stamp.as_bytes(), Durability::Process)?)
    }

    fn write_entry(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        entry: &Descriptor,
    ) -> Result<(), Error> {
        let key = layout::referrer(repository, subject, &entry.digest);
        Ok(self
            .driver
            .write(&key, &encoded(entry), Durability::Process)?)
    }

    /// Returns what an index that is complete holds of a subject; nothing where it no longer is, or
    /// where an entry cannot be read.
    fn indexed_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        wanted: &Wanted,
        bytes_max: usize,
    ) -> Result<Option<Referrers>, Error> {
        let folder = layout::referrers_of(repository, subject);
        let mut referrers = Referrers::new(bytes_max);
        for algorithm in Algorithm::ALL {
            let children = if_found(self.driver.list(&folder.child(algorithm.as_str())))?;
            for child in children.unwrap_or_default() {
                let Ok(digest) = Digest::from_parts(algorithm.as_str(), &child.name) else {
                    continue;
                };
                if wanted.last.as_ref().is_some_and(|last| digest <= *last) {
                    continue;
                }
                if referrers.more {
                    break;
                }
                if self
                    .link(&layout::revision(repository, &digest), Wait::AsNeeded)?
                    .is_none()
                {
                    continue; // deleted
                }
                let key = layout::referrer(repository, subject, &digest);
                // One that does not fit into a small page is not even read for it.
                let size_max = match bytes_max < PAGE_BYTES {
                    true => bytes_max as u64,
                    false => ENTRY_SIZE_MAX,
                };
                let entry = match if_found(self.driver.read(&key, size_max, Wait::AsNeeded)) {
                    Err(storage::Error::TooLarge { .. }) if size_max < ENTRY_SIZE_MAX => {
                        referrers.more = true;
                        break;
                    }
                    entry => entry?.unwrap_or_default(),
                };
                match serde_json::from_slice(&entry) {
                    Ok(descriptor) => referrers.offer(wanted, &descriptor),
                    Err(_torn_or_absent) => return Ok(None),
                }
            }
        }
        // What others added meanwhile may have been missed.
        Ok(self.index_is_complete(repository)?.then_some(referrers))
    }

    /// Makes the index anew from the manifests themselves; returns what refers to `subject`, also
    /// where there is no room for an index.
    fn rebuild_index(
        &self,
        lock: &RepositoryLock,
        subject: &Digest,
        wanted: &Wanted,
        bytes_max: usize,
    ) -> Result<Referrers, Error> {
        let repository = lock.repository();
        // Taken first: what others add from here on makes it outdated.
        let stamp = self.stamp(repository)?;
        let index = layout::referrers(repository);
        let mut writing = match if_found(self.driver.delete(&index, Durability::Process)) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        };
        let mut referrers = Referrers::new(bytes_max);
        for digest in self.revisions(repository)? {
            let found = self.revision(repository, &digest, STORED_SIZE_MAX, Wait::AsNeeded)?;
            let Some(Revision { content, said, .. }) = found else {
                continue;
            };
            let Some(its_subject) = &said.subject else {
                continue;
            };
            let entry = said.as_referrer(digest, content.len() as u64);
            if writing.is_ok() {
                writing = self.write_entry(repository, its_subject, &entry);
            }
            let is_after = wanted.last.as_ref().is_none_or(|last| entry.digest > *last);
            if *its_subject == *subject && is_after {
                referrers.offer(wanted, &entry);
            }
        }
        if writing.is_ok() && self.has_manifests(repository)? {
            writing = self.write_stamp(repository, &stamp);
        }
        if let Err(error) = writing {
            tracing::warn!(
                registry = self.name(),
                %repository,
                error = &error as &dyn std::error::Error,
                "index of referrers not written: each query looks through all manifests"
            );
        }
        Ok(referrers)
    }
}

/// Returns an entry of the index as JSON.
pub(super) fn encoded(entry: &Descriptor) -> Vec<u8> {
    serde_json::to_vec(entry).expect("invariant: a descriptor holds nothing that JSON cannot")
}
