//! `/v2/_catalog`

use http::Response;

use super::body::Body;
use super::error::Error;
use super::lists::{self, Names};
use super::pages::page;
use super::principal::visibility;
use super::router::Call;

/// How many repositories a page has where the client does not say; each costs a look at the disk.
const PAGE_SIZE: usize = 1000;

/// Lists the repositories that the one who asks may see.
pub(super) async fn list(call: &Call<'_>) -> Result<Response<Body>, Error> {
    let page = page(&call.query, Some(PAGE_SIZE))?;
    let names = Names::Repositories {
        visible: visibility(call.registry.name(), &call.parts.headers),
    };
    let opening = "{\"repositories\":[".to_owned();
    lists::list(call, names, page, opening, "/v2/_catalog").await
}
