//! `/v2/<name>/manifests/<reference>`

use std::sync::Arc;

use http::{HeaderName, Method, Response, StatusCode, header};
use oci::range::ByteRange;
use oci::{Reference, RepositoryName, Tag};

use super::body::Body;
use super::bounds::kib;
use super::conditions::{entity_tag, none_match_fails};
use super::error::Error;
use super::manifest_body;
use super::parts::Part;
use super::payload::Payload;
use super::principal::principal;
use super::reply::{CONTENT_DIGEST, reply};
use super::router::{Call, content_length};
use super::threads::reading;
use crate::registry::{
    self, Blob, CHECKED_AT_ONCE_MAX, CheckedManifest, Layers, ManifestContent, NewManifest,
    StoredManifest, Wait,
};

/// The spec asks for ten tags at once; each costs some writes to the disk.
const TAGS_MAX: usize = 100;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Sends a manifest. What the client accepts is not asked: a manifest is what it is, and converting
/// it would change its digest.
pub(super) async fn get(
    call: &Call<'_>,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Response<Body>, Error> {
    let manifest = find(call, repository, reference).await?;
    let entity_tag = entity_tag(&manifest.digest);
    let unchanged = none_match_fails(&call.parts.headers, &entity_tag);
    let headers = [
        (CONTENT_DIGEST, manifest.digest.to_string()),
        (header::ETAG, entity_tag),
    ];
    if unchanged {
        return Ok(reply(StatusCode::NOT_MODIFIED, headers, ""));
    }
    let headers = headers
        .into_iter()
        .chain([(header::CONTENT_TYPE, manifest.media_type)]);
    let size_bytes = manifest.content.size_bytes();
    let length = || [(header::CONTENT_LENGTH, size_bytes.to_string())];
    if call.parts.method == Method::HEAD {
        return Ok(reply(StatusCode::OK, headers.chain(length()), ""));
    }
    Ok(match manifest.content {
        ManifestContent::Bytes(bytes) => reply(StatusCode::OK, headers.chain(length()), bytes),
        // How long it is, whoever sends the file knows.
        ManifestContent::File(file) => reply(StatusCode::OK, headers, whole(file, call)),
    })
}

/// Returns the whole of a file as a body.
fn whole(file: Blob, call: &Call<'_>) -> Body {
    let last = file.size_bytes().checked_sub(1);
    let all = last.map(|last| Part::Range(ByteRange { first: 0, last }));
    Body::parts(file, all, &call.bounds.pieces)
}

/// Finds a manifest: at hand, if it is small and the kernel has it in memory.
async fn find(
    call: &Call<'_>,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<StoredManifest, Error> {
    let (name, wanted) = (repository.clone(), reference.clone());
    let found = reading(call, move |registry, wait| {
        registry.manifest(&name, &wanted, CHECKED_AT_ONCE_MAX, wait)
    });
    let mut found = found.await;
    // One that is large is held while it is checked. It can be another one by then, and larger.
    while let Err(Error::Registry(registry::Error::ManifestLarge { size_bytes })) = found {
        let principal = principal(&call.parts.headers);
        let room = call.bounds.manifests.acquire(principal, kib(size_bytes));
        let room = call.client.unless_gone(room).await?;
        let registry = Arc::clone(call.registry);
        let (name, wanted) = (repository.clone(), reference.clone());
        let work = move || {
            let found = registry.manifest(&name, &wanted, size_bytes, Wait::AsNeeded);
            drop(room);
            found
        };
        found = call.bounds.large_reads.run(work).await;
    }
    found
}

/// Stores a manifest.
pub(super) async fn put(
    call: &Call<'_>,
    repository: &RepositoryName,
    reference: &Reference,
    payload: &mut Payload,
) -> Result<Response<Body>, Error> {
    let tags = tags(call, reference)?;
    let asking = call.ask_to_change()?;
    let size_max = call.settings.config.max_manifest_size;
    let received = manifest_body::receive(&asking, payload, content_length(call), size_max);
    // As long as it is in memory.
    let (content, _share) = received.await?;
    let content_type = call.parts.headers.get(header::CONTENT_TYPE);
    let new = NewManifest {
        reference: reference.clone(),
        tags: tags.clone(),
        content_type: content_type.and_then(|value| Some(value.to_str().ok()?.to_owned())),
        content,
    };
    let layers = if call.settings.config.sparse_images {
        Layers::Optional
    } else {
        Layers::Required
    };
    let new = check(call, new).await?;
    let pushed = asking
        .change_locked(repository, move |registry, lock| {
            registry.push_manifest(lock, &new, layers)
        })
        .await?;
    let mut headers = vec![
        (
            header::LOCATION,
            format!("/v2/{repository}/manifests/{}", pushed.digest),
        ),
        (CONTENT_DIGEST, pushed.digest.to_string()),
    ];
    headers.extend(
        pushed
            .subject
            .map(|subject| (OCI_SUBJECT, subject.to_string())),
    );
    headers.extend(tags.iter().map(|tag| (OCI_TAG, tag.to_string())));
    Ok(reply(StatusCode::CREATED, headers, ""))
}

/// Removes a manifest and its tags, or a tag alone.
pub(super) async fn delete(
    call: &Call<'_>,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Response<Body>, Error> {
    if !call.settings.config.delete {
        return Err(Error::DeleteDisabled);
    }
    let reference = reference.clone();
    let asking = call.ask_to_change()?;
    asking
        .change_locked(repository, move |registry, lock| match &reference {
            Reference::Digest(digest) => registry.delete_manifest(lock, digest),
            Reference::Tag(tag) => registry.delete_tag(lock, tag),
        })
        .await?;
    Ok(reply(StatusCode::ACCEPTED, [], ""))
}

/// Returns the further tags that the request names, which only one by digest can.
fn tags(call: &Call<'_>, reference: &Reference) -> Result<Vec<Tag>, Error> {
    if matches!(reference, Reference::Tag(_)) {
        return Ok(Vec::new());
    }
    let tags = call
        .query
        .all("tag")
        .map(str::parse)
        .collect::<Result<Vec<Tag>, _>>()?;
    if tags.len() > TAGS_MAX {
        return Err(Error::TooManyTags {
            count_max: TAGS_MAX,
        });
    }
    Ok(tags)
}

/// Checks a manifest before it waits for its turn: on another thread where it is large.
async fn check(call: &Call<'_>, new: NewManifest) -> Result<CheckedManifest, Error> {
    if new.is_checked_at_once() {
        return Ok(new.check()?);
    }
    call.bounds.large_checks.run(move || new.check()).await
}
