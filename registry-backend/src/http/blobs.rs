//! `/v2/<name>/blobs/<digest>`

use http::{HeaderName, Response, StatusCode, header};
use oci::range::{ByteRange, ByteRanges};
use oci::{Digest, RepositoryName, media_type};
use uuid::Uuid;

use super::body::Body;
use super::bounds::Pieces;
use super::conditions::{entity_tag, none_match_fails, range_applies};
use super::error::Error;
use super::parts::Part;
use super::reply::{CONTENT_DIGEST, reply};
use super::router::Call;
use super::threads::reading;
use crate::registry::{Blob, Registry, RepositoryLock};

/// Content under a digest never changes; but who may see it can, so no shared cache may keep it.
const CACHE_CONTROL: &str = "private, max-age=31536000, immutable";

/// Sends a blob, or the parts of it that are asked for.
pub(super) async fn get(
    call: &Call<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Response<Body>, Error> {
    let entity_tag = entity_tag(digest);
    if none_match_fails(&call.parts.headers, &entity_tag) {
        size(call, repository, digest).await?;
        return Ok(reply(StatusCode::NOT_MODIFIED, common(digest), ""));
    }
    let blob = open(call, repository, digest).await?;
    let size_bytes = blob.size_bytes();
    let pieces = &call.bounds.pieces;
    let ranges = call
        .parts
        .headers
        .get(header::RANGE)
        .filter(|_| range_applies(&call.parts.headers, &entity_tag))
        .and_then(|ranges| ByteRanges::parse(ranges.to_str().ok()?));
    let Some(ranges) = ranges else {
        return Ok(whole(digest, blob, pieces));
    };
    let ranges = ranges
        .resolve(size_bytes)
        .map_err(|_none| Error::RangeUnsatisfiable { size_bytes })?;
    let sum: u64 = ranges.iter().map(|range| range.size_bytes()).sum();
    Ok(match ranges.as_slice() {
        [range] => single(digest, blob, *range, pieces),
        // Who asks for more than there is gets all of it, once.
        _ if sum > size_bytes => whole(digest, blob, pieces),
        ranges => multiple(digest, blob, ranges, pieces),
    })
}

/// Says whether there is a blob, and how large it is.
pub(super) async fn head(
    call: &Call<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Response<Body>, Error> {
    let size_bytes = size(call, repository, digest).await?;
    if none_match_fails(&call.parts.headers, &entity_tag(digest)) {
        return Ok(reply(StatusCode::NOT_MODIFIED, common(digest), ""));
    }
    let headers = common(digest).into_iter().chain([
        (header::CONTENT_TYPE, media_type::OCTET_STREAM.to_owned()),
        (header::CONTENT_LENGTH, size_bytes.to_string()),
    ]);
    Ok(reply(StatusCode::OK, headers, ""))
}

/// Takes a blob from its repository.
pub(super) async fn delete(
    call: &Call<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Response<Body>, Error> {
    if !call.settings.config.delete {
        return Err(Error::DeleteDisabled);
    }
    let wanted = digest.clone();
    let asking = call.ask_to_change()?;
    let delete =
        move |registry: &Registry, lock: &RepositoryLock| registry.delete_blob(lock, &wanted);
    asking.change_locked(repository, delete).await?;
    let headers = [(CONTENT_DIGEST, digest.to_string())];
    Ok(reply(StatusCode::ACCEPTED, headers, ""))
}

async fn open(
    call: &Call<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Blob, Error> {
    let (repository, digest) = (repository.clone(), digest.clone());
    reading(call, move |registry, wait| {
        registry.blob(&repository, &digest, wait)
    })
    .await
}

async fn size(call: &Call<'_>, repository: &RepositoryName, digest: &Digest) -> Result<u64, Error> {
    let (repository, digest) = (repository.clone(), digest.clone());
    reading(call, move |registry, wait| {
        registry.blob_size(&repository, &digest, wait)
    })
    .await
}

fn common(digest: &Digest) -> [(HeaderName, String); 4] {
    [
        (CONTENT_DIGEST, digest.to_string()),
        (header::ETAG, entity_tag(digest)),
        (header::CACHE_CONTROL, CACHE_CONTROL.to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ]
}

fn whole(digest: &Digest, blob: Blob, pieces: &Pieces) -> Response<Body> {
    let all = blob
        .size_bytes()
        .checked_sub(1)
        .map(|last| Part::Range(ByteRange { first: 0, last }));
    let headers = common(digest)
        .into_iter()
        .chain([(header::CONTENT_TYPE, media_type::OCTET_STREAM.to_owned())]);
    reply(StatusCode::OK, headers, Body::parts(blob, all, pieces))
}

fn single(digest: &Digest, blob: Blob, range: ByteRange, pieces: &Pieces) -> Response<Body> {
    let headers = common(digest).into_iter().chain([
        (header::CONTENT_TYPE, media_type::OCTET_STREAM.to_owned()),
        (
            header::CONTENT_RANGE,
            content_range(range, blob.size_bytes()),
        ),
    ]);
    let body = Body::parts(blob, [Part::Range(range)], pieces);
    reply(StatusCode::PARTIAL_CONTENT, headers, body)
}

/// Several ranges, in the order asked (RFC 9110, section 14.6).
fn multiple(digest: &Digest, blob: Blob, ranges: &[ByteRange], pieces: &Pieces) -> Response<Body> {
    let boundary = Uuid::new_v4().simple().to_string();
    let mut parts = Vec::with_capacity(ranges.len() * 2 + 1);
    for range in ranges {
        let head = format!(
            "\r\n--{boundary}\r\ncontent-type: {}\r\ncontent-range: {}\r\n\r\n",
            media_type::OCTET_STREAM,
            content_range(*range, blob.size_bytes())
        );
        parts.push(Part::Text(head.into()));
        parts.push(Part::Range(*range));
    }
    parts.push(Part::Text(format!("\r\n--{boundary}--\r\n").into()));
    let content_type = format!("multipart/byteranges; boundary={boundary}");
    let headers = common(digest)
        .into_iter()
        .chain([(header::CONTENT_TYPE, content_type)]);
    reply(
        StatusCode::PARTIAL_CONTENT,
        headers,
        Body::parts(blob, parts, pieces),
    )
}

fn content_range(range: ByteRange, size_bytes: u64) -> String {
    format!("bytes {}-{}/{size_bytes}", range.first, range.last)
}
