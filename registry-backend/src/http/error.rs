//! The one place where a failure becomes a reply.

use std::error::Error as StdError;
use std::io;

use http::request::Parts;
use http::{HeaderName, Response, StatusCode, header};
use oci::digest::DigestError;
use oci::reference::TagError;
use oci::route::RouteError;
use oci::{Digest, ErrorBody, ErrorCode, Reference, Route};
use serde_json::{Value, json};

use super::body::Body;
use super::principal;
use super::reply;
use crate::registry;

/// Why a request gets no answer of the kind it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The client's connection broke off before the end of the body.
    #[error("request body ended early")]
    BodyCut {
        /// How.
        source: hyper::Error,
    },
    /// The client went away before its change had begun; nobody sees this.
    #[error("the client is gone")]
    ClientGone,
    /// A chunk does not follow the last one, or does not say rightly where it belongs.
    #[error("{reason}")]
    ChunkMisplaced {
        /// What is wrong.
        reason: String,
        /// The upload.
        location: String,
        /// What of it has been received, as `0-N`.
        range: String,
    },
    /// Deleting is switched off.
    #[error("deleting is switched off on this registry")]
    DeleteDisabled,
    /// A parameter that should be a digest is none.
    #[error("{0}")]
    Digest(#[from] DigestError),
    /// An upload cannot be finished without a digest.
    #[error("the parameter \"digest\" is missing")]
    DigestMissing,
    /// The body is longer or shorter than announced.
    #[error("body has {actual} bytes, announced were {announced}")]
    LengthMismatch {
        /// The length announced.
        announced: u64,
        /// The length of what came, as far as it was read.
        actual: u64,
    },
    /// The manifest is larger than configured.
    #[error("manifest is larger than {size_max} bytes")]
    ManifestTooLarge {
        /// The limit.
        size_max: u64,
    },
    /// The endpoint does not know the method.
    #[error("method not allowed here")]
    MethodNotAllowed {
        /// Those it knows.
        allow: &'static str,
    },
    /// `n` is no number that a page can have.
    #[error("the parameter \"n\" must be a number from 0 on")]
    PageSize,
    /// The work panicked; the panic hook has told where.
    #[error("the request could not be worked off")]
    Panicked,
    /// No range asked for lies within the blob.
    #[error("no requested range lies within the blob")]
    RangeUnsatisfiable {
        /// The size of the blob.
        size_bytes: u64,
    },
    /// The registry refuses, or failed.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The path names nothing.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The edge says of the body's bytes that they are where none can be, or the system cannot wait
    /// for them.
    #[error("the body could not be taken from the memory shared with the edge")]
    Slots(#[source] io::Error),
    /// A parameter that should be a tag is none.
    #[error("{0}")]
    Tag(#[from] TagError),
    /// Too many requests of one principal's wait to change storage.
    #[error("too many of your requests are waiting for the storage")]
    TooManyRequests,
    /// A client sends next to nothing of a manifest, and others wait for the memory that it is in.
    #[error("manifest sent too slowly while others wait")]
    SentTooSlowly,
    /// A client takes next to nothing of a reply, and others wait for the memory that it is in.
    #[error("reply taken too slowly while others wait")]
    TakenTooSlowly,
    /// More tags than one request may set.
    #[error("more than {count_max} tags at once")]
    TooManyTags {
        /// The limit.
        count_max: usize,
    },
}

impl Error {
    /// Returns the reply: status, code and JSON of the spec.
    pub(super) fn reply(&self) -> Response<Body> {
        let (status, code) = self.status();
        let body = match self {
            Self::Registry(registry::Error::ManifestBlobUnknown { digests }) => missing(digests),
            _ => None,
        };
        let body = body.unwrap_or_else(|| {
            let body = ErrorBody::new(code, self.message());
            match self.detail() {
                Some(detail) => body.with_detail(detail),
                None => body,
            }
        });
        reply::json(status, self.headers(), body.to_json())
    }

    /// Tells the log of a failure that is not the client's.
    pub(super) fn log(&self, registry: Option<&str>, request: &Parts) {
        let (status, _) = self.status();
        if !status.is_server_error() {
            return;
        }
        let route = Route::parse(request.uri.path()).ok();
        let repository = route
            .as_ref()
            .and_then(Route::repository)
            .map(ToString::to_string);
        let (digest, upload_id) = match &route {
            Some(
                Route::Blob { digest, .. }
                | Route::Manifest {
                    reference: Reference::Digest(digest),
                    ..
                },
            ) => (Some(digest.to_string()), None),
            Some(Route::Upload { id, .. }) => (None, Some(id.to_string())),
            _ => (None, None),
        };
        tracing::error!(
            registry,
            error = chain(self),
            status = status.as_u16(),
            method = %request.method,
            path = request.uri.path(),
            repository,
            digest,
            upload_id,
            user = principal::user(&request.headers),
            request_id = request.headers.get("x-request-id").and_then(|id| id.to_str().ok()),
            "request failed"
        );
    }

    fn status(&self) -> (StatusCode, ErrorCode) {
        let code = match self {
            Self::BodyCut { .. } => ErrorCode::BlobUploadInvalid,
            Self::ClientGone => return (StatusCode::REQUEST_TIMEOUT, ErrorCode::Unknown),
            Self::ChunkMisplaced { .. } | Self::RangeUnsatisfiable { .. } => {
                ErrorCode::RangeInvalid
            }
            Self::DeleteDisabled | Self::MethodNotAllowed { .. } => ErrorCode::Unsupported,
            Self::Digest(_) | Self::DigestMissing => ErrorCode::DigestInvalid,
            Self::LengthMismatch { .. } => ErrorCode::SizeInvalid,
            Self::ManifestTooLarge { .. } => {
                return (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid);
            }
            Self::PageSize => ErrorCode::PaginationNumberInvalid,
            Self::Panicked | Self::Slots(_) | Self::TakenTooSlowly => ErrorCode::Unknown,
            Self::Registry(error) => return registry_status(error),
            Self::Route(error) => match error.code() {
                Some(code) => code,
                None => return (StatusCode::NOT_FOUND, ErrorCode::Unsupported),
            },
            Self::Tag(_) => ErrorCode::TagInvalid,
            Self::SentTooSlowly | Self::TooManyRequests => ErrorCode::TooManyRequests,
            Self::TooManyTags { .. } => return (StatusCode::URI_TOO_LONG, ErrorCode::TagInvalid),
        };
        (code.status(), code)
    }

    /// Returns what the client may know: of a failure of ours, that it happened.
    fn message(&self) -> String {
        match self {
            Self::Registry(registry::Error::Storage { .. }) => {
                "the registry could not read or write its storage; its log says more".to_owned()
            }
            _ => self.to_string(),
        }
    }

    fn detail(&self) -> Option<Value> {
        let Self::Registry(error) = self else {
            return None;
        };
        match error {
            registry::Error::BlobUnknown { digest } => Some(json!({ "digest": digest })),
            registry::Error::DigestMismatch { expected, actual } => {
                Some(json!({ "expected": expected, "actual": actual }))
            }
            registry::Error::ManifestUnknown { reference } => {
                Some(json!({ "reference": reference.to_string() }))
            }
            registry::Error::RepositoryUnknown { repository } => {
                Some(json!({ "name": repository }))
            }
            registry::Error::ManifestBlobUnknown { .. }
            | registry::Error::ManifestInvalid(_)
            | registry::Error::ManifestLarge { .. }
            | registry::Error::NoSpace { .. }
            | registry::Error::Storage { .. }
            | registry::Error::TooManyUploads { .. }
            | registry::Error::UploadBusy { .. }
            | registry::Error::UploadUnknown { .. }
            | registry::Error::WouldWait => None,
        }
    }

    fn headers(&self) -> Vec<(HeaderName, String)> {
        match self {
            Self::ChunkMisplaced {
                location, range, ..
            } => vec![
                (header::LOCATION, location.clone()),
                (header::RANGE, range.clone()),
            ],
            Self::MethodNotAllowed { allow } => vec![(header::ALLOW, (*allow).to_owned())],
            Self::SentTooSlowly | Self::TooManyRequests => {
                vec![(header::RETRY_AFTER, "5".to_owned())]
            }
            // Uploads are finished by those who go on with them: that takes longer.
            Self::Registry(registry::Error::TooManyUploads { .. }) => {
                vec![(header::RETRY_AFTER, "60".to_owned())]
            }
            Self::RangeUnsatisfiable { size_bytes } => {
                vec![(header::CONTENT_RANGE, format!("bytes */{size_bytes}"))]
            }
            _ => Vec::new(),
        }
    }
}

/// Returns an error for each blob that a manifest lacks, as distribution does; clients show the
/// messages alone.
fn missing(digests: &[Digest]) -> Option<ErrorBody> {
    let errors = digests.iter().map(|digest| {
        let message = format!("the repository does not have the blob {digest}");
        ErrorBody::new(ErrorCode::ManifestBlobUnknown, message)
            .with_detail(json!({ "digest": digest }))
    });
    errors.reduce(ErrorBody::and)
}

fn registry_status(error: &registry::Error) -> (StatusCode, ErrorCode) {
    let code = match error {
        registry::Error::BlobUnknown { .. } => ErrorCode::BlobUnknown,
        registry::Error::DigestMismatch { .. } => ErrorCode::DigestInvalid,
        registry::Error::ManifestBlobUnknown { .. } => ErrorCode::ManifestBlobUnknown,
        registry::Error::ManifestInvalid(_) => ErrorCode::ManifestInvalid,
        registry::Error::ManifestUnknown { .. } => ErrorCode::ManifestUnknown,
        registry::Error::NoSpace { .. } => {
            return (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unknown);
        }
        registry::Error::RepositoryUnknown { .. } => ErrorCode::NameUnknown,
        registry::Error::ManifestLarge { .. }
        | registry::Error::Storage { .. }
        | registry::Error::WouldWait => ErrorCode::Unknown,
        registry::Error::TooManyUploads { .. } => ErrorCode::TooManyRequests,
        registry::Error::UploadBusy { .. } => {
            return (StatusCode::CONFLICT, ErrorCode::BlobUploadInvalid);
        }
        registry::Error::UploadUnknown { .. } => ErrorCode::BlobUploadUnknown,
    };
    (code.status(), code)
}

/// Returns an error and what caused it, on one line.
fn chain(error: &dyn StdError) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
