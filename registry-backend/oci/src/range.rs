//! `Range` of downloads (RFC 9110, section 14) and `Content-Range` of uploads (the spec's own form).

use std::str::FromStr;

/// More ranges than a client can mean; podman's partial pulls ask for some hundreds at once.
const RANGES_MAX: usize = 1024;

/// The ranges of one `Range: bytes=…` header, in the order asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ByteRanges(Vec<Spec>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Spec {
    From { first: u64, last: u64 },
    Suffix { len: u64 },
}

/// The part of a blob that is asked for: never empty, never past its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ByteRange {
    /// The first byte.
    pub first: u64,
    /// The last byte, included.
    pub last: u64,
}

impl ByteRange {
    /// Returns the number of bytes.
    pub fn size_bytes(self) -> u64 {
        self.last - self.first + 1
    }
}

/// Says that no range of a request lies within the blob.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no requested range lies within the content")]
pub struct Unsatisfiable;

impl ByteRanges {
    /// Reads the header; `None` means that it is to be ignored (RFC 9110, section 14.2): another
    /// unit, a broken form, or more ranges than anyone means.
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, list) = header.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let mut specs = Vec::new();
        for text in list
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            if specs.len() == RANGES_MAX {
                return None;
            }
            let (first, last) = text.split_once('-')?;
            specs.push(match (number(first), number(last)) {
                (Some(first), Some(last)) => Spec::From { first, last },
                (Some(first), None) if last.is_empty() => Spec::From {
                    first,
                    last: u64::MAX,
                },
                (None, Some(len)) if first.is_empty() => Spec::Suffix { len },
                _ => return None,
            });
        }
        (!specs.is_empty()).then_some(Self(specs))
    }

    /// Returns the ranges that content of `size_bytes` can satisfy, in the order asked.
    ///
    /// A range that ends before it starts is taken as one that cannot be satisfied: the spec's
    /// conformance suite asks for 416 where RFC 9110 would ignore the header.
    ///
    /// # Errors
    /// [`Unsatisfiable`] when none is left.
    pub fn resolve(&self, size_bytes: u64) -> Result<Vec<ByteRange>, Unsatisfiable> {
        let end = size_bytes.checked_sub(1).ok_or(Unsatisfiable)?;
        let ranges: Vec<ByteRange> = self
            .0
            .iter()
            .filter_map(|spec| match *spec {
                Spec::From { first, last } if first <= end && first <= last => Some(ByteRange {
                    first,
                    last: last.min(end),
                }),
                Spec::Suffix { len } if len > 0 => Some(ByteRange {
                    first: size_bytes.saturating_sub(len),
                    last: end,
                }),
                Spec::From { .. } | Spec::Suffix { .. } => None,
            })
            .collect();
        if ranges.is_empty() {
            Err(Unsatisfiable)
        } else {
            Ok(ranges)
        }
    }
}

/// The `Content-Range` of a chunk: `first-last`, without a unit (spec, "Pushing a blob in chunks").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UploadRange {
    /// The offset of the chunk's first byte.
    pub first: u64,
    /// The offset of the chunk's last byte.
    pub last: u64,
}

impl UploadRange {
    /// Returns the number of bytes of the chunk.
    pub fn size_bytes(self) -> u64 {
        self.last - self.first + 1
    }
}

impl FromStr for UploadRange {
    type Err = UploadRangeError;

    /// Also reads HTTP's own form, `bytes first-last/total`, which some clients send.
    fn from_str(text: &str) -> Result<Self, UploadRangeError> {
        let text = text.trim();
        let text = text.strip_prefix("bytes").map_or(text, str::trim_start);
        let range = text.split_once('/').map_or(text, |(range, _total)| range);
        let (first, last) = bounds(range).ok_or(UploadRangeError)?;
        Ok(Self { first, last })
    }
}

/// Says that a `Content-Range` is not of the spec's form.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("Content-Range is not of the form first-last")]
pub struct UploadRangeError;

/// Reads `first-last`, of which there is one byte at least.
pub(crate) fn bounds(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last < u64::MAX).then_some((first, last))
}

/// Reads digits alone: `u64::from_str` would take a sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(header: &str, size_bytes: u64) -> Option<Result<Vec<(u64, u64)>, Unsatisfiable>> {
        let ranges = ByteRanges::parse(header)?;
        Some(ranges.resolve(size_bytes).map(|ranges| {
            ranges
                .iter()
                .map(|range| (range.first, range.last))
                .collect()
        }))
    }

    #[test]
    fn ranges_are_cut_to_the_content_and_kept_in_order() {
        assert_eq!(resolve("bytes=500-1499", 3000), Some(Ok(vec![(500, 1499)])));
        assert_eq!(resolve("bytes=500-", 3000), Some(Ok(vec![(500, 2999)])));
        assert_eq!(resolve("bytes=-500", 3000), Some(Ok(vec![(2500, 2999)])));
        assert_eq!(resolve("bytes=-9000", 3000), Some(Ok(vec![(0, 2999)])));
        assert_eq!(
            resolve("bytes=2000-5000", 3000),
            Some(Ok(vec![(2000, 2999)]))
        );
        assert_eq!(
            resolve("bytes=9-9, 0-1,5000-6000,-1", 10),
            Some(Ok(vec![(9, 9), (0, 1), (9, 9)]))
        );
    }

    #[test]
    fn ranges_outside_the_content_cannot_be_satisfied() {
        for header in ["bytes=500-0", "bytes=5000-10000", "bytes=-0", "bytes=3000-"] {
            assert_eq!(resolve(header, 3000), Some(Err(Unsatisfiable)), "{header}");
        }
        assert_eq!(resolve("bytes=0-0", 0), Some(Err(Unsatisfiable)));
    }

    #[test]
    fn a_header_that_means_nothing_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=a-b",
            "items=0-1",
            "bytes=+1-2",
            "bytes=1",
            "bytes=--1",
        ] {
            assert_eq!(resolve(header, 10), None, "{header}");
        }
        let many = format!("bytes={}", "0-0,".repeat(RANGES_MAX + 1));
        assert_eq!(ByteRanges::parse(&many), None);
    }

    #[test]
    fn chunks_name_their_place_in_both_forms() {
        let range = Ok(UploadRange {
            first: 10,
            last: 19,
        });
        assert_eq!("10-19".parse(), range);
        assert_eq!("bytes 10-19/*".parse(), range);
        assert_eq!("bytes 10-19/200".parse(), range);
        for text in [
            "",
            "10",
            "19-10",
            "-10",
            "10-",
            "a-b",
            "0-18446744073709551615",
        ] {
            assert_eq!(text.parse::<UploadRange>(), Err(UploadRangeError), "{text}");
        }
    }
}
