//! What a request that came over HTTP/2 needs before it goes on over HTTP/1.1.

use http::Version;
use http::header::{COOKIE, EXPECT, HeaderValue};
use http::request::Parts;

use super::Edits;

/// Adds what changes with the version.
pub(crate) fn translate(parts: &Parts, edits: &mut Edits) {
    if parts.version != Version::HTTP_2 {
        return;
    }
    // There is no way to pass a `100 Continue` on, so nobody shall wait for one.
    edits.remove(EXPECT);
    // Cookies may come one by one and must go as one (RFC 9113, section 8.2.3).
    let cookies: Vec<&[u8]> = parts
        .headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        edits.set(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(version: Version) -> Vec<String> {
        let request = http::Request::builder()
            .version(version)
            .header(COOKIE, "a=1")
            .header(COOKIE, "b=2; c=3")
            .header(EXPECT, "100-continue");
        let mut parts = request.body(()).unwrap().into_parts().0;
        let mut edits = Edits::default();
        translate(&parts, &mut edits);
        edits.apply(&mut parts.headers);
        let lines = parts.headers.iter();
        lines
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn cookies_become_one_and_nobody_waits_for_a_continue() {
        assert_eq!(translated(Version::HTTP_2), ["cookie: a=1; b=2; c=3"]);
    }

    #[test]
    fn what_came_over_http_1_stays_as_it_is() {
        assert_eq!(
            translated(Version::HTTP_11),
            ["cookie: a=1", "cookie: b=2; c=3", "expect: 100-continue"]
        );
    }
}
