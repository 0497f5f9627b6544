//! The table of contents: every endpoint of the registry.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use oci::{Query, Route};

use super::body::Body;
use super::bounds::Bounds;
use super::client::Client;
use super::error::Error;
use super::payload::Payload;
use super::permits::Permits;
use super::{blobs, catalog, health, manifests, referrers, reply, tags, uploads};
use crate::app::{App, Settings};
use crate::registry::Registry;

/// What an endpoint gets of a request, besides its body.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// Who does the work.
    pub(super) registry: &'a Arc<Registry>,
    /// How much may be under way at once.
    pub(super) permits: &'a Permits,
    /// How much of what the replies to all requests take.
    pub(super) bounds: &'a Arc<Bounds>,
    /// Who waits for the answer.
    pub(super) client: &'a Client,
    /// The settings as they were when the request came.
    pub(super) settings: Arc<Settings>,
    /// The head of the request.
    pub(super) parts: &'a Parts,
    /// Its query string.
    pub(super) query: Query<'a>,
}

impl<'a> Call<'a> {
    fn new(app: &'a App, rights: Rights<'a>, client: &'a Client, parts: &'a Parts) -> Self {
        Self {
            registry: &app.registry,
            permits: rights.permits,
            bounds: rights.bounds,
            client,
            settings: app.settings(),
            parts,
            query: Query::parse(parts.uri.query()),
        }
    }
}

/// What requests share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights<'a> {
    pub(super) permits: &'a Permits,
    pub(super) bounds: &'a Arc<Bounds>,
}

/// Leads a request to its endpoint.
pub(super) async fn route(
    app: &App,
    rights: Rights<'_>,
    client: &Client,
    parts: &Parts,
    payload: &mut Payload,
) -> Result<Response<Body>, Error> {
    let call = Call::new(app, rights, client, parts);
    if parts.uri.path() == health::PATH {
        return Ok(health::get());
    }
    let route = Route::parse(parts.uri.path())?;
    match (&route, &parts.method) {
        (Route::Base, &Method::GET | &Method::HEAD) => Ok(base()),

        (Route::Catalog, &Method::GET | &Method::HEAD) => catalog::list(&call).await,

        (Route::Blob { repository, digest }, &Method::GET) => {
            blobs::get(&call, repository, digest).await
        }
        (Route::Blob { repository, digest }, &Method::HEAD) => {
            blobs::head(&call, repository, digest).await
        }
        (Route::Blob { repository, digest }, &Method::DELETE) => {
            blobs::delete(&call, repository, digest).await
        }

        (Route::Uploads { repository }, &Method::POST) => {
            uploads::begin(&call, repository, payload).await
        }
        (Route::Upload { repository, id }, &Method::GET | &Method::HEAD) => {
            uploads::status(&call, repository, id).await
        }
        (Route::Upload { repository, id }, &Method::PATCH) => {
            uploads::append(&call, repository, id, payload).await
        }
        (Route::Upload { repository, id }, &Method::PUT) => {
            uploads::finish(&call, repository, id, payload).await
        }
        (Route::Upload { repository, id }, &Method::DELETE) => {
            uploads::cancel(&call, repository, id).await
        }

        (
            Route::Manifest {
                repository,
                reference,
            },
            &Method::GET | &Method::HEAD,
        ) => manifests::get(&call, repository, reference).await,
        (
            Route::Manifest {
                repository,
                reference,
            },
            &Method::PUT,
        ) => manifests::put(&call, repository, reference, payload).await,
        (
            Route::Manifest {
                repository,
                reference,
            },
            &Method::DELETE,
        ) => manifests::delete(&call, repository, reference).await,

        (Route::Tags { repository }, &Method::GET | &Method::HEAD) => {
            tags::list(&call, repository).await
        }

        (Route::Referrers { repository, digest }, &Method::GET | &Method::HEAD) => {
            referrers::list(&call, repository, digest).await
        }

        _ => Err(Error::MethodNotAllowed {
            allow: route.methods(),
        }),
    }
}

/// Returns how many bytes the request says its body has.
pub(super) fn content_length(call: &Call<'_>) -> Option<u64> {
    let length = call.parts.headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Says that the API is spoken here.
fn base() -> Response<Body> {
    reply::json(StatusCode::OK, [], "{}")
}
