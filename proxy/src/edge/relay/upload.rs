//! A request's body on its way to the registry.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::gathered::Gathered;
use super::in_slots::InSlots;
use super::wire::Wire;
use crate::context::Context;
use crate::edge::body;

/// How long the registry may see nothing for the sake of gathering: from a slow client it gets
/// smaller pieces instead, and never takes a body that moves for one that has stopped.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// How much of a body was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sent {
    All,
    /// The registry answered before it had everything.
    Part,
}

/// Sends the body of the client's request over `wire`, as `held` does.
pub(super) async fn pump(
    session: &mut Session,
    ctx: &mut Context,
    wire: &Wire,
    mut held: Held,
    patience: Duration,
) -> Result<Sent> {
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
                drop(held.send(Flush::All, wire, patience).await);
                return Err(error.into_down());
            }
        };
        let last = piece.is_none() || session.is_body_done();
        body::arrived(piece.as_ref(), last, ctx)?;
        if let Some(flush) = held.push(piece, last, Instant::now()) {
            let _under_way = body::under_way(ctx);
            let sent = match session.as_downstream_mut().watch_h2_stream_close() {
                // Nothing is read meanwhile that would say so.
                Some(closed) => tokio::select! {
                    biased;
                    sent = held.send(flush, wire, patience) => sent,
                    reason = closed => return Err(cancelled(reason).into_down()),
                },
                None => held.send(flush, wire, patience).await,
            };
            match sent {
                Ok(()) => {}
                // It may have said why before it hung up.
                Err(error) if hung_up(&error) => return Ok(Sent::Part),
                Err(error) => return Err(failed(error).into_up()),
            }
        }
        if last {
            held.leave(wire);
            return Ok(Sent::All);
        }
    }
}

pub(super) fn cancelled(reason: Result<impl Display>) -> Box<Error> {
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

/// How much of what is held is to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flush {
    /// What is full.
    Full,
    /// All of it, because it has waited long enough, or no more will come.
    All,
    /// All of it, and that it was the last.
    Last,
}

/// What has come and was not sent yet.
pub(super) enum Held {
    Gathered(Gathered),
    InSlots(InSlots),
}

impl Held {
    /// Takes in what has come; returns whether and how much it is time to send.
    fn push(&mut self, piece: Option<Bytes>, last: bool, now: Instant) -> Option<Flush> {
        let piece = piece.filter(|piece| !piece.is_empty());
        let (since, full) = match self {
            Self::Gathered(gathered) => gathered.push(piece, now),
            Self::InSlots(in_slots) => in_slots.push(piece, now),
        };
        let waited = |since| now.saturating_duration_since(since) >= HOLD_MAX;
        if last {
            Some(Flush::Last)
        } else if since.is_some_and(waited) {
            Some(Flush::All)
        } else {
            full.then_some(Flush::Full)
        }
    }

    /// Sends what `flush` says; the registry may take each part within `patience`.
    async fn send(&mut self, flush: Flush, wire: &Wire, patience: Duration) -> io::Result<()> {
        match self {
            Self::Gathered(gathered) => gathered.send(flush, wire, patience).await,
            Self::InSlots(in_slots) => in_slots.send(flush, wire, patience).await,
        }
    }

    /// Leaves to `wire` what the next body can use.
    fn leave(self, wire: &Wire) {
        if let Self::InSlots(in_slots) = self {
            wire.give_slots(in_slots.into_sender());
        }
    }
}
