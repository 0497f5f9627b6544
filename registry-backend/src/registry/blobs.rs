//! Blobs: bytes by digest, readable through the repositories that have them.

use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use oci::range::ByteRange;
use oci::{Digest, RepositoryName, Visibility};

use super::{Error, Registry, RepositoryLock};
use crate::storage::error::if_found;
use crate::storage::{self, Durability, Wait, layout};

/// A blob that is open for reading; it stays readable when it is deleted.
#[derive(Clone, Debug)]
pub(crate) struct Blob(pub(super) Arc<dyn storage::Read>);

impl Blob {
    /// Returns the size.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`Error::Storage`], also when the blob is shorter than its size was.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        Ok(self.0.read_at(offset, buffer)?)
    }

    /// Returns the open file that the blob is, where it is one.
    pub(crate) fn as_file(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_file()
    }

    /// Prepares that file for somebody who is going to read this part of it in our place, maybe by direct
    /// I/O.
    pub(crate) fn prepare_file(&self, part: ByteRange) {
        self.0.prepare_file(part.first, part.size_bytes());
    }
}

impl Registry {
    /// Opens a blob of a repository.
    ///
    /// # Errors
    /// [`Error::BlobUnknown`], and [`Error::WouldWait`].
    pub(crate) fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        wait: Wait,
    ) -> Result<Blob, Error> {
        let opened = match self.blob_target(repository, digest, wait)? {
            Some(target) => if_found(self.driver.open(&layout::blob(&target), wait))?,
            None => None,
        };
        opened
            .map(|content| Blob(content.into()))
            .ok_or_else(|| Error::BlobUnknown {
                digest: digest.clone(),
            })
    }

    /// Returns the size of a blob of a repository.
    ///
    /// # Errors
    /// [`Error::BlobUnknown`], and [`Error::WouldWait`].
    pub(crate) fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        wait: Wait,
    ) -> Result<u64, Error> {
        let stat = match self.blob_target(repository, digest, wait)? {
            Some(target) => if_found(self.driver.stat(&layout::blob(&target), wait))?,
            None => None,
        };
        stat.map(|stat| stat.size_bytes)
            .ok_or_else(|| Error::BlobUnknown {
                digest: digest.clone(),
            })
    }

    /// Takes a blob from a repository. Its bytes stay for the other repositories that have it.
    ///
    /// # Errors
    /// [`Error::BlobUnknown`].
    pub(crate) fn delete_blob(&self, lock: &RepositoryLock, digest: &Digest) -> Result<(), Error> {
        let key = layout::layer(lock.repository(), digest);
        if self.link(&key, Wait::AsNeeded)?.is_none() {
            return Err(Error::BlobUnknown {
                digest: digest.clone(),
            });
        }
        Ok(self.driver.delete(&key, Durability::Power)?)
    }

    /// Gives a repository a blob that another one has, `from` or any; returns whether it did. Only
    /// one that `visible` shows can give, as if there were no others.
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::Storage`].
    pub(crate) fn mount_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
        visible: Option<&Visibility>,
    ) -> Result<bool, Error> {
        let target = match from {
            Some(from) if visible.is_some_and(|visible| !visible.shows(from)) => None,
            Some(from) => self.blob_target(from, digest, Wait::AsNeeded)?,
            None => self.blob_target_anywhere(digest, visible)?,
        };
        let Some(target) = target else {
            return Ok(false);
        };
        if if_found(self.driver.stat(&layout::blob(&target), Wait::AsNeeded))?.is_none() {
            return Ok(false);
        }
        self.write_link(&layout::layer(repository, digest), &target)?;
        Ok(true)
    }

    /// Returns under which digest the bytes are kept that a repository has as `digest`: the same, or
    /// another where distribution stored the blob under the digest of its own choice.
    fn blob_target(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        wait: Wait,
    ) -> Result<Option<Digest>, Error> {
        match self.link(&layout::layer(repository, digest), wait)? {
            Some(target) => Ok(Some(target)),
            None => self.link(&layout::revision(repository, digest), wait),
        }
    }

    fn blob_target_anywhere(
        &self,
        digest: &Digest,
        visible: Option<&Visibility>,
    ) -> Result<Option<Digest>, Error> {
        // Most such blobs are nowhere; then there is no need to ask each repository.
        if if_found(self.driver.stat(&layout::blob(digest), Wait::AsNeeded))?.is_none() {
            return Ok(None);
        }
        let mut found = None;
        self.visit_visible(None, visible, &mut |candidate| {
            found = self.blob_target(&candidate.name, digest, Wait::AsNeeded)?;
            Ok(match found {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            })
        })?;
        Ok(found)
    }
}
