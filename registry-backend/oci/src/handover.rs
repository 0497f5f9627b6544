//! What edge and registry hand each other beside HTTP.
//!
//! They talk over a Unix socket, which can carry open files, too, so that the bytes of a blob need
//! not cross a second socket. Nobody has to: who does not know these headers, or does not want to,
//! gets and sends ordinary bodies. The edge alone sets them, and removes what a client sends under
//! their names.
//!
//! Neither trusts the other with more than that. A message with more descriptors than were asked for
//! ends the connection, and nothing that comes is closed on a thread for which others wait (the crate
//! `slots`, `descriptors`).
//!
//! **A part of an open file in the place of a reply's body.** Who can take one says so in its
//! request; the reply then has no body but says which part of the file it is, and the file, a plain
//! one that holds all of the part, comes with the first bytes of the reply.
//!
//! ```text
//! X-Tidegate-File: accept/2               in a request
//! X-Tidegate-File: 0-1048575              in a reply
//! ```
//!
//! The file may be open for direct I/O (`O_DIRECT`); whoever reads it can end that, for nobody else uses
//! the same open file description. (In the first version, whose word was `accept`, it never was.)
//!
//! **A request's body in memory that both share.** Who would use it offers it, for all later requests on
//! the same connection, in a request without a body, with whose first bytes come two descriptors: the
//! memory, which the registry can only read, and a Unix socket on which the registry tells of slots of
//! it that may be filled again, a byte for each. The reply of a registry that takes it brings one: a
//! Unix socket that takes notes of slots that were filled, of four bytes (the crate `slots`). Whoever
//! reads from a socket has made it, and keeps the end it reads from to itself. A request whose bytes come
//! in such slots has an empty body, in chunks, which ends when all were told of, and the header says how
//! long the client's body is, where that is known. A reply that does not close the connection says that
//! all of them were taken.
//!
//! ```text
//! X-Tidegate-Slots: offered/2             in a request
//! X-Tidegate-Slots: taken/2               in a reply
//! X-Tidegate-Slots: 1073741824            in a request whose body is there
//! X-Tidegate-Slots: unknown               likewise, of a body that ends when it ends
//! ```
//!
//! The number is that of this agreement, memory and messages included, and changes with it: during an
//! upgrade an edge meets a registry of another version, and who does not know what is offered does not
//! take it. The descriptors are closed, and bodies go over the socket. (In the first version, whose words
//! were `wanted` and `offered`, the registry made everything.)

use std::fmt;

use crate::range::{ByteRange, bounds};

/// The header about open files.
pub const FILE: &str = "x-tidegate-file";

/// What it says in a request.
pub const ACCEPT: &str = "accept/2";

/// The header about slots.
pub const SLOTS: &str = "x-tidegate-slots";

/// What it says in a reply.
pub const TAKEN: &str = "taken/2";

const OFFERED: &str = "offered/2";
const UNKNOWN: &str = "unknown";

/// Writes which part of the file a body is.
pub fn write(part: ByteRange) -> String {
    format!("{}-{}", part.first, part.last)
}

/// Reads which part of the file a body is.
pub fn read(text: &str) -> Option<ByteRange> {
    let (first, last) = bounds(text)?;
    Some(ByteRange { first, last })
}

/// What a request says about slots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slots {
    /// There are some for later bodies.
    Offered,
    /// The body is in some, all of it so many bytes, where that is known.
    Body(Option<u64>),
}

impl Slots {
    /// Reads what a request says.
    pub fn read(text: &str) -> Option<Self> {
        match text {
            OFFERED => Some(Self::Offered),
            UNKNOWN => Some(Self::Body(None)),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(Self::Body(Some(digits.parse().ok()?)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered => f.write_str(OFFERED),
            Self::Body(None) => f.write_str(UNKNOWN),
            Self::Body(Some(length)) => write!(f, "{length}"),
        }
    }
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

    #[test]
    fn what_is_said_about_slots_is_read_and_nothing_else() {
        for slots in [
            Slots::Offered,
            Slots::Body(None),
            Slots::Body(Some(0)),
            Slots::Body(Some(u64::MAX)),
        ] {
            assert_eq!(Slots::read(&slots.to_string()), Some(slots));
        }
        for text in [
            "",
            "-1",
            "+1",
            "1 ",
            "wanted",
            "offered",
            "offered/1",
            "offered/20",
            "taken/2",
            "18446744073709551616",
        ] {
            assert_eq!(Slots::read(text), None, "{text:?}");
        }
    }
}
