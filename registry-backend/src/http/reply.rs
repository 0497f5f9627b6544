//! The making of replies.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::Body;

/// The digest of what a reply is about.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Returns a reply. The values of its headers are made of checked names and numbers.
pub(super) fn reply(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    for (name, value) in headers {
        let value = HeaderValue::try_from(value)
            .expect("invariant: names and numbers hold nothing that a header cannot");
        response.headers_mut().append(name, value);
    }
    response
}

/// Returns a reply of JSON.
pub(super) fn json(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
    content: impl Into<Body>,
) -> Response<Body> {
    let content_type = (header::CONTENT_TYPE, "application/json".to_owned());
    reply(status, headers.into_iter().chain([content_type]), content)
}
