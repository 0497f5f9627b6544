//! `/v2/<name>/manifests/<reference>`

use http::{HeaderName, Method, Response, StatusCode, header};
use oci::{Reference, RepositoryName, Tag};

use super::body::Body;
use super::conditions::{entity_tag, none_match_fails};
use super::error::Error;
use super::payload::Payload;
use super::reply::{CONTENT_DIGEST, reply};
use super::router::{Call, content_length};
use super::threads::{permitted, reading};
use crate::registry::{CheckedManifest, Layers, NewManifest};

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
    let (repository, reference) = (repository.clone(), reference.clone());
    let manifest = reading(call, move |registry, wait| {
        registry.manifest(&repository, &reference, wait)
    })
    .await?;
    let entity_tag = entity_tag(&manifest.digest);
    let unchanged = none_match_fails(&call.parts.headers, &entity_tag);
    let headers = [
        (CONTENT_DIGEST, manifest.digest.to_string()),
        (header::ETAG, entity_tag),
    ];
    if unchanged {
        return Ok(reply(StatusCode::NOT_MODIFIED, headers, ""));
    }
    let headers = headers.into_iter().chain([
        (header::CONTENT_TYPE, manifest.media_type),
        (header::CONTENT_LENGTH, manifest.content.len().to_string()),
    ]);
    let body = if call.parts.method == Method::HEAD {
        Body::from("")
    } else {
        Body::from(manifest.content)
    };
    Ok(reply(StatusCode::OK, headers, body))
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
    let size_bytes = announced(call)?;
    // As long as it is in memory.
    let size_max = call.settings.config.max_manifest_size;
    let _held = asking.to_hold(size_bytes, size_max).await?;
    let content_type = call.parts.headers.get(header::CONTENT_TYPE);
    let new = NewManifest {
        reference: reference.clone(),
        tags: tags.clone(),
        content_type: content_type.and_then(|value| Some(value.to_str().ok()?.to_owned())),
        content: read(call, payload).await?,
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

/// Returns how large the body is, if that is known.
fn announced(call: &Call<'_>) -> Result<Option<u64>, Error> {
    let size_max = call.settings.config.max_manifest_size;
    match content_length(call) {
        Some(size_bytes) if size_bytes > size_max => Err(Error::ManifestTooLarge { size_max }),
        size_bytes => Ok(size_bytes),
    }
}

/// Checks a manifest before it waits for anything: on another thread where it is large.
async fn check(call: &Call<'_>, new: NewManifest) -> Result<CheckedManifest, Error> {
    if new.is_checked_at_once() {
        return Ok(new.check()?);
    }
    permitted(&call.permits.hashes, move || new.check()).await
}

async fn read(call: &Call<'_>, payload: &mut Payload) -> Result<Vec<u8>, Error> {
    let size_max = call.settings.config.max_manifest_size;
    let mut content = Vec::new();
    while let Some(data) = payload.next().await? {
        if (content.len() + data.len()) as u64 > size_max {
            return Err(Error::ManifestTooLarge { size_max });
        }
        data.append_to(&mut content);
    }
    Ok(content)
}
