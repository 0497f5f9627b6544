//! `/v2/<name>/tags/list`

use http::Response;
use oci::RepositoryName;

use super::body::Body;
use super::error::Error;
use super::lists::{self, Names};
use super::pages::page;
use super::router::Call;

/// Lists the tags of a repository: all of them where the client does not say how many.
pub(super) async fn list(
    call: &Call<'_>,
    repository: &RepositoryName,
) -> Result<Response<Body>, Error> {
    let page = page(&call.query, None)?;
    let names = Names::Tags {
        repository: repository.clone(),
        ticket: None,
    };
    let opening = format!("{{\"name\":\"{repository}\",\"tags\":[");
    let path = format!("/v2/{repository}/tags/list");
    lists::list(call, names, page, opening, &path).await
}
