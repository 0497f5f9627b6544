//! Manifests: stored byte for byte, linked to their repository, named by tags.

use std::collections::HashSet;

use oci::manifest::{Content, Manifest};
use oci::{Algorithm, Digest, Reference, RepositoryName, Stored, Tag, media_type};

use super::{Blob, Error, Registry, RepositoryLock};
use crate::storage::error::if_found;
use crate::storage::{self, Durability, Hasher, Key, Wait, layout};

/// A manifest stored by anyone may be this large; what clients read stops at 4 MiB and a little.
pub(crate) const STORED_SIZE_MAX: u64 = 16 << 20;

/// So many blobs that an image lacks are named; the rest waits for the next try.
const MISSING_MAX: usize = 100;

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

/// A manifest to be pushed.
#[derive(Clone, Debug)]
pub(crate) struct NewManifest {
    /// What the client calls it.
    pub(crate) reference: Reference,
    /// Further tags for it.
    pub(crate) tags: Vec<Tag>,
    /// As what the client sent it.
    pub(crate) content_type: Option<String>,
    /// Its bytes.
    pub(crate) content: Vec<u8>,
}

/// A manifest that is what the client says, and can be stored.
#[derive(Clone, Debug)]
pub(crate) struct CheckedManifest {
    digest: Digest,
    manifest: Manifest,
    /// The tags that are to name it.
    tags: Vec<Tag>,
    content: Vec<u8>,
}

impl NewManifest {
    /// Returns whether [`check`](Self::check) takes so little time that it needs no other thread.
    pub(crate) fn is_checked_at_once(&self) -> bool {
        self.content.len() as u64 <= CHECKED_AT_ONCE_MAX
    }

    /// Checks all that can be checked without storage.
    ///
    /// # Errors
    /// [`Error::ManifestInvalid`] and [`Error::DigestMismatch`].
    pub(crate) fn check(self) -> Result<CheckedManifest, Error> {
        let (algorithm, tag) = match &self.reference {
            Reference::Digest(digest) => (digest.algorithm(), None),
            Reference::Tag(tag) => (Algorithm::default(), Some(tag.clone())),
        };
        let digest = Hasher::digest(algorithm, &self.content);
        if let Reference::Digest(expected) = self.reference
            && expected != digest
        {
            return Err(Error::DigestMismatch {
                expected,
                actual: digest,
            });
        }
        Ok(CheckedManifest {
            digest,
            manifest: Manifest::parse(&self.content, self.content_type.as_deref())?,
            tags: tag.into_iter().chain(self.tags).collect(),
            content: self.content,
        })
    }
}

/// What became of a manifest that was pushed.
#[derive(Clone, Debug)]
pub(crate) struct PushedManifest {
    /// What it is called.
    pub(crate) digest: Digest,
    /// The manifest that it is about.
    pub(crate) subject: Option<Digest>,
}

/// Whether a repository must have the layers of an image that is pushed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Layers {
    /// They may be absent, and come later or never: the image is sparse.
    Optional,
    /// Without them the image is refused.
    Required,
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

    /// Stores a manifest and makes its tags name it.
    ///
    /// # Errors
    /// [`Error::ManifestBlobUnknown`]; nothing has been written then.
    pub(crate) fn push_manifest(
        &self,
        lock: &RepositoryLock,
        new: &CheckedManifest,
        layers: Layers,
    ) -> Result<PushedManifest, Error> {
        let repository = lock.repository();
        let CheckedManifest {
            digest, manifest, ..
        } = new;
        self.check_blobs(repository, manifest, layers)?;
        // Distribution before version 3 knows a repository by this folder.
        self.driver.make_folder(&layout::layers(repository))?;
        let size_bytes = new.content.len() as u64;
        self.indexing_referrer(lock, manifest, digest, size_bytes, || {
            self.write_manifest(repository, new)
        })?;
        Ok(PushedManifest {
            digest: digest.clone(),
            subject: manifest
                .subject
                .as_ref()
                .map(|subject| subject.digest.clone()),
        })
    }

    /// Writes a manifest, its link and its tags: each is there only once what it names is.
    fn write_manifest(
        &self,
        repository: &RepositoryName,
        new: &CheckedManifest,
    ) -> Result<(), Error> {
        let CheckedManifest { digest, tags, .. } = new;
        let link = digest.to_string();
        let to = |key| (key, link.as_bytes());
        let content = (layout::blob(digest), new.content.as_slice());
        let histories = tags
            .iter()
            .map(|tag| layout::tag_index(repository, tag, digest));
        let links: Vec<_> = std::iter::once(layout::revision(repository, digest))
            .chain(histories)
            .map(to)
            .collect();
        let names: Vec<_> = tags
            .iter()
            .map(|tag| to(layout::tag_current(repository, tag)))
            .collect();
        Ok(self.driver.write_in_steps(&[&[content], &links, &names])?)
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

    /// Checks that a repository has the blobs that an image points at: its config, and its layers
    /// where they are required. As in distribution, one that is to be had at a URL is needed here all
    /// the same, unless it is of a type that must not be distributed.
    ///
    /// The manifests that an index lists may be absent: clients push indexes of which they hold only
    /// some platforms. So may a subject (spec, "Pushing Manifests with Subject").
    fn check_blobs(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        required: Layers,
    ) -> Result<(), Error> {
        let Content::Image { config, layers } = &manifest.content else {
            return Ok(());
        };
        let layers = match required {
            Layers::Required => layers.as_slice(),
            Layers::Optional => &[],
        };
        let mut asked = HashSet::new();
        let mut missing = Vec::new();
        for blob in std::iter::once(config).chain(layers) {
            if media_type::is_nondistributable(&blob.media_type) || !asked.insert(&blob.digest) {
                continue;
            }
            match self.blob_size(repository, &blob.digest, Wait::AsNeeded) {
                Ok(_) => {}
                Err(Error::BlobUnknown { digest }) => missing.push(digest),
                Err(error) => return Err(error),
            }
            if missing.len() == MISSING_MAX {
                break;
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Error::ManifestBlobUnknown { digests: missing })
        }
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
