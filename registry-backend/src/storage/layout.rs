//! Every path of the tree, and the only place that builds one.
//!
//! The tree is distribution's (`registry:2`), so that either program can serve what the other
//! wrote:
//!
//! ```text
//! docker/registry/v2/
//!   blobs/<alg>/<hex[0..2]>/<hex>/data                    every blob, manifests included
//!   repositories/<name>/
//!     _layers/<alg>/<hex>/link                            the repository may read this blob
//!     _manifests/revisions/<alg>/<hex>/link               the repository has this manifest
//!     _manifests/tags/<tag>/current/link                  what the tag names now
//!     _manifests/tags/<tag>/index/<alg>/<hex>/link        what it has ever named
//!     _uploads/<uuid>/{data,startedat}                    an upload under way
//!   _tidegate/                                            ours; all of it can be rebuilt or lost
//!     repositories/<name>/_referrers/<alg>/<hex>/<alg>/<hex>    subject → one that refers to it
//!     repositories/<name>/_referrers/stamp                up to when that index is complete
//!     staging/<uuid>                                      objects on their way in or out
//!     probe                                               there for a moment, to see whether it can be
//! ```
//!
//! A `link` holds a digest and nothing else, no newline either. Distribution takes each file named
//! `data` under `blobs/` and each `link` under a repository for its own and each child of `tags/`
//! for a tag; so whatever is ours stands apart, and nothing temporary is ever made in its folders.
//! It skips what starts with `_`, which no component of a repository's name can.

use std::fmt;
use std::path::{Path, PathBuf};

use oci::{Algorithm, Digest, RepositoryName, Tag, UploadId};

const TREE: &str = "docker/registry/v2";

/// What the folder of manifests and tags is called in that of a repository.
pub(crate) const MANIFESTS: &str = "_manifests";

/// Where the link to what a tag names now is in the folder of the tag.
pub(crate) const TAG_CURRENT: &str = "current/link";

/// A place in the tree, relative to the root.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Key(String);

impl Key {
    /// Returns the path of this key in a tree below `root`.
    pub(crate) fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.0)
    }

    /// Returns the key of a child that a listing named.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folders above all objects: who may write to these is expected to be let write to all below.
pub(crate) fn trunk() -> [Key; 5] {
    ["", "/blobs", "/blobs/sha256", "/repositories", "/_tidegate"]
        .map(|folder| Key(format!("{TREE}{folder}")))
}

/// The content of a blob.
pub(crate) fn blob(digest: &Digest) -> Key {
    let hex = digest.hex();
    let shard = hex.get(..2).unwrap_or(hex);
    Key(format!(
        "{TREE}/blobs/{}/{shard}/{hex}/data",
        digest.algorithm()
    ))
}

/// The folder of all repositories.
pub(crate) fn repositories() -> Key {
    Key(format!("{TREE}/repositories"))
}

/// The folder of a repository.
pub(crate) fn repository(repository: &RepositoryName) -> Key {
    Key(format!("{TREE}/repositories/{repository}"))
}

/// The folder of the links to the blobs that a repository may read.
pub(crate) fn layers(repository: &RepositoryName) -> Key {
    self::repository(repository).child("_layers")
}

/// The link that lets a repository read a blob.
pub(crate) fn layer(repository: &RepositoryName, digest: &Digest) -> Key {
    link(&layers(repository), digest)
}

/// The folder of a repository's manifests and tags.
pub(crate) fn manifests(repository: &RepositoryName) -> Key {
    self::repository(repository).child(MANIFESTS)
}

/// The folder of the links to a repository's manifests of one algorithm.
pub(crate) fn revisions(repository: &RepositoryName, algorithm: Algorithm) -> Key {
    manifests(repository)
        .child("revisions")
        .child(algorithm.as_str())
}

/// The link that says that a repository has a manifest.
pub(crate) fn revision(repository: &RepositoryName, digest: &Digest) -> Key {
    link(&manifests(repository).child("revisions"), digest)
}

/// The folder of that link, with all that says so.
pub(crate) fn revision_folder(repository: &RepositoryName, digest: &Digest) -> Key {
    digest_folder(&manifests(repository).child("revisions"), digest)
}

/// The folder of a repository's tags.
pub(crate) fn tags(repository: &RepositoryName) -> Key {
    manifests(repository).child("tags")
}

