//! A reply's body over HTTP/2: read once the client lets it be sent, and no earlier.
//!
//! Pingora's writer takes a piece and waits until the client's window has room for it, so that each
//! stream of a client that takes nothing holds a piece, an open file and a connection to the registry.
//! Here the wait comes first. While it lasts, what the stream holds is for others to have: its
//! [`Transfer`] goes back with the file as soon as another stream wants one, and when the client goes
//! on the registry is asked for the rest ([`super::rest`]).

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use oci::range::ByteRange;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::download::{PIECE_BYTES, broken, read};
use super::handed::Handed;
use super::rest::Rest;
use super::{EdgeProxy, QUEUE_MAX, body_piece};
use crate::context::Context;
use crate::limits::transfers::{Kind, Reservation, Streams, Transfer, Transfers};

/// A stream that has sent less than this since it got its transfer gives it up at the first wait, and
/// one that got none goes for it only when it may send as much.
const WORTHWHILE_BYTES: usize = 16 << 10;

/// How long one that has sent more may wait for its client, all waits together, while others want what
/// it holds.
const STALL_MAX: Duration = Duration::from_millis(250);

/// How long a stream waits until its client lets it send what is worth a transfer; then less will do.
const SLOW_WINDOW: Duration = Duration::from_secs(1);

/// How long a body that cannot be asked for again may wait for its client while others want what it
/// holds; then it is cut.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// How much is asked for when it is not known how much there is.
const PART_BYTES: usize = 64 << 10;

/// The body of a reply that has begun.
pub(super) struct BodyStream<'a> {
    writer: SendStream<Bytes>,
    transfers: &'a Transfers,
    streams: Arc<Streams>,
    client: IpAddr,
    /// How long the client may take nothing.
    patience: Duration,
    sent_bytes: usize,
}

/// What a stream holds while bytes move.
struct Held {
    file: Arc<Handed>,
    transfer: Transfer,
    /// How much was sent, and how long the client was waited for, since it holds this.
    sent_bytes: usize,
    stalled: Duration,
}

/// Bytes that were handed to HTTP/2, counted until they are written.
struct Counted {
    bytes: BytesMut,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns the address that a request's streams are counted for.
pub(super) fn client(ctx: &Context) -> IpAddr {
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    ctx.client().unwrap_or(unknown)
}

impl<'a> BodyStream<'a> {
    /// Takes the body of a reply whose head was sent; over HTTP/1.1 there is none to be taken.
    pub(super) fn take(proxy: &'a EdgeProxy, session: &mut Session, ctx: &Context) -> Option<Self> {
        let streams = Streams::current()?;
        let ServerSession::H2(session) = session.as_downstream_mut() else {
            return None;
        };
        Some(Self {
            writer: session.take_response_body_writer()?,
            transfers: &proxy.transfers,
            streams,
            client: client(ctx),
            patience: ctx.state.limits.write_timeout,
            sent_bytes: 0,
        })
    }

    /// Returns how many bytes were sent.
    pub(super) fn sent_bytes(&self) -> usize {
        self.sent_bytes
    }

    /// Sends `part` of `file`, which came with `transfer`.
    pub(super) async fn send_file(
        &mut self,
        file: Handed,
        part: ByteRange,
        transfer: Transfer,
        rest: &mut Rest<'_>,
    ) -> Result<()> {
        let mut held = Some(Held::new(file, transfer));
        let mut offset = part.first;
        while offset <= part.last {
            let left = part.last - offset + 1;
            let want = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            let (window, reservation, mut holding) = match held.take() {
                Some(mut holding) => match self.room_or_wanted(want, &mut holding).await? {
                    Some((window, reservation)) => (window, reservation, holding),
                    None => continue,
                },
                None => {
                    // Not before there is room: to ask for the file and give it back at once would
                    // go on and on.
                    let window = self.worthwhile_window(want).await?;
                    let reservation = self.reserve(window).await?;
                    let holding = Box::pin(self.hold_again(offset, part.last, rest)).await?;
                    (window, reservation, holding)
                }
            };
            let len = window.min(reservation.bytes());
            let piece = read(&holding.file, offset, len, BytesMut::new()).await;
            let piece = piece.map_err(|error| broken(error).into_up())?;
            let len = piece.len();
            offset += len as u64;
            self.send(piece, reservation, offset > part.last)?;
            holding.sent_bytes += len;
            held = Some(holding);
            // A client that takes everything at once would leave the others no turn.
            yield_now().await;
        }
        Ok(())
    }

    /// Sends a body that comes from the registry as it is sent.
    pub(super) async fn send_body(
        &mut self,
        registry: &mut HttpSession,
        transfer: Transfer,
    ) -> Result<()> {
        let mut stalled = Duration::ZERO;
        let mut room = self
            .room_or_cut(PART_BYTES, &transfer, &mut stalled)
            .await?;
        while let Some(mut piece) = body_piece(registry).await? {
            while !piece.is_empty() {
                let (window, reservation) = room;
                let len = window.min(reservation.bytes()).min(piece.len());
                self.send(BytesMut::from(piece.split_to(len)), reservation, false)?;
                // It is taken, however slowly.
                stalled = Duration::ZERO;
                let more = self.room_or_cut(PART_BYTES, &transfer, &mut stalled);
                room = more.await?;
            }
            yield_now().await;
        }
        self.finish()
    }

    /// Sends a small body that is all here.
    pub(super) async fn send_small(&mut self, mut content: Bytes) -> Result<()> {
        while !content.is_empty() {
            let (window, reservation) = self.room(content.len()).await?;
            let len = reservation.bytes().min(window).min(content.len());
            let piece = BytesMut::from(content.split_to(len));
            self.send(piece, reservation, content.is_empty())?;
        }
        Ok(())
    }

