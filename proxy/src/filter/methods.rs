//! Which methods a site passes on.
//!
//! Services take it for granted that they are asked with the methods of the web. `TRACE` makes one send
//! back what it was sent, credentials included; what has another name may be read as `GET` by one that
//! asks no further, and past rules that speak of methods. So these are for sites that ask for them. The
//! answer is 405 and not 501, also for a method that nobody has heard of: it says with `Allow` what
//! would be let through here, and a client need not know what this edge happens to know.

use http::Method;
use http::request::Parts;
use oci::Route;

use super::Refused;
use crate::respond::{METHODS, Rejection};

/// What a site lets through beyond [`METHODS`].
pub(crate) type Allowed = [Method];

/// Refuses a method that neither every site lets through nor this one; `registry` says whether its
/// API is behind it.
pub(crate) fn check(parts: &Parts, registry: bool, allowed: &Allowed) -> Result<(), Refused> {
    if is_common(&parts.method) || allowed.contains(&parts.method) {
        return Ok(());
    }
    let route = registry.then(|| Route::parse(parts.uri.path()).ok());
    let mut allow = route
        .flatten()
        .map_or(METHODS, |route| route.methods())
        .to_owned();
    for method in allowed {
        allow.push_str(", ");
        allow.push_str(method.as_str());
    }
    Err(Rejection::MethodNotAllowed { allow }.because("allow_methods"))
}

/// Returns whether every site lets a method through.
pub(crate) fn is_common(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(method: &str, path: &str, registry: bool, allowed: &Allowed) -> Option<String> {
        let request = http::Request::builder().method(method).uri(path);
        let parts = request.body(()).unwrap().into_parts().0;
        let refused = check(&parts, registry, allowed).err()?;
        assert_eq!(refused.because.as_deref(), Some("allow_methods"));
        match refused.rejection {
            Rejection::MethodNotAllowed { allow } => Some(allow),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_methods_of_the_web_pass_and_others_where_they_are_allowed() {
        for method in METHODS.split(", ") {
            assert_eq!(refusal(method, "/", false, &[]), None, "{method}");
        }
        for method in ["TRACE", "TRACK", "PROPFIND", "get", "CONNECT", "PRI"] {
            let allow = refusal(method, "/", false, &[]);
            assert_eq!(allow.as_deref(), Some(METHODS), "{method}");
        }
        let allowed: [Method; 2] = ["PROPFIND", "MKCOL"].map(|name| name.parse().unwrap());
        assert_eq!(refusal("MKCOL", "/", false, &allowed), None);
        assert_eq!(
            refusal("TRACE", "/v2/", false, &allowed),
            Some(format!("{METHODS}, PROPFIND, MKCOL"))
        );
    }

    #[test]
    fn a_registrys_endpoint_says_which_methods_it_has() {
        for (path, allow) in [
            ("/v2/", "GET, HEAD"),
            ("/v2/a/tags/list", "GET, HEAD"),
            ("/v2/a/manifests/v1", "GET, HEAD, PUT, DELETE"),
            ("/v2/a/blobs/uploads/", "POST"),
            ("/v2/a/nothing", METHODS),
            ("/", METHODS),
        ] {
            let said = refusal("TRACE", path, true, &[]);
            assert_eq!(said.as_deref(), Some(allow), "{path}");
        }
    }
}