/// The folder of a tag.
pub(crate) fn tag(repository: &RepositoryName, tag: &Tag) -> Key {
    tags(repository).child(tag.as_str())
}

/// The link to what a tag names now.
pub(crate) fn tag_current(repository: &RepositoryName, tag: &Tag) -> Key {
    self::tag(repository, tag).child(TAG_CURRENT)
}

/// The link to something that a tag names or has named.
pub(crate) fn tag_index(repository: &RepositoryName, tag: &Tag, digest: &Digest) -> Key {
    link(&self::tag(repository, tag).child("index"), digest)
}

/// The folder of a repository's uploads.
pub(crate) fn uploads(repository: &RepositoryName) -> Key {
    self::repository(repository).child("_uploads")
}

/// The folder of an upload.
pub(crate) fn upload(repository: &RepositoryName, id: &UploadId) -> Key {
    uploads(repository).child(id.as_str())
}

/// The bytes that an upload has received.
pub(crate) fn upload_data(repository: &RepositoryName, id: &UploadId) -> Key {
    upload(repository, id).child("data")
}

/// When an upload was begun, as RFC 3339 without a newline. Without it there is no such upload.
pub(crate) fn upload_started_at(repository: &RepositoryName, id: &UploadId) -> Key {
    upload(repository, id).child("startedat")
}

/// The folder of a repository's index of referrers.
pub(crate) fn referrers(repository: &RepositoryName) -> Key {
    Key(format!(
        "{TREE}/_tidegate/repositories/{repository}/_referrers"
    ))
}

/// The note that says up to when a repository's index of referrers is complete.
pub(crate) fn referrers_stamp(repository: &RepositoryName) -> Key {
    referrers(repository).child("stamp")
}

/// The folder of those that refer to a subject.
pub(crate) fn referrers_of(repository: &RepositoryName, subject: &Digest) -> Key {
    digest_folder(&referrers(repository), subject)
}

/// The descriptor of a manifest that refers to a subject.
pub(crate) fn referrer(repository: &RepositoryName, subject: &Digest, digest: &Digest) -> Key {
    digest_folder(&referrers_of(repository, subject), digest)
}

/// The folder of objects on their way in or out.
pub(crate) fn staging() -> Key {
    Key(format!("{TREE}/_tidegate/staging"))
}

/// What is written to see whether anything can be.
pub(crate) fn probe() -> Key {
    Key(format!("{TREE}/_tidegate/probe"))
}

fn digest_folder(folder: &Key, digest: &Digest) -> Key {
    folder
        .child(digest.algorithm().as_str())
        .child(digest.hex())
}

fn link(folder: &Key, digest: &Digest) -> Key {
    digest_folder(folder, digest).child("link")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_that_of_distribution() {
        let repository: RepositoryName = "a/b".parse().unwrap();
        let tag: Tag = "v1".parse().unwrap();
        let hex = "0123456789abcdef".repeat(4);
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        let id: UploadId = "6c3f62a0-0000-4000-8000-0123456789ab".parse().unwrap();
        let keys = [
            blob(&digest),
            layer(&repository, &digest),
            revision(&repository, &digest),
            tag_current(&repository, &tag),
            tag_index(&repository, &tag, &digest),
            upload_data(&repository, &id),
            upload_started_at(&repository, &id),
            referrer(&repository, &digest, &digest),
            referrers_stamp(&repository),
        ]
        .map(|key| {
            key.to_string()
                .replace(&hex, "HEX")
                .replace("docker/registry/v2/", "")
        });
        insta::assert_snapshot!(keys.join("\n"), @r"
        blobs/sha256/01/HEX/data
        repositories/a/b/_layers/sha256/HEX/link
        repositories/a/b/_manifests/revisions/sha256/HEX/link
        repositories/a/b/_manifests/tags/v1/current/link
        repositories/a/b/_manifests/tags/v1/index/sha256/HEX/link
        repositories/a/b/_uploads/6c3f62a0-0000-4000-8000-0123456789ab/data
        repositories/a/b/_uploads/6c3f62a0-0000-4000-8000-0123456789ab/startedat
        _tidegate/repositories/a/b/_referrers/sha256/HEX/sha256/HEX
        _tidegate/repositories/a/b/_referrers/stamp
        ");
    }
}
