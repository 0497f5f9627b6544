//! A part of an open file in the place of a reply's body.
//!
//! Registry and edge talk over a Unix socket, which can carry open files, too. Who can take one says
//! so with the header [`HEADER`] in its request; the reply then has no body but the same header with
//! the part of the file that the body is, and the file comes with the first bytes of the reply. So
//! the bytes of a blob cross no second socket. Nobody has to: a reply without the header is an
//! ordinary one.
//!
//! ```text
//! X-Tidegate-File: accept                 in a request
//! X-Tidegate-File: 0-1048575              in a reply
//! ```

use crate::range::{ByteRange, bounds};

/// The header of both. The edge alone sets it, and removes what a client sends under this name.
pub const HEADER: &str = "x-tidegate-file";

/// What it says in a request.
pub const ACCEPT: &str = "accept";

/// Writes which part of the file a body is.
pub fn write(part: ByteRange) -> String {
    format!("{}-{}", part.first, part.last)
}

/// Reads which part of the file a body is.
pub fn read(text: &str) -> Option<ByteRange> {
    let (first, last) = bounds(text)?;
    Some(ByteRange { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for (first, last) in [(0, 0), (0, 7), (5, 1 << 40), (7, u64::MAX - 1)] {
            let part = ByteRange { first, last };
            assert_eq!(read(&write(part)), Some(part));
        }
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "2-1",
            "+1-2",
            "1-2-3",
            " 1-2",
            "1-2 ",
            "accept",
            "0-18446744073709551615",
            "0-18446744073709551616",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
