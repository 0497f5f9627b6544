//! `/v2/<name>/blobs/uploads/` and the uploads below it (spec, "Pushing Blobs").

use std::sync::Arc;

use http::{HeaderName, Response, StatusCode, header};
use oci::range::UploadRange;
use oci::{Algorithm, Digest, Mount, RepositoryName, UploadId};

use super::body::Body;
use super::error::Error;
use super::payload::Payload;
use super::principal::visibility;
use super::receive::{Received, receive};
use super::reply::{CONTENT_DIGEST, reply};
use super::router::Call;
use super::threads::{blocking, changing};
use crate::registry::{Append, Registry};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Begins an upload; or mounts a blob of another repository; or takes a blob whole.
pub(super) async fn begin(
    call: &Call<'_>,
    repository: &RepositoryName,
    payload: &mut Payload,
) -> Result<Response<Body>, Error> {
    if let Some(digest) = mount(call, repository).await? {
        return Ok(created(repository, &digest));
    }
    let digest = call
        .query
        .first("digest")
        .map(str::parse::<Digest>)
        .transpose()?;
    let algorithm = match &digest {
        Some(digest) => digest.algorithm(),
        None => match call.query.first("digest-algorithm") {
            Some(algorithm) => algorithm.parse()?,
            None => Algorithm::default(),
        },
    };
    let registry = Arc::clone(call.registry);
    let id = {
        let repository = repository.clone();
        changing(move || registry.begin_upload(&repository, algorithm)).await?
    };
    let Some(digest) = digest else {
        return Ok(progress(StatusCode::ACCEPTED, repository, &id, 0));
    };
    let append = open(call.registry, repository, &id, Some(algorithm)).await?;
    match receive(payload, append, content_length(call)).await {
        Ok(received) => {
            finish_received(received, &digest).await?;
            Ok(created(repository, &digest))
        }
        Err(error) => {
            // The client has never heard of the upload, so it cannot go on with it.
            let claim = call.registry.claim_upload(repository, &id).await?;
            drop(changing(move || claim.cancel()).await);
            Err(error)
        }
    }
}

/// Says how much of an upload has been received.
pub(super) async fn status(
    call: &Call<'_>,
    repository: &RepositoryName,
    id: &UploadId,
) -> Result<Response<Body>, Error> {
    let registry = Arc::clone(call.registry);
    let (name, wanted) = (repository.clone(), id.clone());
    let size_bytes = blocking(move || registry.upload_size(&name, &wanted)).await?;
    Ok(progress(StatusCode::NO_CONTENT, repository, id, size_bytes))
}

/// Takes in a chunk.
pub(super) async fn append(
    call: &Call<'_>,
    repository: &RepositoryName,
    id: &UploadId,
    payload: &mut Payload,
) -> Result<Response<Body>, Error> {
    let append = open(call.registry, repository, id, None).await?;
    let announced = announced(call, repository, id, &append)?;
    let Received { mut append, rest } = receive(payload, append, announced).await?;
    let size_bytes = changing(move || {
        append.write(&rest)?;
        Ok(append.size_bytes())
    })
    .await?;
    Ok(progress(StatusCode::ACCEPTED, repository, id, size_bytes))
}

/// Takes in the last chunk, which may be empty, and makes the upload a blob.
pub(super) async fn finish(
    call: &Call<'_>,
    repository: &RepositoryName,
    id: &UploadId,
    payload: &mut Payload,
) -> Result<Response<Body>, Error> {
    let digest: Digest = call
        .query
        .first("digest")
        .ok_or(Error::DigestMissing)?
        .parse()?;
    // Known from here on, so that what comes is hashed once, whatever the upload began with.
    let algorithm = Some(digest.algorithm());
    let append = open(call.registry, repository, id, algorithm).await?;
    let announced = announced(call, repository, id, &append)?;
    let received = receive(payload, append, announced).await?;
    finish_received(received, &digest).await?;
    Ok(created(repository, &digest))
}

/// Gives an upload up.
pub(super) async fn cancel(
    call: &Call<'_>,
    repository: &RepositoryName,
    id: &UploadId,
) -> Result<Response<Body>, Error> {
    let claim = call.registry.claim_upload(repository, id).await?;
    changing(move || claim.cancel()).await?;
    Ok(reply(StatusCode::NO_CONTENT, [], ""))
}

/// Mounts the blob that the request names, if it does and there is one to mount. Otherwise the
/// client is to upload it, so a bad parameter is no error (spec, "Mounting a blob").
async fn mount(call: &Call<'_>, repository: &RepositoryName) -> Result<Option<Digest>, Error> {
    let Some(Mount { digest, from }) = Mount::of(&call.query) else {
        return Ok(None);
    };
    let registry = Arc::clone(call.registry);
    let (repository, wanted) = (repository.clone(), digest.clone());
    let visible = visibility(registry.name(), &call.parts.headers);
    let mounted = changing(move || {
        registry.mount_blob(&repository, &wanted, from.as_ref(), visible.as_ref())
    })
    .await?;
    Ok(mounted.then_some(digest))
}

async fn open(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    id: &UploadId,
    algorithm: Option<Algorithm>,
) -> Result<Append, Error> {
    let claim = registry.claim_upload(repository, id).await?;
    changing(move || claim.open(algorithm)).await
}

async fn finish_received(received: Received, digest: &Digest) -> Result<(), Error> {
    let Received { mut append, rest } = received;
    let digest = digest.clone();
    changing(move || {
        append.write(&rest)?;
        append.finish(&digest)
    })
    .await
}

/// Returns how many bytes the request says its body has, after checking that they come next.
fn announced(
    call: &Call<'_>,
    repository: &RepositoryName,
    id: &UploadId,
    append: &Append,
) -> Result<Option<u64>, Error> {
    let content_length = content_length(call);
    let Some(content_range) = call.parts.headers.get(header::CONTENT_RANGE) else {
        return Ok(content_length);
    };
    let size_bytes = append.size_bytes();
    let misplaced = |reason: String| Error::ChunkMisplaced {
        reason,
        location: location(repository, id),
        range: received_range(size_bytes),
    };
    let content_range: UploadRange = content_range
        .to_str()
        .unwrap_or_default()
        .parse()
        .map_err(|error: oci::range::UploadRangeError| misplaced(error.to_string()))?;
    if content_range.first != size_bytes {
        let first = content_range.first;
        let reason = format!("chunk starts at {first}, but the upload is at {size_bytes}");
        return Err(misplaced(reason));
    }
    match content_length {
        Some(actual) if actual != content_range.size_bytes() => Err(Error::LengthMismatch {
            announced: content_range.size_bytes(),
            actual,
        }),
        _ => Ok(Some(content_range.size_bytes())),
    }
}

fn content_length(call: &Call<'_>) -> Option<u64> {
    let length = call.parts.headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn location(repository: &RepositoryName, id: &UploadId) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// Returns what has been received as clients read it; docker reads `0-0` where nothing has.
fn received_range(size_bytes: u64) -> String {
    format!("0-{}", size_bytes.saturating_sub(1))
}

fn progress(
    status: StatusCode,
    repository: &RepositoryName,
    id: &UploadId,
    size_bytes: u64,
) -> Response<Body> {
    let headers = [
        (header::LOCATION, location(repository, id)),
        (header::RANGE, received_range(size_bytes)),
        (UPLOAD_UUID, id.to_string()),
    ];
    reply(status, headers, "")
}

fn created(repository: &RepositoryName, digest: &Digest) -> Response<Body> {
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    reply(StatusCode::CREATED, headers, "")
}
