//! The hops that earlier proxies wrote down, in `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! Both are read from the right, where the last proxy wrote: whatever a client has put in front, an
//! unfinished quoted string for one, is no part of what a proxy appended to it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

pub(super) const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Returns the hops, the last one first; `None` is one that cannot be read.
pub(super) fn backwards(headers: &HeaderMap) -> Box<dyn Iterator<Item = Option<IpAddr>> + '_> {
    let values = |name| {
        let values = headers.get_all(name).iter();
        values.rev().map(HeaderValue::as_bytes)
    };
    // Whichever is there counts, readable or not: a proxy that keeps the one lets its client write
    // whatever it likes into the other.
    if headers.contains_key(FOR) {
        let hops = values(FOR).flat_map(|value| value.split(|byte| *byte == b',').rev());
        Box::new(hops.map(node))
    } else {
        let elements = values(FORWARDED).flat_map(Elements::of);
        Box::new(elements.map(|element| node(&pairs(element)??)))
    }
}

/// Returns whether a value of `Forwarded` can be continued by another element: where a quoted string
/// does not end, who reads from the left would take that for a part of it.
pub(super) fn is_forwarded(value: &[u8]) -> bool {
    Elements::of(value).all(|element| pairs(element).is_some())
}

/// The elements of `Forwarded`, from the right: parted by commas that are in no quoted string.
struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Elements<'a> {
    fn of(value: &'a [u8]) -> Self {
        Self { rest: Some(value) }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut quoted = false;
        for (at, byte) in rest.iter().enumerate().rev() {
            let before = rest.get(..at).unwrap_or_default();
            match byte {
                b'"' if !ends_in_escape(before) => quoted = !quoted,
                b',' if !quoted => {
                    self.rest = Some(before);
                    return rest.get(at + 1..);
                }
                _ => {}
            }
        }
        Some(rest)
    }
}

/// Returns whether what follows is escaped: behind an odd number of backslashes.
fn ends_in_escape(before: &[u8]) -> bool {
    let slashes = before.iter().rev().take_while(|byte| **byte == b'\\');
    slashes.count() % 2 == 1
}

/// Reads an element of `Forwarded`; returns for whom it speaks, if it says so, and nothing where it
/// cannot be read, or says so twice.
fn pairs(element: &[u8]) -> Option<Option<Cow<'_, [u8]>>> {
    let mut speaks_for = None;
    let mut rest = element.trim_ascii();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(b";") {
            rest = after.trim_ascii_start();
            continue;
        }
        let at = rest.iter().position(|byte| *byte == b'=')?;
        let (name, value) = rest.split_at_checked(at)?;
        let name = name.trim_ascii();
        if name.is_empty() || !name.iter().all(|byte| is_plain(*byte)) {
            return None;
        }
        let (value, after) = value_of(value.get(1..)?.trim_ascii_start())?;
        rest = after.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b";") {
            return None;
        }
        if name.eq_ignore_ascii_case(b"for") && speaks_for.replace(value).is_some() {
            return None;
        }
    }
    Some(speaks_for)
}

/// Splits off the value at the beginning: a quoted string without its quotes and escapes, or all up to
/// the next semicolon. Addresses are seen without their quotes, too, so more than tokens is taken.
fn value_of(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';');
        let (value, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
        let value = value.trim_ascii_end();
        let holds = value.iter().all(|byte| is_plain(*byte));
        return holds.then_some((value.into(), rest));
    };
    let mut end = 0;
    loop {
        match quoted.get(end)? {
            b'"' => break,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    let (value, rest) = quoted.split_at_checked(end)?;
    let rest = rest.get(1..)?;
    if !value.contains(&b'\\') {
        return Some((value.into(), rest));
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => *bytes.next()?,
            other => *other,
        });
    }
    Some((plain.into(), rest))
}

fn is_plain(byte: u8) -> bool {
    byte > b' ' && !matches!(byte, b'"' | b'\\' | b',' | b';' | 0x7f)
}

/// Reads an address as proxies write it: alone, or with a port.
fn node(text: impl AsRef<[u8]>) -> Option<IpAddr> {
    let text = str::from_utf8(text.as_ref()).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse().ok();
    address
        .or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hops of one value of `Forwarded`, from the right.
    fn hops(value: &[u8]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, HeaderValue::from_bytes(value).unwrap());
        let hops = backwards(&headers);
        hops.map(|hop| hop.map_or_else(|| "?".to_owned(), |hop| hop.to_string()))
            .collect()
    }

    #[test]
    fn a_comma_or_a_semicolon_within_quotes_parts_nothing() {
        for (value, expected) in [
            (
                &br#"for=1.1.1.1;host="a,for=6.6.6.6""#[..],
                &["1.1.1.1"][..],
            ),
            (br#"host="a;for=6.6.6.6";for=1.1.1.1"#, &["1.1.1.1"]),
            (
                br#"for="[2001:db8::7]:99";host="x, y", for=10.0.0.9"#,
                &["10.0.0.9", "2001:db8::7"],
            ),
            (br#"for=1.1.1.1;host="a\",for=6.6.6.6""#, &["1.1.1.1"]),
            (
                br#"for=1.1.1.1;host="a\\",for=2.2.2.2"#,
                &["2.2.2.2", "1.1.1.1"],
            ),
            (br#"for="1.1.\1.1""#, &["1.1.1.1"]),
            (br#"FOR = "1.1.1.1" ; proto=https;"#, &["1.1.1.1"]),
            (b"for=1.1.1.1:99", &["1.1.1.1"]),
        ] {
            let text = String::from_utf8_lossy(value);
            assert_eq!(hops(value), expected, "{text}");
            assert!(is_forwarded(value), "{text}");
        }
    }

    #[test]
    fn what_a_client_left_unfinished_does_not_reach_what_a_proxy_appended() {
        for (value, expected) in [
            (&br#"for="6.6.6.6, for=1.1.1.1"#[..], &["1.1.1.1", "?"][..]),
            (br#"for="6.6.6.6, for=1.1.1.1;host="b""#, &["1.1.1.1", "?"]),
            (
                br#"for="6.6.6.6\, for="[2001:db8::7]""#,
                &["2001:db8::7", "?"],
            ),
            (br#"for="\", for=1.1.1.1"#, &["1.1.1.1", "?"]),
            (
                br#"for=6.6.6.6", for=1.1.1.1;host="a,b""#,
                &["1.1.1.1", "?"],
            ),
        ] {
            let text = String::from_utf8_lossy(value);
            assert_eq!(hops(value), expected, "{text}");
            assert!(!is_forwarded(value), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_a_hop_that_cannot() {
        for value in [
            &b"for"[..],
            b"=1.1.1.1",
            b"for=1.1.1.1;for=2.2.2.2",
            b"for=1.1.1.1 proto=https",
            br#"for="1.1.1.1"2"#,
            br#"for="1.1.1.1\"#,
            br#"for=1.1.1"."1"#,
            br#"x"y=z;for=1.1.1.1"#,
        ] {
            assert_eq!(hops(value), ["?"], "{}", String::from_utf8_lossy(value));
            assert!(!is_forwarded(value));
        }
        for value in [
            &b"for=unknown"[..],
            b"for=_hidden",
            b"proto=http",
            b"",
            b"\xff=x",
        ] {
            assert_eq!(hops(value), ["?"], "{}", String::from_utf8_lossy(value));
            assert!(is_forwarded(value));
        }
    }
}
