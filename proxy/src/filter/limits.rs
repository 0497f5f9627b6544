//! How large a request's head may be.

use http::request::Parts;

use crate::config::Limits;
use crate::respond::Rejection;

/// Refuses heads that no honest client sends.
pub(crate) fn check(parts: &Parts, limits: &Limits) -> Result<(), Rejection> {
    let uri = parts
        .uri
        .path_and_query()
        .map_or(0, |path| path.as_str().len());
    if uri > limits.max_uri_size {
        return Err(Rejection::UriTooLong);
    }
    let size: usize = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if parts.headers.len() > limits.max_headers || size > limits.max_header_size {
        return Err(Rejection::HeadersTooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_and_large_or_many_headers_are_refused() {
        let limits = Limits {
            max_uri_size: 10,
            max_header_size: 20,
            max_headers: 2,
            ..Limits::default()
        };
        for (path, headers, expected) in [
            ("/123456789", &[("a", "b")][..], None),
            ("/1234567890", &[], Some(Rejection::UriTooLong)),
            ("/?34567890", &[], None),
            ("/?345678901", &[], Some(Rejection::UriTooLong)),
            (
                "/",
                &[("a", "12345678901234567890")],
                Some(Rejection::HeadersTooLarge),
            ),
            (
                "/",
                &[("a", "1"), ("a", "2"), ("a", "3")],
                Some(Rejection::HeadersTooLarge),
            ),
        ] {
            let mut request = http::Request::builder().uri(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let parts = request.body(()).unwrap().into_parts().0;
            assert_eq!(check(&parts, &limits).err(), expected, "{path}");
        }
    }
}
