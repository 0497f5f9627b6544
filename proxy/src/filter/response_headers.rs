//! The edge's marks on every reply, its own and the upstream's. Nothing of the content is changed.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};

use super::Edits;

/// What every reply under `/v2/` says of itself.
const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderValue::from_static("registry/2.0"),
);

/// By which the access log's line of a request is found.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Returns the changes; `api` says whether it is a reply of the registry's API, and `hsts` for how
/// long browsers are to come back with TLS alone (RFC 6797).
pub(crate) fn edits(api: bool, hsts: Option<Duration>, request_id: &HeaderValue) -> Edits {
    let mut edits = Edits::default();
    if api {
        // Set, not added: a registry that sends it too has it once all the same.
        let (name, value) = API_VERSION;
        edits.set(name, value);
    }
    if let Some(time) = hsts
        && let Ok(value) = format!("max-age={}", time.as_secs()).try_into()
    {
        edits.set(STRICT_TRANSPORT_SECURITY, value);
    }
    edits.set(REQUEST_ID, request_id.clone());
    edits
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn the_version_stands_once_whatever_the_upstream_sent() {
        let (name, value) = API_VERSION;
        let mut headers = HeaderMap::new();
        headers.append(&name, value.clone());
        headers.append(&name, HeaderValue::from_static("registry/1.0"));
        edits(
            true,
            Some(Duration::from_secs(60)),
            &HeaderValue::from_static("7"),
        )
        .apply(&mut headers);
        let values: Vec<_> = headers.get_all(&name).iter().collect();
        assert_eq!(values, [&value]);
        assert_eq!(headers["x-request-id"], "7");
        assert_eq!(headers["strict-transport-security"], "max-age=60");
    }
}
