//! `If-None-Match` and `If-Range` (RFC 9110, section 13): content that a client has already.

use http::{HeaderMap, header};
use oci::Digest;

/// Returns the entity tag of content: its digest.
pub(super) fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Returns whether the client has the content named `entity_tag`, and wants it only otherwise.
pub(super) fn none_match_fails(headers: &HeaderMap, entity_tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == entity_tag)
}

/// Returns whether `Range` is to be heeded: not where `If-Range` names other content.
pub(super) fn range_applies(headers: &HeaderMap, entity_tag: &str) -> bool {
    headers
        .get(header::IF_RANGE)
        .is_none_or(|tag| tag.as_bytes() == entity_tag.as_bytes())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_tag_matches_weakly_in_lists_and_by_a_star() {
        for (value, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", W/\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(value));
            assert_eq!(none_match_fails(&headers, "\"a\""), expected, "{value}");
        }
        assert!(!none_match_fails(&HeaderMap::new(), "\"a\""));
    }

    #[test]
    fn a_range_applies_only_to_the_same_content() {
        let mut headers = HeaderMap::new();
        assert!(range_applies(&headers, "\"a\""));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"a\""));
        assert!(range_applies(&headers, "\"a\""));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("W/\"a\""));
        assert!(!range_applies(&headers, "\"a\""));
    }
}