    /// Ends a body of which nobody said that it was the last.
    pub(super) fn finish(&mut self) -> Result<()> {
        let ended = self.writer.send_data(Bytes::new(), true);
        ended.map_err(|error| closed(error.to_string()))
    }

    fn send(&mut self, bytes: BytesMut, reservation: Reservation, last: bool) -> Result<()> {
        let len = bytes.len();
        let counted = Bytes::from_owner(Counted {
            bytes,
            _reservation: reservation,
        });
        let sent = self.writer.send_data(counted, last);
        sent.map_err(|error| closed(error.to_string()))?;
        self.sent_bytes += len;
        Ok(())
    }

    /// Returns how much may be sent at once, `want` at most.
    fn window_now(&mut self, want: usize) -> usize {
        self.writer.reserve_capacity(want);
        self.writer.capacity().min(want)
    }

    /// Waits until something may be sent, and returns how much, `want` at most.
    async fn window(&mut self, want: usize) -> Result<usize> {
        match self.window_now(want) {
            0 => Ok(self.opened().await?.min(want)),
            window => Ok(window),
        }
    }

    /// Waits until more may be sent than before, and returns how much.
    async fn opened(&mut self) -> Result<usize> {
        let opened = poll_fn(|cx| self.writer.poll_capacity(cx));
        match timeout(self.patience, opened).await {
            Ok(Some(Ok(window))) => Ok(window),
            Ok(Some(Err(error))) => Err(closed(error.to_string())),
            Ok(None) => Err(closed("the client closed the stream".to_owned())),
            Err(_elapsed) => Err(too_late("a window")),
        }
    }

    /// Waits until something may be sent and there is room for it.
    async fn room(&mut self, want: usize) -> Result<(usize, Reservation)> {
        let window = self.window(want).await?;
        let reservation = self.reserve(window).await?;
        Ok((window, reservation))
    }

    /// Waits for [room](Self::room); or returns nothing once another stream wants what this one holds
    /// and does not need.
    async fn room_or_wanted(
        &mut self,
        want: usize,
        held: &mut Held,
    ) -> Result<Option<(usize, Reservation)>> {
        let grace = match held.sent_bytes {
            0..WORTHWHILE_BYTES => Duration::ZERO,
            _ => STALL_MAX.saturating_sub(held.stalled),
        };
        let begun = Instant::now();
        let room = tokio::select! {
            biased;
            room = self.room(want) => Some(room?),
            () = wanted(&held.transfer, grace) => None,
        };
        held.stalled += begun.elapsed();
        Ok(room)
    }

    /// Waits for [room](Self::room); a body that waits too long in the way of others is cut.
    async fn room_or_cut(
        &mut self,
        want: usize,
        transfer: &Transfer,
        stalled: &mut Duration,
    ) -> Result<(usize, Reservation)> {
        let grace = HOLD_MAX.saturating_sub(*stalled);
        let begun = Instant::now();
        let room = tokio::select! {
            biased;
            room = self.room(want) => room,
            () = wanted(transfer, grace) => {
                Err(too_late("others waited for what a body held that nobody took"))
            }
        };
        *stalled += begun.elapsed();
        room
    }

    /// Waits until as much may be sent as is worth to ask the registry again; after some time less
    /// will do.
    async fn worthwhile_window(&mut self, want: usize) -> Result<usize> {
        let least = want.min(WORTHWHILE_BYTES);
        let mut window = self.window(want).await?;
        let deadline = Instant::now() + SLOW_WINDOW;
        while window < least {
            match timeout_at(deadline, self.opened()).await {
                Ok(opened) => window = opened?.min(want),
                Err(_elapsed) => break,
            }
        }
        Ok(window)
    }

    /// Gets hold again of the file, whose bytes are wanted from `first` to `last`.
    async fn hold_again(&mut self, first: u64, last: u64, rest: &mut Rest<'_>) -> Result<Held> {
        let (transfers, streams) = (self.transfers, Arc::clone(&self.streams));
        let begin = transfers.begin(&streams, self.client, Kind::Download);
        let begun = self.unless_reset(timeout(QUEUE_MAX, begin)).await?;
        let transfer = begun.map_err(|_elapsed| too_late("a turn for the rest of a body"))?;
        let file = self
            .unless_reset(rest.open(ByteRange { first, last }))
            .await??;
        Ok(Held::new(file, transfer))
    }

    async fn reserve(&mut self, bytes: usize) -> Result<Reservation> {
        let (transfers, streams) = (self.transfers, Arc::clone(&self.streams));
        let reserve = transfers.reserve(&streams, self.client, bytes);
        let reserved = timeout(self.patience, reserve);
        let reserved = self.unless_reset(reserved).await?;
        reserved.map_err(|_elapsed| too_late("room for what waits to be written"))
    }

    /// Does `work`, unless the client resets the stream meanwhile.
    async fn unless_reset<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            reset = poll_fn(|cx| self.writer.poll_reset(cx)) => {
                Err(closed(reset.map_or_else(|error| error.to_string(), |reason| reason.to_string())))
            }
        }
    }
}

impl Held {
    fn new(file: Handed, transfer: Transfer) -> Self {
        Self {
            file: Arc::new(file),
            transfer,
            sent_bytes: 0,
            stalled: Duration::ZERO,
        }
    }
}

/// Waits until, after some time, another stream wants a transfer.
async fn wanted(transfer: &Transfer, grace: Duration) {
    if !grace.is_zero() {
        sleep(grace).await;
    }
    transfer.wanted().await;
}

fn closed(why: String) -> Box<Error> {
    Error::explain(ErrorType::H2Error, why).into_down()
}

fn too_late(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::WriteTimedout, what).into_down()
}
