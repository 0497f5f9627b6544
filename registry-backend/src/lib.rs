//! The registry behind the edge: the [OCI distribution spec] over a Unix socket, stored in the tree
//! that `registry:2` uses.
//!
//! # The map
//!
//! | room | what it is for |
//! | --- | --- |
//! | `http` | requests to replies: routing, headers, streaming, statuses |
//! | `registry` | what a registry does: blobs, uploads, manifests, tags, referrers |
//! | `storage` | objects under keys: what is visible, and when it is durable |
//! | `jobs` | work that no request asks for |
//!
//! `instances` serves several registries from one process, each an `app` of its own with all of these
//! rooms: no request, lock, session or setting of one is within reach of another.
//!
//! Each room calls only the next one. Paths are made in `storage/layout` alone, statuses in
//! `http/error` alone.
//!
//! # The life of a push
//!
//! 1. `POST …/blobs/uploads/` makes a session: a folder with the time in it.
//! 2. `PATCH` or `PUT` sends bytes. `http/receive` gathers them into chunks; while one is hashed and
//!    written, the next is filled. The disk is set to work on the bytes as they come.
//! 3. `PUT …?digest=` ends it: the digest is compared, the file synced and renamed to its place
//!    among the blobs, the folders synced, and only then the repository's link written.
//! 4. `PUT …/manifests/<tag>` stores the manifest as a blob, links it to the repository, and then
//!    makes the tag name it.
//!
//! # Invariants
//!
//! - A reply of 201, or of 202 to a deletion, means that a loss of power would not undo it. The 202
//!   of an upload under way means that the end of this process would not.
//! - What was not acknowledged is either whole or invisible.
//! - A blob can be read only if its bytes matched its digest.
//! - Memory depends on the number of requests, never on the size of a blob.
//! - The tree is distribution's at every moment; what else is kept can be rebuilt from it.
//!
//! [OCI distribution spec]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md

mod app;
mod config;
mod http;
mod instances;
mod jobs;
mod prospects;
mod registry;
mod storage;
#[cfg(test)]
mod tests;
mod users;

pub use app::Error;
pub use config::Config;
pub use http::blocking_threads;
pub use instances::{Handed, Instances};
pub use prospects::Unready;
#[doc(hidden)]
pub use storage::hash::digest_of;
