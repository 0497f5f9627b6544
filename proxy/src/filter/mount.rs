//! A push that wants a blob of another repository without sending it (spec, "Mounting a blob").
//!
//! Whoever may not pull there is not refused: the spec's answer to a mount that cannot be is an
//! ordinary upload, so the request goes on as one that never asked.

use http::request::Parts;
use http::uri::PathAndQuery;
use oci::Query;

/// Returns the request's target without its wish to mount.
pub(crate) fn without(parts: &Parts) -> Option<PathAndQuery> {
    let kept = parts.uri.query().unwrap_or_default().split('&');
    let kept = kept.filter(|pair| {
        let pair = Query::parse(Some(pair));
        pair.first("mount").is_none() && pair.first("from").is_none()
    });
    let kept: Vec<&str> = kept.collect();
    let path = parts.uri.path();
    let target = if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", kept.join("&"))
    };
    target.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, target: &str) -> Parts {
        let request = http::Request::builder().method(method).uri(target);
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_wish_is_taken_out_and_the_rest_stays_as_it_was() {
        for (target, expected) in [
            ("/u/?mount=x&from=b", "/u/"),
            (
                "/u/?mount=x&digest-algorithm=sha512&from=b",
                "/u/?digest-algorithm=sha512",
            ),
            ("/u/?m%6funt=x&a=%20&fro%6d=b&mount=y", "/u/?a=%20"),
            ("/u/?", "/u/?"),
        ] {
            let left = without(&parts("POST", target)).unwrap();
            assert_eq!(left.as_str(), expected, "{target}");
            assert_eq!(Query::parse(left.query()).first("mount"), None);
        }
    }
}
