//! The spec's error codes and the JSON that carries them (spec, "Error Codes").

use std::fmt;

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

/// An error code, with the codes of distribution that every client knows besides the spec's.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ErrorCode {
    /// The blob is not in the repository.
    BlobUnknown,
    /// The upload cannot go on like this.
    BlobUploadInvalid,
    /// There is no such upload.
    BlobUploadUnknown,
    /// The principal may not do this.
    Denied,
    /// The digest is malformed, or not that of the content.
    DigestInvalid,
    /// The manifest points at a blob that is not there.
    ManifestBlobUnknown,
    /// The manifest is not one.
    ManifestInvalid,
    /// There is no such manifest.
    ManifestUnknown,
    /// The repository's name is malformed.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// `n` is no number that a page can have.
    PaginationNumberInvalid,
    /// The chunk does not follow the last one, or the range lies outside the blob.
    RangeInvalid,
    /// The length is not that of the content.
    SizeInvalid,
    /// The tag is malformed.
    TagInvalid,
    /// The client asks too often.
    TooManyRequests,
    /// Who asks is not known.
    Unauthorized,
    /// The service cannot answer just now.
    Unavailable,
    /// Something failed that is not the client's fault.
    Unknown,
    /// This registry does not do that.
    Unsupported,
}

impl ErrorCode {
    /// Returns the code as it stands in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
            Self::Unsupported => "UNSUPPORTED",
        }
    }

    /// Returns the status that goes with the code where nothing more special applies.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown => StatusCode::NOT_FOUND,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestBlobUnknown
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::PaginationNumberInvalid
            | Self::SizeInvalid
            | Self::TagInvalid => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::RangeInvalid => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of an error reply: `{"errors":[{"code","message","detail"}]}`.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorBody {
    /// One at least.
    errors: Vec<ErrorEntry>,
}

#[derive(Clone, Debug, Serialize)]
struct ErrorEntry {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    detail: Value,
}

impl ErrorBody {
    /// The media type of the body.
    pub const CONTENT_TYPE: &str = "application/json";

    /// Says what went wrong, in words that a person reads in the client's output.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            errors: vec![ErrorEntry {
                code: code.as_str(),
                message: message.into(),
                detail: Value::Null,
            }],
        }
    }

    /// Adds to the last error what a program may want to read.
    #[must_use]
    pub fn with_detail(mut self, detail: Value) -> Self {
        if let Some(entry) = self.errors.last_mut() {
            entry.detail = detail;
        }
        self
    }

    /// Adds what else went wrong.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.errors.extend(other.errors);
        self
    }

    /// Returns the JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: strings and JSON values always serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_shape_of_the_spec() {
        let body = ErrorBody::new(ErrorCode::BlobUnknown, "blob unknown");
        assert_eq!(
            String::from_utf8(body.to_json()).unwrap(),
            r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#
        );
        let body = body.with_detail(serde_json::json!({"digest": "x"}));
        assert_eq!(
            String::from_utf8(body.to_json()).unwrap(),
            r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown","detail":{"digest":"x"}}]}"#
        );
        let two = body.and(ErrorBody::new(ErrorCode::SizeInvalid, "size"));
        let json: Value = serde_json::from_slice(&two.to_json()).unwrap();
        assert_eq!(json["errors"][0]["detail"]["digest"], "x");
        assert_eq!(json["errors"][1]["code"], "SIZE_INVALID");
    }
}
