//! A request's body on its way to the registry.
//!
//! TLS hands over 16 KiB at a time. Sending each alone would cost the registry a read of its own, so
//! they are gathered, without being copied, and sent with one system call.

use std::fmt::Display;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::wire::Wire;
use crate::context::Context;
use crate::edge::body;

/// How much is gathered.
const GATHERED_BYTES: usize = 256 << 10;

/// How long the registry may see nothing for the sake of gathering: from a slow client it gets
/// smaller pieces instead, and never takes a body that moves for one that has stopped.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// How a body's end is told (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// By the length in the head.
    Length,
    /// By an empty chunk.
    Chunked,
}

/// How much of a body was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sent {
    All,
    /// The registry answered before it had everything.
    Part,
}

/// Sends the body of the client's request over `wire`.
pub(super) async fn pump(
    session: &mut Session,
    ctx: &mut Context,
    wire: &Wire,
    framing: Framing,
    patience: Duration,
) -> Result<Sent> {
    let mut held = Held::new(framing);
    loop {
        let read = tokio::select! {
            biased;
            () = wire.answered() => return Ok(Sent::Part),
            read = session.as_downstream_mut().read_request_body() => read,
        };
        let piece = match read {
            Ok(piece) => piece,
            Err(error) => {
                // What came is kept by the registry, for the client to go on from there.
                drop(held.send(wire, patience).await);
                return Err(error.into_down());
            }
        };
        let last = piece.is_none() || session.is_body_done();
        body::arrived(piece.as_ref(), last, ctx)?;
        held.push(piece, Instant::now());
        if last {
            held.end();
        }
        if last || held.goes(Instant::now()) {
            let first = held.pieces.first().cloned().unwrap_or_default();
            let _under_way = body::under_way(first, ctx);
            let sent = match session.as_downstream_mut().watch_h2_stream_close() {
                // Nothing is read meanwhile that would say so.
                Some(closed) => tokio::select! {
                    biased;
                    sent = held.send(wire, patience) => sent,
                    reason = closed => return Err(cancelled(reason).into_down()),
                },
                None => held.send(wire, patience).await,
            };
            match sent {
                Ok(()) => {}
                // It may have said why before it hung up.
                Err(error) if hung_up(&error) => return Ok(Sent::Part),
                Err(error) => return Err(failed(error).into_up()),
            }
        }
        if last {
            return Ok(Sent::All);
        }
    }
}

fn cancelled(reason: Result<impl Display>) -> Box<Error> {
    reason.map_or_else(
        |error| error,
        |reason| {
            Error::explain(
                ErrorType::H2Error,
                format!("the client closed the stream: {reason}"),
            )
        },
    )
}

fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

fn failed(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => ErrorType::WriteTimedout,
        _ => ErrorType::WriteError,
    };
    Error::because(kind, "a body to the registry", error)
}

/// Pieces that have come and were not sent yet.
struct Held {
    framing: Framing,
    pieces: Vec<Bytes>,
    bytes: usize,
    ended: bool,
    /// Since when the registry has seen nothing of what is here.
    since: Option<Instant>,
}

impl Held {
    fn new(framing: Framing) -> Self {
        Self {
            framing,
            pieces: Vec::new(),
            bytes: 0,
            ended: false,
            since: None,
        }
    }

    fn push(&mut self, piece: Option<Bytes>, now: Instant) {
        if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
            self.since.get_or_insert(now);
            self.bytes += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Says that this was all.
    fn end(&mut self) {
        self.ended = true;
    }

    /// Returns whether it is time to send.
    fn goes(&self, now: Instant) -> bool {
        let waited = |since| now.saturating_duration_since(since) >= HOLD_MAX;
        self.bytes >= GATHERED_BYTES || self.since.is_some_and(waited)
    }

    /// Sends everything, as one chunk where there are chunks.
    async fn send(&mut self, wire: &Wire, patience: Duration) -> io::Result<()> {
        let chunked = self.framing == Framing::Chunked;
        let size = format!("{:x}\r\n", self.bytes);
        let mut slices = Vec::with_capacity(self.pieces.len() + 3);
        if self.bytes > 0 {
            if chunked {
                slices.push(IoSlice::new(size.as_bytes()));
            }
            slices.extend(self.pieces.iter().map(|piece| IoSlice::new(piece)));
            if chunked {
                slices.push(IoSlice::new(b"\r\n"));
            }
        }
        if chunked && self.ended {
            slices.push(IoSlice::new(b"0\r\n\r\n"));
        }
        wire.send(&mut slices, patience).await?;
        self.pieces.clear();
        self.bytes = 0;
        // What has gone marks the time from which the next is late.
        self.since = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_go_when_there_are_enough_or_the_first_has_waited() {
        let begin = Instant::now();
        let mut held = Held::new(Framing::Length);
        assert!(!held.goes(begin + HOLD_MAX * 2), "there is nothing to send");
        held.push(Some(Bytes::new()), begin);
        assert!(!held.goes(begin + HOLD_MAX * 2));
        held.push(Some(Bytes::from_static(b"12345")), begin);
        assert!(!held.goes(begin + HOLD_MAX / 2));
        assert!(held.goes(begin + HOLD_MAX));
        held.push(Some(vec![7; GATHERED_BYTES].into()), begin);
        assert!(held.goes(begin));
    }
}
