//! Manifests: stored byte for byte, linked to their repository, named by tags.

use std::collections::HashSet;

use oci::manifest::{Content, Manifest};
use oci::{Algorithm, Digest, Reference, RepositoryName, Stored, Tag, media_type};

use super::{Error, Registry, RepositoryLock};
use crate::storage::error::if_found;
use crate::storage::{self, Durability, Hasher, Wait, layout};

/// A manifest stored by anyone may be this large; what clients read stops at 4 MiB and a little.
pub(crate) const STORED_SIZE_MAX: u64 = 16 << 20;

/// So many blobs that an image lacks are named; the rest waits for the next try.
const MISSING_MAX: usize = 100;

/// To hash more than this takes longer than to have it done by a thread that nobody waits for.
const HASHED_AT_ONCE_MAX: u64 = 64 << 10;

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub(crate) struct StoredManifest {
    /// What it is called.
    pub(crate) digest: Digest,
    /// What it is.
    pub(crate) media_type: String,
    /// Its bytes.
    pub(crate) content: Vec<u8>,
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
        self.content.len() as u64 <= HASHED_AT_ONCE_MAX
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
    /// Returns a manifest of a repository.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`], and [`Error::WouldWait`].
    pub(crate) fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        wait: Wait,
    ) -> Result<StoredManifest, Error> {
        let digest = match reference {
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(tag) => self.tag_target(repository, tag, wait)?,
        };
        let stored = match digest {
            Some(digest) => self.revision(repository, &digest, wait)?,
            None => None,
        };
        stored
            .map(|(stored, _)| stored)
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
        wait: Wait,
    ) -> Result<Option<(StoredManifest, Stored)>, Error> {
        let Some(target) = self.link(&layout::revision(repository, digest), wait)? else {
            return Ok(None);
        };
        let key = layout::blob(&target);
        let size_max = match wait {
            Wait::AsNeeded => STORED_SIZE_MAX,
            Wait::Never => HASHED_AT_ONCE_MAX,
        };
        let content = match self.driver.read(&key, size_max, wait) {
            Ok(content) => content,
            Err(storage::Error::TooLarge { .. }) if wait == Wait::Never => {
                return Err(Error::WouldWait);
            }
            Err(storage::Error::NotFound { .. } | storage::Error::TooLarge { .. }) => {
                self.report(&key, "manifest is missing or too large: taken as absent");
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
        let stored = StoredManifest {
            digest: digest.clone(),
            media_type: said.media_type.clone(),
            content,
        };
        Ok(Some((stored, said)))
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
