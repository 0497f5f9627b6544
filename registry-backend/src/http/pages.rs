//! The parameters and the `Link` of lists in pages (spec, "Listing Tags").

use http::{HeaderName, header};
use oci::Query;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::Error;
use crate::registry::Page;

/// What stands for itself in a query (RFC 3986, section 2.3) is left as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Reads which page is asked for; `size_default` is its size where the client does not say.
pub(super) fn page(query: &Query<'_>, size_default: Option<usize>) -> Result<Page, Error> {
    let size_max = match query.first("n") {
        Some(n) => Some(n.parse().map_err(|_no_number| Error::PageSize)?),
        None => size_default,
    };
    Ok(Page {
        size_max,
        last: query.first("last").map(str::to_owned),
        ..Page::default()
    })
}

/// Encodes a value for a query.
pub(super) fn encoded(value: &str) -> impl std::fmt::Display {
    utf8_percent_encode(value, RESERVED)
}

/// Returns the header that leads to the next page of as many, which begins after `end`.
pub(super) fn link(
    path: &str,
    size_max: Option<usize>,
    end: Option<&str>,
) -> Option<(HeaderName, String)> {
    let link = format!(
        "<{path}?n={}&last={}>; rel=\"next\"",
        size_max?,
        encoded(end?)
    );
    Some((header::LINK, link))
}
