//! What of a registry's site goes to the registry: the API, and nothing else.

use http::request::Parts;
use http::{Method, StatusCode};
use oci::Route;

use super::Decision;
use crate::respond::{Rejection, Reply};

const WELCOME: &str = "This is a container registry. Its API is under /v2/.\n";

/// Answers what needs no name and no upstream.
pub(crate) fn admit(parts: &Parts) -> Result<(), Decision> {
    let path = parts.uri.path();
    if Route::covers(path) {
        // A browser's preflight carries no credentials, so it must not be asked for any.
        return if parts.method == Method::OPTIONS {
            Err(Decision::Answer(Reply::methods()))
        } else {
            Ok(())
        };
    }
    if path == "/" && matches!(parts.method, Method::GET | Method::HEAD) {
        let page = Reply::page(StatusCode::OK, "text/plain; charset=utf-8", WELCOME.into());
        return Err(Decision::Answer(page));
    }
    Err(Rejection::NotFound.into())
}

/// Returns what a path under `/v2/` names; the registry reads it with the same parser.
pub(crate) fn route(parts: &Parts) -> Result<Route, Rejection> {
    Route::parse(parts.uri.path()).map_err(Rejection::Route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_api_goes_upstream() {
        for (method, path, expected) in [
            ("GET", "/v2", "continue"),
            ("GET", "/v2/", "continue"),
            ("PUT", "/v2/a/manifests/x", "continue"),
            ("OPTIONS", "/v2/a/manifests/x", "answer 204 No Content"),
            ("GET", "/", "answer 200 OK"),
            ("POST", "/", "refuse NotFound"),
            ("GET", "/metrics", "refuse NotFound"),
            ("GET", "/v2x", "refuse NotFound"),
            ("GET", "/V2/", "refuse NotFound"),
            ("GET", "//v2/", "refuse NotFound"),
            ("GET", "/debug/../v2/", "refuse NotFound"),
        ] {
            let request = http::Request::builder().method(method).uri(path);
            let parts = request.body(()).unwrap().into_parts().0;
            let said = match admit(&parts) {
                Ok(()) => "continue".to_owned(),
                Err(Decision::Answer(reply)) => format!("answer {}", reply.status),
                Err(Decision::Refuse(refused)) => format!("refuse {:?}", refused.rejection),
            };
            assert_eq!(said, expected, "{method} {path}");
        }
    }
}
