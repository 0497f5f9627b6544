//! What two programs could read in two ways, though Pingora takes it.

use http::Version;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::request::Parts;

use crate::respond::Rejection;

/// Refuses a length that is said twice, or as a list, and values that change on their way from
/// HTTP/2 to HTTP/1.1.
///
/// Lengths may all agree; but what reads only the first, or only the last, behind this edge would see
/// another request than was let through. Chunks beside a length, and codings other than chunks, never
/// get here: Pingora drops the one and refuses the other.
pub(crate) fn check(parts: &Parts) -> Result<(), Rejection> {
    let is_space = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
    let changes = |value: &HeaderValue| {
        // Whoever reads HTTP/1.1 takes it off (RFC 9113, section 8.2.1).
        is_space(value.as_bytes().first()) || is_space(value.as_bytes().last())
    };
    if parts.version == Version::HTTP_2
        && let Some((name, _)) = parts.headers.iter().find(|(_, value)| changes(value))
    {
        return Err(Rejection::PaddedHeader(name.clone()));
    }
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |length: &HeaderValue| {
        let digits = length.as_bytes();
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    };
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None) if is_number(length) => Ok(()),
        (Some(_), _) => Err(Rejection::BadRequest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_one_number() {
        for (lengths, holds) in [
            (&[][..], true),
            (&["0"], true),
            (&["512"], true),
            (&["5", "5"], false),
            (&["5", "6"], false),
            (&["5,5"], false),
            (&["5, 5"], false),
            (&["+5"], false),
            (&["-5"], false),
            (&["0x5"], false),
            (&[""], false),
        ] {
            let mut request = http::Request::builder();
            for length in lengths {
                request = request.header(CONTENT_LENGTH, *length);
            }
            let parts = request.body(()).unwrap().into_parts().0;
            assert_eq!(check(&parts).is_ok(), holds, "{lengths:?}");
        }
    }

    #[test]
    fn a_value_is_the_same_in_both_versions() {
        for (version, value, holds) in [
            (Version::HTTP_2, "a b", true),
            (Version::HTTP_2, "", true),
            (Version::HTTP_2, " a", false),
            (Version::HTTP_2, "a\t", false),
            (Version::HTTP_2, " ", false),
            (Version::HTTP_11, " a", true),
        ] {
            let request = http::Request::builder().version(version).header("x", value);
            let parts = request.body(()).unwrap().into_parts().0;
            let expected = match holds {
                true => Ok(()),
                false => Err(Rejection::PaddedHeader("x".parse().unwrap())),
            };
            assert_eq!(check(&parts), expected, "{version:?} {value:?}");
        }
    }
}
