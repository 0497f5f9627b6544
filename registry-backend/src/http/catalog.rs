//! `/v2/_catalog`

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;

use super::body::Body;
use super::error::Error;
use super::pages::{link, page};
use super::principal::visibility;
use super::reply;
use super::router::Call;
use super::threads::blocking;

/// How many repositories a page has where the client does not say; each costs a look at the disk.
const PAGE_SIZE: usize = 1000;

/// How many lists are made at once. Each may have to look at every repository to find the few that
/// are to be seen, and readers of blobs need threads, too.
const LISTS_MAX: usize = 8;

static LISTS: Semaphore = Semaphore::const_new(LISTS_MAX);

/// Lists the repositories that the one who asks may see.
pub(super) async fn list(call: &Call<'_>) -> Result<Response<Body>, Error> {
    let page = page(&call.query, Some(PAGE_SIZE))?;
    let registry = Arc::clone(call.registry);
    let wanted = page.clone();
    let visible = visibility(registry.name(), &call.parts.headers);
    let _permit = LISTS
        .acquire()
        .await
        .expect("invariant: the semaphore is never closed");
    let work = move || {
        let listing = registry.catalog(&wanted, visible.as_ref())?;
        let content = json!({ "repositories": listing.names }).to_string();
        Ok((listing, content))
    };
    let (listing, content) = blocking(work).await?;
    let link = link("/v2/_catalog", &page, &listing);
    Ok(reply::json(StatusCode::OK, link, content))
}
