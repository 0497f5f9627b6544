//! What can go wrong in a registry, by what a client can do about it.

use oci::manifest::ManifestError;
use oci::{Digest, Reference, RepositoryName, UploadId};

use super::UploadScope;
use crate::storage;

/// Why the registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The repository has no such blob.
    #[error("blob unknown to the repository")]
    BlobUnknown {
        /// The blob asked for.
        digest: Digest,
    },
    /// The content is not what its digest says.
    #[error("content has the digest {actual}, not {expected}")]
    DigestMismatch {
        /// What the client said.
        expected: Digest,
        /// What the bytes say.
        actual: Digest,
    },
    /// A manifest points at blobs that its repository does not have.
    #[error("manifest points at {} blobs that the repository does not have", digests.len())]
    ManifestBlobUnknown {
        /// The missing blobs, not all of them where there are very many.
        digests: Vec<Digest>,
    },
    /// The bytes are no manifest.
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    /// The manifest is larger than the caller would have read: it may ask again for as much.
    #[error("manifest has {size_bytes} bytes, more than were to be read")]
    ManifestLarge {
        /// Its size.
        size_bytes: u64,
    },
    /// The repository has no such manifest.
    #[error("manifest unknown to the repository")]
    ManifestUnknown {
        /// The manifest asked for.
        reference: Reference,
    },
    /// The disk is full: the same may succeed later.
    #[error("no space left on device")]
    NoSpace {
        /// Where.
        source: storage::Error,
    },
    /// There is no such repository.
    #[error("repository name not known to the registry")]
    RepositoryUnknown {
        /// The repository asked for.
        repository: RepositoryName,
    },
    /// Storage failed; its operator must look.
    #[error("storage failed")]
    Storage {
        /// How.
        source: storage::Error,
    },
    /// No more uploads may be open.
    #[error("too many uploads are open{}", of(.scope, .max))]
    TooManyUploads {
        /// Of what there are too many.
        scope: UploadScope,
        /// How many there may be.
        max: usize,
    },
    /// Another request is writing to the upload.
    #[error("another request is writing to this upload")]
    UploadBusy {
        /// The upload.
        id: UploadId,
    },
    /// There is no such upload, or no longer.
    #[error("blob upload unknown to the registry")]
    UploadUnknown {
        /// The upload asked for.
        id: UploadId,
    },
    /// The answer is not at hand: the same can be asked by someone who may wait.
    #[error("answer not at hand")]
    WouldWait,
}

impl Error {
    /// Returns whether a principal has too many uploads.
    pub(super) fn is_about_uploads_of_principal(&self) -> bool {
        matches!(
            self,
            Self::TooManyUploads {
                scope: UploadScope::Principal,
                ..
            }
        )
    }
}

fn of(scope: &UploadScope, max: &usize) -> String {
    match scope {
        UploadScope::All => format!(": {max} in this registry"),
        UploadScope::Repository => format!(": {max} in this repository"),
        UploadScope::Principal => format!(": {max} of yours; finish or cancel some"),
    }
}

impl From<storage::Error> for Error {
    fn from(source: storage::Error) -> Self {
        match source {
            storage::Error::NoSpace { .. } => Self::NoSpace { source },
            storage::Error::WouldWait { .. } => Self::WouldWait,
            storage::Error::Io { .. }
            | storage::Error::NotFound { .. }
            | storage::Error::TooLarge { .. } => Self::Storage { source },
        }
    }
}
