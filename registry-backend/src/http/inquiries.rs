//! What the edge asks for itself ([`oci::inquiry`]): whether requests can be served, and figures.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use instruments::MEDIA_TYPE;
use oci::inquiry::{EDGE, HEADER, METRICS, READY};
use prometheus_client::registry::Registry as Page;
use tokio::sync::Mutex;

use super::body::Body;
use super::disk::Disk;
use super::metrics::{self, Sources};
use super::reply::reply;
use crate::app::App;

/// Answers what the edge asks.
#[derive(Debug)]
pub(super) struct Inquiries {
    app: Arc<App>,
    disk: Arc<Disk>,
    /// One text is made at a time: it takes a thread that may block.
    page: Mutex<Arc<Page>>,
}

impl Inquiries {
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            app: Arc::clone(&sources.app),
            disk: Arc::clone(&sources.disk),
            page: Mutex::new(Arc::new(metrics::page(sources))),
        }
    }

    /// Answers a request of the edge's own; `None` for those that are a client's.
    pub(super) async fn answer(&self, parts: &Parts) -> Option<Response<Body>> {
        let said = parts.headers.get(HEADER);
        if said.is_none_or(|said| said != EDGE) || parts.method != Method::GET {
            return None;
        }
        match parts.uri.path() {
            READY => Some(self.ready().await),
            METRICS => Some(self.metrics().await),
            _ => None,
        }
    }

    async fn ready(&self) -> Response<Body> {
        let found = self.disk.look().await;
        let mut problems = String::new();
        if self.app.is_draining() {
            problems.push_str("it is stopping\n");
        }
        if !instruments::is_config_in_force() {
            problems.push_str("its last reload was refused\n");
        }
        if let Some(trouble) = found.trouble {
            problems.push_str(&trouble);
            problems.push('\n');
        }
        if problems.is_empty() {
            text(
                StatusCode::OK,
                "text/plain; charset=utf-8",
                "ok\n".to_owned(),
            )
        } else {
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain; charset=utf-8",
                problems,
            )
        }
    }

    async fn metrics(&self) -> Response<Body> {
        self.disk.look().await;
        let page = self.page.lock().await;
        let made = Arc::clone(&page);
        let made = tokio::task::spawn_blocking(move || instruments::text(&made)).await;
        match made {
            Ok(Ok(made)) => text(StatusCode::OK, MEDIA_TYPE, made),
            Ok(Err(_)) | Err(_) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, MEDIA_TYPE, String::new())
            }
        }
    }
}

fn text(status: StatusCode, media_type: &str, content: String) -> Response<Body> {
    reply(
        status,
        [(header::CONTENT_TYPE, media_type.to_owned())],
        content,
    )
}
