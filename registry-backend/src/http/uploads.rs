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
use super::router::{Call, content_length};
use super::threads::{going_on, looking};
use crate::registry::{Append, NewUpload, Registry, UploadLimits};

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
    let id = begin_session(call, repository, algorithm).await?;
    let Some(digest) = digest else {
        return Ok(progress(StatusCode::ACCEPTED, repository, &id, 0));
    };
    let claim = call.registry.claim_upload(repository, &id).await?;
    let append = going_on(call, repository, move || claim.open(Some(algorithm))).await?;
    match receive(call, repository, payload, append, content_length(call)).await {
        Ok(received) => {
            finish_received(call, repository, received, &digest).await?;
            Ok(created(repository, &digest))
        }
        Err(error) => {
            // The client has never heard of the upload, so it cannot go on with it.
            let claim = call.registry.claim_upload(repository, &id).await?;
            drop(going_on(call, repository, move || claim.cancel()).await);
            Err(error)
        }
    }
}

async fn begin_session(
    call: &Call<'_>,
    repository: &RepositoryName,
    algorithm: Algorithm,
) -> Result<UploadId, Error> {
    let asking = call.ask_to_change()?;
    let config = &call.settings.config;
    let new = NewUpload {
        repository: repository.clone(),
        algorithm,
        principal: asking.principal().clone(),
        limits: UploadLimits {
            all: config.max_uploads,
            repository: config.max_uploads_per_repository,
            principal: config.max_uploads_per_principal,
        },
    };
    let begin = move |registry: &Arc<Registry>| registry.begin_upload(&new);
    asking.change(repository, begin).await
}

/// Says how much of an upload has been received.
pub(super) async fn status(
    call: &Call<'_>,
    repository: &RepositoryName,
    id: &UploadId,
) -> Result<Response<Body>, Error> {
    let (name, wanted) = (repository.clone(), id.clone());
    let look = move |registry: &Registry| registry.upload_size(&name, &wanted);
    let size_bytes = looking(call, look).await?;
    Ok(progress(StatusCode::NO_CONTENT, repository, id, size_bytes))
}

/// Takes in a chunk.
pub(super) async fn append(
    call: &Call<'_>,
    repository: &RepositoryName,
    id: &UploadId,
    payload: &mut Payload,
) -> Result<Response<Body>, Error> {
    let append = open(call, repository, id, None).await?;
    let announced = announced(call, repository, id, &append)?;
    let received = receive(call, repository, payload, append, announced).await?;
    let Received { mut append, rest } = received;
    let write = move || {
        append.write(&rest)?;
        Ok(append.size_bytes())
    };
    let size_bytes = going_on(call, repository, write).await?;
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
    let append = open(call, repository, id, algorithm).await?;
    let announced = announced(call, repository, id, &append)?;
    let received = receive(call, repository, payload, append, announced).await?;
    finish_received(call, repository, received, &digest).await?;
    Ok(created(repository, &digest))
}

/// Gives an upload up.
pub(super) async fn cancel(
    call: &Call<'_>,
    repository: &RepositoryName,
    id: &UploadId,
) -> Result<Response<Body>, Error> {
    let asking = call.ask_to_change()?;
    let claim = call.registry.claim_upload(repository, id).await?;
    asking.change(repository, move |_| claim.cancel()).await?;
    Ok(reply(StatusCode::NO_CONTENT, [], ""))
}

/// Mounts the blob that the request names, if it does and there is one to mount. Otherwise the
/// client is to upload it, so a bad parameter is no error (spec, "Mounting a blob").
async fn mount(call: &Call<'_>, repository: &RepositoryName) -> Result<Option<Digest>, Error> {
    let Some(Mount { digest, from }) = Mount::of(&call.query) else {
        return Ok(None);
    };
    let (name, wanted) = (repository.clone(), digest.clone());
    let visible = visibility(call.registry.name(), &call.parts.headers);
    let mount = move |registry: &Arc<Registry>| {
        registry.mount_blob(&name, &wanted, from.as_ref(), visible.as_ref())
    };
    let mounted = call.ask_to_change()?.change(repository, mount).await?;
    Ok(mounted.then_some(digest))
}

async fn open(
    call: &Call<'_>,
    repository: &RepositoryName,
    id: &UploadId,
    algorithm: Option<Algorithm>,
) -> Result<Append, Error> {
    let asking = call.ask_to_change()?;
    let claim = call.registry.claim_upload(repository, id).await?;
    let open = move |_: &Arc<Registry>| claim.open(algorithm);
    asking.change(repository, open).await
}

async fn finish_received(
    call: &Call<'_>,
    repository: &RepositoryName,
    received: Received,
    digest: &Digest,
) -> Result<(), Error> {
    let Received { mut append, rest } = received;
    let digest = digest.clone();
    let finish = move || {
        append.write(&rest)?;
        append.finish(&digest)
    };
    going_on(call, repository, finish).await
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
