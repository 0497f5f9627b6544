//! `/v2/<name>/referrers/<digest>`

use http::{HeaderName, Response, StatusCode, header};
use oci::{Digest, RepositoryName, media_type};

use super::body::Body;
use super::bounds::{PIECE_MIN_BYTES, kib};
use super::error::Error;
use super::held::Held;
use super::pages::encoded;
use super::principal::principal;
use super::reply::reply;
use super::router::Call;
use super::threads::looking;
use crate::registry::{PAGE_BYTES, Referrers, Wanted};

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Lists the manifests that have another as their subject, in pages where they are large: none where
/// nobody knows it.
pub(super) async fn list(
    call: &Call<'_>,
    repository: &RepositoryName,
    subject: &Digest,
) -> Result<Response<Body>, Error> {
    let wanted = Wanted {
        artifact_type: call.query.first("artifactType").map(str::to_owned),
        last: call.query.first("last").map(str::parse).transpose()?,
    };
    // Nearly all are few. Those that are not are held until the client has taken them.
    let mut page = page(call, repository, subject, &wanted, PIECE_MIN_BYTES).await?;
    let mut share = None;
    if page.more {
        let principal = principal(&call.parts.headers);
        let referrers = &call.bounds.referrers;
        let wait = referrers.acquire(principal, kib(PAGE_BYTES as u64));
        share = Some(call.client.unless_gone(wait).await?);
        page = self::page(call, repository, subject, &wanted, PAGE_BYTES).await?;
    }
    let mut headers = vec![(header::CONTENT_TYPE, media_type::OCI_INDEX.to_owned())];
    if wanted.artifact_type.is_some() {
        headers.push((OCI_FILTERS_APPLIED, "artifactType".to_owned()));
    }
    if let Some(last) = page.last.filter(|_| page.more) {
        let filter = wanted.artifact_type.map_or_else(String::new, |kind| {
            format!("artifactType={}&", encoded(&kind))
        });
        let link = format!(
            "</v2/{repository}/referrers/{subject}?{filter}last={}>; rel=\"next\"",
            encoded(&last.to_string())
        );
        headers.push((header::LINK, link));
    }
    let body = match share {
        Some(share) => Held::new(page.json, share, &call.bounds.pieces).into(),
        None => Body::from(page.json),
    };
    Ok(reply(StatusCode::OK, headers, body))
}

/// Makes a page of an index, of which the descriptors take up to `bytes_max`; where the index has to be
/// made anew first, it waits for the right to do that.
async fn page(
    call: &Call<'_>,
    repository: &RepositoryName,
    subject: &Digest,
    wanted: &Wanted,
    bytes_max: usize,
) -> Result<Referrers, Error> {
    let (name, of, which) = (repository.clone(), subject.clone(), wanted.clone());
    let found = looking(call, move |registry| {
        let referrers = registry.referrers(&name, &of, &which, bytes_max)?;
        Ok(referrers.map(enclosed))
    });
    if let Some(found) = found.await? {
        return Ok(found);
    }
    let (of, which) = (subject.clone(), wanted.clone());
    let asking = call.ask_to_change()?;
    let indexes = call.bounds.indexes.acquire(asking.principal().clone(), 1);
    let index = call.client.unless_gone(indexes).await?;
    asking
        .change_locked(repository, move |registry, lock| {
            let referrers = registry.referrers_anew(lock, &of, &which, bytes_max)?;
            drop(index);
            Ok(enclosed(referrers))
        })
        .await
}

/// Makes a list of descriptors an index.
fn enclosed(mut page: Referrers) -> Referrers {
    page.json.splice(..0, *b"{\"manifests\":[");
    let end = format!(
        "],\"mediaType\":\"{}\",\"schemaVersion\":2}}",
        media_type::OCI_INDEX
    );
    page.json.extend_from_slice(end.as_bytes());
    page
}
