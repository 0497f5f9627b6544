//! What a plain listener has to say: come back over TLS.

use http::HeaderValue;
use http::request::Parts;

use super::Decision;
use super::host::Host;
use crate::respond::{Rejection, Reply};

/// The port that `https:` means when it names none.
const HTTPS: u16 = 443;

/// Returns the redirect to the same host, path and query over TLS at `port`.
pub(crate) fn redirect(parts: &Parts, host: &Host, port: u16) -> Decision {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // `OPTIONS *` is a question to the server and names no page.
    let path = if path.starts_with('/') { path } else { "/" };
    let location = if port == HTTPS {
        format!("https://{}{path}", host.name())
    } else {
        format!("https://{}:{port}{path}", host.name())
    };
    match HeaderValue::try_from(location) {
        Ok(location) => Decision::Answer(Reply::redirect(location)),
        Err(_) => Rejection::BadRequest.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_location_keeps_path_and_query_and_changes_the_port() {
        for (host, path, port, expected) in [
            ("a.test", "/v2/?x=1&y", 443, "https://a.test/v2/?x=1&y"),
            ("A.test:80", "/", 8443, "https://a.test:8443/"),
            (
                "[::1]:8080",
                "/a%2Fb//c",
                8443,
                "https://[::1]:8443/a%2Fb//c",
            ),
            ("a.test", "*", 443, "https://a.test/"),
        ] {
            let request = http::Request::builder().uri(path).header("host", host);
            let parts = request.body(()).unwrap().into_parts().0;
            let host = Host::of(&parts).unwrap();
            let Decision::Answer(reply) = redirect(&parts, &host, port) else {
                panic!("{path}: no answer");
            };
            assert_eq!(reply.status, 308);
            assert_eq!(reply.headers[0].1, expected);
        }
    }
}
