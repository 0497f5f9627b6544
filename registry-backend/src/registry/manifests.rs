//! Manifests: stored byte for byte, linked to their repository, named by tags.

use oci::{Algorithm, Digest, Reference, RepositoryName, Stored};

use super::{Blob, Error, Registry, RepositoryLock};
use crate::storage::error::if_found;
use crate::storage::{self, Durability, Hasher, Key, Wait, layout};

/// A manifest stored by anyone may be this large; what clients read stops at 4 MiB and a little.
pub(crate) const STORED_SIZE_MAX: u64 = 16 << 20;

/// A manifest up to this size is checked in the task that answers. To hash more takes longer than to
/// have another thread do it, and to hold more needs a permit of the caller's.
pub(crate) const CHECKED_AT_ONCE_MAX: u64 = 64 << 10;

/// A manifest up to this size is returned in memory, a larger one as its open file: it may take a slow
/// client minutes to read it.
const IN_MEMORY_MAX: usize = 16 << 10;

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub(crate) struct StoredManifest {
    /// What it is called.
    pub(crate) digest: Digest,
    /// What it is.
    pub(crate) media_type: String,
    /// Its bytes.
    pub(crate) content: ManifestContent,
}

/// The bytes of a manifest, which match its digest.
#[derive(Clone, Debug)]
pub(crate) enum ManifestContent {
    /// A small one's.
    Bytes(Vec<u8>),
    /// A large one's, in the open file that they were read from when they were checked.
    File(Blob),
}

impl ManifestContent {
    /// Returns how many there are.
    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(file) => file.size_bytes(),
        }
    }
}

/// A manifest of a repository while it is in memory.
#[derive(Debug)]
pub(super) struct Revision {
    digest: Digest,
    pub(super) content: Vec<u8>,
    /// What `content` was read from.
    file: Box<dyn storage::Read>,
    pub(super) said: Stored,
}

impl From<Revision> for StoredManifest {
    fn from(revision: Revision) -> Self {
        let content = if revision.content.len() <= IN_MEMORY_MAX {
            ManifestContent::Bytes(revision.content)
        } else {
            ManifestContent::File(Blob(revision.file.into()))
        };
        Self {
            digest: revision.digest,
            media_type: revision.said.media_type,
            content,
        }
    }
}

impl Registry {
    /// Returns a manifest of a repository, of which no more than `size_max` bytes are read into memory.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`], [`Error::ManifestLarge`], and [`Error::WouldWait`].
    pub(crate) fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        size_max: u64,
        wait: Wait,
    ) -> Result<StoredManifest, Error> {
        let digest = match reference {
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(tag) => self.tag_target(repository, tag, wait)?,
        };
        let revision = match digest {
            Some(digest) => self.revision(repository, &digest, size_max, wait)?,
            None => None,
        };
        revision
            .map(StoredManifest::from)
            .ok_or_else(|| Error::ManifestUnknown {
                reference: reference.clone(),
            })
    }

    /// Returns a manifest that a repository has, and what it says.
    ///
    /// Whatever is a JSON object is a manifest here, also of a kind that cannot be pushed: others have
    /// written to the tree before. What is none is absent: distribution does not store media types, so
    /// what the bytes do not say nobody knows.
    pub(super) fn revision(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size_max: u64,
        wait: Wait,
    ) -> Result<Option<Revision>, Error> {
        let Some(target) = self.link(&layout::revision(repository, digest), wait)? else {
            return Ok(None);
        };
        let key = layout::blob(&target);
        let (content, file) = match self.driver.read_open(&key, size_max, wait) {
            Ok(read) => read,
            Err(storage::Error::TooLarge { .. }) => return self.too_large(&key, wait),
            Err(storage::Error::NotFound { .. }) => {
                self.report(&key, "manifest is missing: taken as absent");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        // `registry:2` before version 3 writes in place: after a crash the bytes may be torn.
        if Hasher::digest(target.algorithm(), &content) != target {
            self.report(&key, "manifest does not match its digest: taken as absent");
            return Ok(None);
        }
        let said = match Stored::read(&content) {
            Ok(said) => said,
            Err(error) => {
                self.report(&key, &format!("no manifest, taken as absent: {error}"));
                return Ok(None);
            }
        };
        Ok(Some(Revision {
            digest: digest.clone(),
            content,
            file,
            said,
        }))
    }

    /// Says of a manifest that is larger than the caller would read how large it is, unless that is
    /// more than a manifest can be.
    fn too_large(&self, key: &Key, wait: Wait) -> Result<Option<Revision>, Error> {
        match if_found(self.driver.stat(key, wait))? {
            Some(stat) if stat.size_bytes <= STORED_SIZE_MAX => Err(Error::ManifestLarge {
                size_bytes: stat.size_bytes,
            }),
            _ => {
                self.report(key, "manifest is missing or too large: taken as absent");
                Ok(None)
            }
        }
    }

    /// Removes a manifest from a repository, with each tag that names it.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`].
    pub(crate) fn delete_manifest(
        &self,
        lock: &RepositoryLock,
        digest: &Digest,
    ) -> Result<(), Error> {
        let repository = lock.repository();
        let key = layout::revision(repository, digest);
        if self.link(&key, Wait::AsNeeded)?.is_none() {
            return Err(Error::ManifestUnknown {
                reference: Reference::Digest(digest.clone()),
            });
        }
        // Tags first: a crash in between must leave no tag that names nothing.
        self.untag(lock, digest)?;
        // With its folder, so that the time of the folder above tells when someone else puts it back.
        self.keeping_index(lock, || {
            let folder = layout::revision_folder(repository, digest);
            Ok(self.driver.delete(&folder, Durability::Power)?)
        })
    }

    /// Returns the digests of a repository's manifests.
    pub(super) fn revisions(&self, repository: &RepositoryName) -> Result<Vec<Digest>, Error> {
        let mut digests = Vec::new();
        for algorithm in Algorithm::ALL {
            let children = if_found(self.driver.list(&layout::revisions(repository, algorithm)))?;
            digests.extend(
                children
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|child| Digest::from_parts(algorithm.as_str(), &child.name).ok()),
            );
        }
        Ok(digests)
    }
}
