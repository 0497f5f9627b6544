//! `/v2/<name>/tags/list`

use std::sync::Arc;

use http::{Response, StatusCode};
use oci::RepositoryName;
use serde_json::json;

use super::body::Body;
use super::error::Error;
use super::pages::{link, page};
use super::reply;
use super::router::Call;
use super::threads::blocking;

/// Lists the tags of a repository.
pub(super) async fn list(
    call: &Call<'_>,
    repository: &RepositoryName,
) -> Result<Response<Body>, Error> {
    let page = page(&call.query, None)?;
    let registry = Arc::clone(call.registry);
    let (name, wanted) = (repository.clone(), page.clone());
    let work = move || {
        let listing = registry.tags(&name, &wanted)?;
        let content = json!({ "name": name, "tags": listing.names }).to_string();
        Ok((listing, content))
    };
    let (listing, content) = blocking(work).await?;
    let link = link(&format!("/v2/{repository}/tags/list"), &page, &listing);
    Ok(reply::json(StatusCode::OK, link, content))
}
