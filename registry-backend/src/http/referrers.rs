//! `/v2/<name>/referrers/<digest>`

use http::{HeaderName, Response, StatusCode, header};
use oci::{Digest, RepositoryName, media_type};
use serde_json::json;

use super::body::Body;
use super::error::Error;
use super::pages::encoded;
use super::reply::reply;
use super::router::Call;
use super::threads::looking;
use crate::registry::{Referrers, Wanted};

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
    let (index, referrers) = referrers(call, repository, subject, &wanted).await?;
    let mut headers = vec![(header::CONTENT_TYPE, media_type::OCI_INDEX.to_owned())];
    if wanted.artifact_type.is_some() {
        headers.push((OCI_FILTERS_APPLIED, "artifactType".to_owned()));
    }
    if let Some(last) = referrers.descriptors.last().filter(|_| referrers.more) {
        let filter = wanted.artifact_type.map_or_else(String::new, |kind| {
            format!("artifactType={}&", encoded(&kind))
        });
        let last = last.digest.to_string();
        let link = format!(
            "</v2/{repository}/referrers/{subject}?{filter}last={}>; rel=\"next\"",
            encoded(&last)
        );
        headers.push((header::LINK, link));
    }
    Ok(reply(StatusCode::OK, headers, index))
}

/// Looks them up; or, where the index has to be made anew first, waits for the right to do that.
async fn referrers(
    call: &Call<'_>,
    repository: &RepositoryName,
    subject: &Digest,
    wanted: &Wanted,
) -> Result<(String, Referrers), Error> {
    let (name, of, which) = (repository.clone(), subject.clone(), wanted.clone());
    let found = looking(call, move |registry| {
        let referrers = registry.referrers(&name, &of, &which)?;
        Ok(referrers.map(|referrers| (index(&referrers), referrers)))
    });
    if let Some(found) = found.await? {
        return Ok(found);
    }
    let (of, which) = (subject.clone(), wanted.clone());
    let asking = call.ask_to_change()?;
    asking
        .change_locked(repository, move |registry, lock| {
            let referrers = registry.referrers_anew(lock, &of, &which)?;
            Ok((index(&referrers), referrers))
        })
        .await
}

fn index(referrers: &Referrers) -> String {
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": referrers.descriptors,
    });
    index.to_string()
}
