//! Manifests that are pushed: checked first, and stored when it is their turn.
//!
//! They may wait long for that, and many may: what is read from the bytes of one, which can take twelve
//! times their memory, is not kept, but for the little that storing it needs.

use std::collections::HashSet;

use oci::manifest::{Content, Manifest};
use oci::{Algorithm, Descriptor, Digest, Reference, RepositoryName, Tag, media_type};

use super::manifests::CHECKED_AT_ONCE_MAX;
use super::referrers::{Referrer, encoded};
use super::{Error, Registry, RepositoryLock};
use crate::storage::{Hasher, Wait, layout};

/// So many blobs that an image lacks are named; the rest waits for the next try.
const MISSING_MAX: usize = 100;

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
    pub(super) digest: Digest,
    /// The tags that are to name it.
    pub(super) tags: Vec<Tag>,
    pub(super) content: Vec<u8>,
    /// The blob with an image's configuration. As in distribution, one that is to be had at a URL counts
    /// all the same, here and among the layers, unless it is of a type that must not be distributed.
    pub(super) config: Option<Digest>,
    pub(super) layers: Vec<Digest>,
    pub(super) referrer: Option<Referrer>,
}

impl NewManifest {
    /// Returns whether [`check`](Self::check) takes so little time and memory that it needs no other
    /// thread.
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
        let manifest = Manifest::parse(&self.content, self.content_type.as_deref())?;
        let referrer = manifest.subject.as_ref().map(|subject| Referrer {
            subject: subject.digest.clone(),
            entry: encoded(&manifest.as_referrer(digest.clone(), self.content.len() as u64)),
        });
        let (config, layers) = match manifest.content {
            Content::Image { config, layers } => (
                distributed(config),
                layers.into_iter().filter_map(distributed).collect(),
            ),
            Content::Index { .. } => (None, Vec::new()),
        };
        Ok(CheckedManifest {
            digest,
            tags: tag.into_iter().chain(self.tags).collect(),
            content: self.content,
            config,
            layers,
            referrer,
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
        self.check_blobs(repository, new, layers)?;
        // Distribution before version 3 knows a repository by this folder.
        self.driver.make_folder(&layout::layers(repository))?;
        let referrer = new.referrer.as_ref();
        self.indexing_referrer(lock, &new.digest, referrer, || {
            self.write_manifest(repository, new)
        })?;
        Ok(PushedManifest {
            digest: new.digest.clone(),
            subject: referrer.map(|referrer| referrer.subject.clone()),
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
        self.driver.write_in_steps(&[&[content], &links, &names])?;
        self.tally.wrote_manifest();
        Ok(())
    }

    /// Checks that a repository has the blobs that an image points at: its config, and its layers
    /// where they are required.
    ///
    /// The manifests that an index lists may be absent: clients push indexes of which they hold only
    /// some platforms. So may a subject (spec, "Pushing Manifests with Subject").
    fn check_blobs(
        &self,
        repository: &RepositoryName,
        new: &CheckedManifest,
        required: Layers,
    ) -> Result<(), Error> {
        let layers = match required {
            Layers::Required => new.layers.as_slice(),
            Layers::Optional => &[],
        };
        let mut asked = HashSet::new();
        let mut missing = Vec::new();
        for digest in new.config.iter().chain(layers) {
            if !asked.insert(digest) {
                continue;
            }
            match self.blob_size(repository, digest, Wait::AsNeeded) {
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
}

/// Returns the digest of a blob that registries are to have.
fn distributed(blob: Descriptor) -> Option<Digest> {
    (!media_type::is_nondistributable(&blob.media_type)).then_some(blob.digest)
}
