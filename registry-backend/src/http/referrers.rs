//! `/v2/<name>/referrers/<digest>`

use std::sync::Arc;

use http::{HeaderName, Response, StatusCode, header};
use oci::{Digest, RepositoryName, media_type};
use serde_json::json;

use super::body::Body;
use super::changing;
use super::error::Error;
use super::reply::reply;
use super::router::Call;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Lists the manifests that have another as their subject: none where nobody knows it.
pub(super) async fn list(
    call: &Call<'_>,
    repository: &RepositoryName,
    subject: &Digest,
) -> Result<Response<Body>, Error> {
    let registry = Arc::clone(call.registry);
    let (repository, subject) = (repository.clone(), subject.clone());
    let mut referrers = changing(move || registry.referrers(&repository, &subject)).await?;
    let mut headers = vec![(header::CONTENT_TYPE, media_type::OCI_INDEX.to_owned())];
    if let Some(wanted) = call.query.first("artifactType") {
        referrers.retain(|referrer| referrer.artifact_type.as_deref() == Some(wanted));
        headers.push((OCI_FILTERS_APPLIED, "artifactType".to_owned()));
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": referrers,
    });
    Ok(reply(StatusCode::OK, headers, index.to_string()))
}
