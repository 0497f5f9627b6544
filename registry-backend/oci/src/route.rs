//! The one parser of paths under `/v2/`: what it returns is what the edge authorises and what the
//! registry serves, so no spelling of a path can be taken for two things.

use std::fmt;
use std::str::FromStr;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::digest::DigestError;
use crate::error::ErrorCode;
use crate::reference::{ReferenceError, TagError};
use crate::repository::RepositoryNameError;
use crate::{Digest, Reference, RepositoryName};

/// What a path under `/v2/` names (spec, "Endpoints").
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/<name>/blobs/<digest>`
    Blob {
        /// Which repository.
        repository: RepositoryName,
        /// Which blob.
        digest: Digest,
    },
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/manifests/<reference>`
    Manifest {
        /// Which repository.
        repository: RepositoryName,
        /// Which manifest.
        reference: Reference,
    },
    /// `/v2/<name>/referrers/<digest>`
    Referrers {
        /// Which repository.
        repository: RepositoryName,
        /// The subject.
        digest: Digest,
    },
    /// `/v2/<name>/tags/list`
    Tags {
        /// Which repository.
        repository: RepositoryName,
    },
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload {
        /// Which repository.
        repository: RepositoryName,
        /// Which upload.
        id: UploadId,
    },
    /// `/v2/<name>/blobs/uploads/`
    Uploads {
        /// Which repository.
        repository: RepositoryName,
    },
}

impl Route {
    /// Returns whether `path` is under `/v2/`, and so the registry's to answer.
    pub fn covers(path: &str) -> bool {
        path == "/v2" || path.starts_with("/v2/")
    }

    /// Reads the path of a request, percent-encoded as it came and without its query.
    ///
    /// The path is decoded once, as a whole. The grammar of names, tags and digests then has no
    /// room for anything that a second decoding, `.` or `..` could change.
    ///
    /// A name may itself hold `blobs` or `manifests`, so the path is read from its right end.
    ///
    /// # Errors
    /// [`RouteError`] when it names nothing that the spec knows.
    pub fn parse(path: &str) -> Result<Self, RouteError> {
        if matches!(path, "/v2" | "/v2/") {
            return Ok(Self::Base);
        }
        let path = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_not_utf8| RouteError::Unknown)?;
        let path = path.strip_prefix("/v2/").ok_or(RouteError::Unknown)?;
        if path == "_catalog" {
            return Ok(Self::Catalog);
        }
        let (rest, last) = split_last(path)?;
        let (name, kind) = split_last(rest)?;
        Ok(match (kind, last) {
            ("blobs", "uploads") => Self::Uploads {
                repository: name.parse()?,
            },
            ("blobs", digest) => Self::Blob {
                repository: name.parse()?,
                digest: digest.parse()?,
            },
            ("manifests", reference) => Self::Manifest {
                repository: name.parse()?,
                reference: reference.parse()?,
            },
            ("referrers", digest) => Self::Referrers {
                repository: name.parse()?,
                digest: digest.parse()?,
            },
            ("tags", "list") => Self::Tags {
                repository: name.parse()?,
            },
            ("uploads", id) => {
                let name = name.strip_suffix("/blobs").ok_or(RouteError::Unknown)?;
                let repository = name.parse()?;
                if id.is_empty() {
                    Self::Uploads { repository }
                } else {
                    Self::Upload {
                        repository,
                        id: id.parse()?,
                    }
                }
            }
            _ => return Err(RouteError::Unknown),
        })
    }

    /// Returns the repository that the route is in.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Blob { repository, .. }
            | Self::Manifest { repository, .. }
            | Self::Referrers { repository, .. }
            | Self::Tags { repository }
            | Self::Upload { repository, .. }
            | Self::Uploads { repository } => Some(repository),
        }
    }

    /// Returns the methods that the endpoint has, as `Allow` lists them.
    pub fn methods(&self) -> &'static str {
        match self {
            Self::Base | Self::Catalog | Self::Referrers { .. } | Self::Tags { .. } => "GET, HEAD",
            Self::Blob { .. } => "GET, HEAD, DELETE",
            Self::Manifest { .. } => "GET, HEAD, PUT, DELETE",
            Self::Upload { .. } => "GET, HEAD, PATCH, PUT, DELETE",
            Self::Uploads { .. } => "POST",
        }
    }

    /// Returns what a request with `method` would do; `None` for the base, which does nothing.
    ///
    /// Everything about an upload, its cancellation included, is part of a push.
    pub fn action(&self, method: &Method) -> Option<Action> {
        match self {
            Self::Base => None,
            Self::Catalog => Some(Action::Catalog),
            Self::Upload { .. } | Self::Uploads { .. } => Some(Action::Push),
            Self::Blob { .. }
            | Self::Manifest { .. }
            | Self::Referrers { .. }
            | Self::Tags { .. } => Some(match *method {
                Method::GET | Method::HEAD | Method::OPTIONS => Action::Pull,
                Method::DELETE => Action::Delete,
                _ => Action::Push,
            }),
        }
    }
}

