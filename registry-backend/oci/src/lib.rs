//! The vocabulary of the [OCI distribution spec]: what a name, a digest, a route, a manifest and an
//! error are. The edge decides with it who may do what; the registry routes and stores with it.
//!
//! - [`route`]: a path under `/v2/`, parsed once by one parser for both sides;
//! - [`repository`], [`reference`](mod@reference), [`digest`]: the parts of such a path;
//! - [`query`]: its query string; [`mount`]: the blob that one asks to mount;
//! - [`pattern`]: which repositories a rule is about; [`visibility`]: which ones someone may see;
//! - [`manifest`], [`descriptor`], [`media_type`]: what a manifest says, read without changing a byte;
//!   [`stored`]: the same, of one that may have been stored by others, with fewer demands;
//! - [`range`]: `Range` of downloads and `Content-Range` of uploads; [`handover`]: open
//!   files and shared memory in the place of bodies;
//! - [`error`]: the error codes and their JSON.
//!
//! **Invariant:** no IO, no clock, no async, no HTTP server. A value of a type of this crate has
//! been checked: it can be put into a path or a header as it is.
//!
//! [OCI distribution spec]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md

pub mod descriptor;
pub mod digest;
pub mod error;
pub mod handover;
pub mod inquiry;
mod keys;
pub mod manifest;
pub mod media_type;
pub mod mount;
pub mod pattern;
pub mod query;
pub mod range;
pub mod reference;
pub mod repository;
pub mod route;
pub mod stored;
pub mod visibility;

pub use descriptor::{Annotations, Descriptor};
pub use digest::{Algorithm, Digest};
pub use error::{ErrorBody, ErrorCode};
pub use manifest::Manifest;
pub use mount::Mount;
pub use pattern::RepositoryPattern;
pub use query::Query;
pub use reference::{Reference, Tag};
pub use repository::RepositoryName;
pub use route::{Action, Route, UploadId};
pub use stored::Stored;
pub use visibility::Visibility;
