//! Whether the registry answers at all: for whoever starts and watches it on the socket itself.

use http::{Response, StatusCode, header};

use super::body::Body;
use super::reply::reply;

/// Where to ask; not under `/v2/`, so the edge does not lead there.
pub(super) const PATH: &str = "/healthz";

/// Says that all is well.
pub(super) fn get() -> Response<Body> {
    let text = "text/plain; charset=utf-8".to_owned();
    reply(StatusCode::OK, [(header::CONTENT_TYPE, text)], "ok\n")
}