fn split_last(path: &str) -> Result<(&str, &str), RouteError> {
    path.rsplit_once('/').ok_or(RouteError::Unknown)
}

/// What a principal wants to do.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Action {
    /// List the repositories.
    Catalog,
    /// Delete a blob, manifest or tag.
    Delete,
    /// Read a blob, manifest, tag list or referrers.
    Pull,
    /// Write a blob, manifest or tag.
    Push,
}

/// The name of an upload session: a UUID, as distribution's own purge expects of its folder.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct UploadId(Box<str>);

impl UploadId {
    /// Returns the id as it stands in paths.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UploadId {
    type Err = UploadIdError;

    fn from_str(text: &str) -> Result<Self, UploadIdError> {
        let holds = text.len() == 36
            && text.bytes().enumerate().all(|(index, byte)| match index {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if holds {
            Ok(Self(text.into()))
        } else {
            Err(UploadIdError)
        }
    }
}

/// Says that a text is no upload's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("upload id is not a lower-case UUID")]
pub struct UploadIdError;

/// Why a path names nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RouteError {
    /// The digest in it is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The repository's name in it is none.
    #[error(transparent)]
    Name(#[from] RepositoryNameError),
    /// The tag in it is none.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The spec has no such path.
    #[error("no such endpoint")]
    Unknown,
    /// The upload id in it is none, so there is no such upload.
    #[error(transparent)]
    Upload(#[from] UploadIdError),
}

impl From<ReferenceError> for RouteError {
    fn from(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Digest(error) => Self::Digest(error),
            ReferenceError::Tag(error) => Self::Tag(error),
        }
    }
}

impl RouteError {
    /// Returns the spec's code for it; `None` where the spec has none and a plain 404 is the answer.
    pub fn code(self) -> Option<ErrorCode> {
        match self {
            Self::Digest(_) => Some(ErrorCode::DigestInvalid),
            Self::Name(_) => Some(ErrorCode::NameInvalid),
            Self::Tag(_) => Some(ErrorCode::TagInvalid),
            Self::Unknown => None,
            Self::Upload(_) => Some(ErrorCode::BlobUploadUnknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "6c3f62a0-0000-4000-8000-0123456789ab";

    fn digest() -> String {
        format!("sha256:{}", "a".repeat(64))
    }

    fn show(path: &str) -> String {
        match Route::parse(path) {
            Ok(Route::Base) => "base".to_owned(),
            Ok(Route::Blob { repository, .. }) => format!("blob of {repository}"),
            Ok(Route::Catalog) => "catalog".to_owned(),
            Ok(Route::Manifest {
                repository,
                reference,
            }) => {
                format!("manifest {reference} of {repository}")
            }
            Ok(Route::Referrers { repository, .. }) => format!("referrers in {repository}"),
            Ok(Route::Tags { repository }) => format!("tags of {repository}"),
            Ok(Route::Upload { repository, id }) => format!("upload {id} to {repository}"),
            Ok(Route::Uploads { repository }) => format!("uploads to {repository}"),
            Err(error) => format!("{:?}", error.code()),
        }
    }

    #[test]
    fn every_endpoint_of_the_spec_is_known() {
        let digest = digest();
        for (path, expected) in [
            ("/v2".to_owned(), "base"),
            ("/v2/".to_owned(), "base"),
            ("/v2/_catalog".to_owned(), "catalog"),
            ("/v2/a/tags/list".to_owned(), "tags of a"),
            ("/v2/a/b/tags/list".to_owned(), "tags of a/b"),
            ("/v2/a/manifests/latest".to_owned(), "manifest latest of a"),
            ("/v2/a/blobs/uploads".to_owned(), "uploads to a"),
            ("/v2/a/blobs/uploads/".to_owned(), "uploads to a"),
            (
                format!("/v2/a/blobs/uploads/{UUID}"),
                &format!("upload {UUID} to a"),
            ),
            (format!("/v2/a/b/c/blobs/{digest}"), "blob of a/b/c"),
            (format!("/v2/a/referrers/{digest}"), "referrers in a"),
            (
                format!("/v2/a/blobs/{}", digest.replace(':', "%3A")),
                "blob of a",
            ),
            (
                format!("/v2/a/blobs/uploads/blobs/{digest}"),
                "blob of a/blobs/uploads",
            ),
            (
                "/v2/manifests/manifests/manifests".to_owned(),
                "manifest manifests of manifests",
            ),
            ("/v2/tags/list/tags/list".to_owned(), "tags of tags/list"),
        ] {
            assert_eq!(show(&path), expected, "{path}");
        }
    }

    #[test]
    fn what_names_nothing_gets_the_code_of_the_spec() {
        for (path, code) in [
            ("/", None),
            ("/v3/", None),
            ("/v2x", None),
            ("/v2/a", None),
            ("/v2/a/b", None),
            ("/v2/a/tags/lists", None),
            ("/v2/a/%ff/manifests/x", None),
            ("/v2//manifests/x", Some(ErrorCode::NameInvalid)),
            ("/v2/A/manifests/x", Some(ErrorCode::NameInvalid)),
            ("/v2/a/../b/manifests/x", Some(ErrorCode::NameInvalid)),
            ("/v2/a/%2e%2e/b/manifests/x", Some(ErrorCode::NameInvalid)),
            ("/v2/a%252fb/manifests/x", Some(ErrorCode::NameInvalid)),
            ("/v2/a;b/manifests/x", Some(ErrorCode::NameInvalid)),
            ("/v2/a/manifests/", Some(ErrorCode::TagInvalid)),
            ("/v2/a/manifests/.x", Some(ErrorCode::TagInvalid)),
            ("/v2/a/manifests/sha256:x", Some(ErrorCode::DigestInvalid)),
            ("/v2/a/blobs/x", Some(ErrorCode::DigestInvalid)),
            ("/v2/a/referrers/x", Some(ErrorCode::DigestInvalid)),
            ("/v2/a/blobs/uploads/x", Some(ErrorCode::BlobUploadUnknown)),
        ] {
            assert_eq!(Route::parse(path).unwrap_err().code(), code, "{path}");
        }
    }

    #[test]
    fn actions_follow_the_method_and_uploads_are_pushes() {
        let route = Route::parse("/v2/a/manifests/x").unwrap();
        assert_eq!(route.action(&Method::HEAD), Some(Action::Pull));
        assert_eq!(route.action(&Method::PUT), Some(Action::Push));
        assert_eq!(route.action(&Method::DELETE), Some(Action::Delete));
        let route = Route::parse(&format!("/v2/a/blobs/uploads/{UUID}")).unwrap();
        assert_eq!(route.action(&Method::DELETE), Some(Action::Push));
        assert_eq!(route.action(&Method::GET), Some(Action::Push));
        assert_eq!(Route::Base.action(&Method::GET), None);
        assert_eq!(Route::Catalog.action(&Method::GET), Some(Action::Catalog));
    }

    proptest! {
        #[test]
        fn no_path_panics_and_what_parses_holds_no_way_out(path in "/v2/[ -~]{0,60}") {
            if let Ok(route) = Route::parse(&path)
                && let Some(repository) = route.repository()
            {
                prop_assert!(repository.components().all(crate::repository::is_component));
            }
        }

        #[test]
        fn each_spelling_of_a_path_names_the_same(name in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}", encoded in any::<u64>()) {
            let plain = format!("/v2/{name}/manifests/tag");
            let spelled: String = plain
                .char_indices()
                .map(|(index, c)| {
                    let encode = index > 3 && encoded >> (index % 64) & 1 == 1;
                    if encode { format!("%{:02x}", u32::from(c)) } else { c.to_string() }
                })
                .collect();
            prop_assert_eq!(Route::parse(&spelled), Route::parse(&plain));
        }

        #[test]
        fn what_parses_is_its_plain_form_decoded_once(parts in prop::collection::vec(
            prop::sample::select(vec![
                "a", "secret", "A", "/", "//", ".", "..", "%2e", "%2E%2e", "%2f", "%252f", "%61", "%", "%%", "%zz",
                ";", ";x=y", "\\", "%5c", "%00", "\0", " ", "%20", "+", "?", "#", "%3f", "%23", "%c0%af", "%e0%80%af",
                "\u{2024}", "\u{ff0f}", "%ef%bc%8f", "%u002f", "\u{0}", "%ff", "_catalog", "-", "_",
            ]), 0..6), kind in 0..5_usize
        ) {
            let name = format!("secret/{}", parts.concat());
            let rest = ["manifests/v1", "tags/list", "blobs/uploads/", "blobs/uploads/x", "%6danifests/v1"];
            let path = format!("/v2/{name}/{}", rest[kind]);
            let Ok(route) = Route::parse(&path) else {
                return Ok(());
            };
            let decoded = percent_decode_str(&path).decode_utf8().unwrap();
            let repository = route.repository().unwrap();
            // Nothing was taken away, put in or walked up: the name stands there as it is.
            let after = decoded.strip_prefix(&format!("/v2/{repository}/"));
            prop_assert!(after.is_some(), "{} as {}", path, repository);
            prop_assert_eq!(after.unwrap(), rest[kind].replace("%6d", "m"));
            // And it reads the same when someone decodes it once more.
            prop_assert_eq!(Route::parse(&decoded), Ok(route));
        }
    }
}
