//! The short way to the registry on its Unix socket.
//!
//! Whatever goes through Pingora's own proxying is copied from task to task and from socket to
//! socket, which blobs mind most and small requests, too. What is for the registry is sent from here
//! instead: a download's bytes do not come over the socket at all but from the open file that the
//! registry hands over ([`oci::handover`]), and an upload's through memory that the registry has, too,
//! or, where there is none, in large pieces, uncopied.
//! Other upstreams are Pingora's; what they say, and what is made of it for the client, is the same
//! on both ways.

mod absences;
mod ask;
mod direct;
mod disk;
mod download;
mod gathered;
mod handed;
mod http2;
mod in_slots;
mod reply;
mod rest;
mod upload;
mod wire;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT, HOST, HeaderName,
    IF_NONE_MATCH, IF_RANGE, RANGE, TRANSFER_ENCODING, USER_AGENT,
};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Version};
use oci::handover::{self, Slots};
use oci::range::ByteRange;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::v1::client::HttpSession;
use pingora::proxy::{ProxyHttp as _, Session};
use pingora::{Error, ErrorSource, ErrorType, Result};
use tokio::time::timeout;

use self::absences::Absences;
pub(crate) use self::ask::ask;
use self::gathered::{Framing, Gathered};
use self::handed::Handed;
use self::in_slots::InSlots;
use self::reply::{Left, Reply};
pub(super) use self::rest::DIGEST;
use self::upload::{Held, Sent};
use self::wire::Wire;
use super::{EdgeProxy, answer};
use crate::context::Context;
use crate::filter::host::Host;
use crate::limits::transfers::{Kind, Streams, Transfer};
use crate::respond::Rejection;
use crate::upstream::Socket;

/// What of a request's head a registry reads; how long the body is goes without saying, and the edge
/// adds what it knows.
const PASSED_ON: [HeaderName; 7] = [
    ACCEPT,
    CONTENT_RANGE,
    CONTENT_TYPE,
    IF_NONE_MATCH,
    IF_RANGE,
    RANGE,
    USER_AGENT,
];

/// What a client may expect (RFC 9110, section 10.1.1).
const CONTINUE: &str = "100-continue";

/// How many connections to a registry are kept for the next requests.
const KEPT_MAX: usize = 128;

/// How long a stream waits until the registry may work for it, while others of its client, or of all,
/// have what there is.
const QUEUE_MAX: Duration = Duration::from_secs(60);

/// When to come back then.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Connections to registries that nothing is under way on, by socket.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    kept: Mutex<HashMap<PathBuf, Vec<Wire>>>,
    absences: Absences,
}

impl Wires {
    /// Takes a connection, a kept one where there is one; returns whether it is one.
    async fn take(&self, socket: &Socket) -> Result<(Wire, bool)> {
        while let Some(wire) = self.kept(socket) {
            // The registry may have been started anew meanwhile.
            if wire.is_quiet() {
                return Ok((wire, true));
            }
        }
        Ok((self.connect(socket).await?, false))
    }

    /// Takes a connection that has memory for a large body, if there can be one; returns whether it is a kept
    /// one.
    async fn take_for_body(&self, socket: &Socket) -> Result<(Wire, bool)> {
        let (wire, kept) = self.take(socket).await?;
        if wire.offer_slots().await {
            return Ok((wire, kept));
        }
        let wire = self.connect(socket).await?;
        // For this body alone: the next connection may get memory again.
        wire.use_once();
        Ok((wire, false))
    }

    async fn connect(&self, socket: &Socket) -> Result<Wire> {
        let connected = self.absences.connect(socket).await;
        connected.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, "the registry's socket", error).into_up()
        })
    }

    fn kept(&self, socket: &Socket) -> Option<Wire> {
        let mut wires = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        wires.get_mut(&socket.path)?.pop()
    }

    fn keep(&self, socket: &Socket, wire: Wire) {
        if !wire.rest() {
            return; // the registry is not done with what was sent on it
        }
        let mut wires = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = wires.entry(socket.path.clone()).or_default();
        if kept.len() < KEPT_MAX {
            kept.push(wire);
        }
    }
}

/// An answer of the registry's, whose body is still to be read.
struct Answer {
    head: ResponseHeader,
    client: HttpSession,
    sent: Sent,
}

impl EdgeProxy {
    /// Sends a request to the registry at `socket`, and its answer to the client.
    pub(super) async fn relay(
        &self,
        socket: &Socket,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<()> {
        let transfer = self.transfer(session, ctx).await?;
        // Each step has memory of its own, for as long as it lasts: with the last one a client may
        // take its time, and there can be thousands of such streams.
        let (mut answer, wire) = Box::pin(self.ask(socket, session, ctx)).await?;
        if transfer.is_some() && answer.head.headers.contains_key(handover::FILE) {
            copy_values(&mut answer.head);
        }
        let sent = answer.sent;
        let mut reply = Reply {
            proxy: self,
            socket,
            session,
            ctx,
            transfer,
            digest: answer.head.headers.get(DIGEST).cloned(),
        };
        match Box::pin(reply.begin(answer, wire)).await? {
            Left::File(file, part) => Box::pin(reply.send_file(file, part)).await?,
            Left::Nothing => {}
            Left::Small(content) => Box::pin(reply.send_small(content)).await?,
            Left::Stream(body) => Box::pin(reply.send_stream(*body)).await?,
        }
        if sent == Sent::Part {
            answer::linger(session).await;
        }
        Ok(())
    }

    /// Sends a request to the registry; returns its answer, and what that came on.
    async fn ask(
        &self,
        socket: &Socket,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<(Answer, Wire)> {
        ctx.attempt.started = Some(Instant::now());
        let (head, framing) = self.head(session, ctx).await?;
        let only_asks = framing.is_none() && head.method.is_safe();
        let large = framing.as_ref().is_some_and(Framing::is_large);
        let (mut wire, mut kept) = match large {
            true => self.wires.take_for_body(socket).await?,
            false => self.wires.take(socket).await?,
        };
        loop {
            let mut body = framing;
            let sending = exchange(&wire, socket, head.clone(), &mut body, session, ctx);
            match sending.await {
                // A kept connection can end the moment before it is used, as when the registry restarts. What
                // only asks may be sent again; anything else only if the registry has not read it, nor
                // any of its body been taken from the client.
                Err(error)
                    if kept
                        && body.is_some() == framing.is_some()
                        && (was_unread(&error) || only_asks && ended(&error)) =>
                {
                    (wire, kept) = match large {
                        true => self.wires.take_for_body(socket).await?,
                        false => self.wires.take(socket).await?,
                    };
                }
                answer => return Ok((answer?, wire)),
            }
        }
    }

    /// Writes the head for the registry; returns also how the body is framed, if there is one.
    async fn head(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<(RequestHeader, Option<Framing>)> {
        let (mut head, framing) = head(session, ctx)?;
        self.upstream_request_filter(session, &mut head, ctx)
            .await?;
        if head.method == Method::GET {
            // After the edits, which let nothing pass that a client says under this name.
            head.insert_header(handover::FILE, handover::ACCEPT)?;
        }
        Ok((head, framing))
    }

    /// Waits until the registry may work for a stream; over HTTP/1.1, where each has a connection of
    /// its own, it may at once.
    async fn transfer(&self, session: &mut Session, ctx: &mut Context) -> Result<Option<Transfer>> {
        let kind = match session.is_body_done() {
            true => Kind::Download,
            false => Kind::Upload,
        };
        let closed = session.as_downstream_mut().watch_h2_stream_close();
        let Some((streams, closed)) = Streams::current().zip(closed) else {
            return Ok(None);
        };
        let client = http2::client(ctx);
        let begin = timeout(QUEUE_MAX, self.transfers.begin(&streams, client, kind));
        tokio::select! {
            biased;
            begun = begin => begun.map(Some).map_err(|_elapsed| {
                ctx.rejection = Some(Rejection::Overloaded { retry_after: RETRY_AFTER });
                ctx.because = Some("limits.max_transfers".into());
                Error::explain(ErrorType::HTTPStatus(503), "too many transfers").into_in()
            }),
            reason = closed => Err(upload::cancelled(reason).into_down()),
        }
    }
}

/// Writes what the registry reads of the client's head, without what the edge knows better; returns also
/// how the body is framed, if there is one.
fn head(session: &mut Session, ctx: &Context) -> Result<(RequestHeader, Option<Framing>)> {
    let sends = !session.is_body_done();
    let asked = session.req_header();
    let mut head = RequestHeader::build_no_case(asked.method.clone(), asked.raw_path(), None)?;
    let host = ctx.host.as_ref().map_or("", Host::authority);
    head.insert_header(HOST, host)?;
    for name in &PASSED_ON {
        for value in asked.headers.get_all(name) {
            head.append_header(name, value)?;
        }
    }
    if !sends {
        return Ok((head, None));
    }
    if asks_first(asked) {
        head.insert_header(EXPECT, CONTINUE)?;
    }
    // The head has been checked: there is one length at most, and none beside chunks.
    let framing = match asked.headers.get(CONTENT_LENGTH) {
        Some(length) => {
            let length = length.to_str().ok().and_then(|length| length.parse().ok());
            Framing::Length(length.ok_or_else(|| Error::new(ErrorType::InvalidHTTPHeader))?)
        }
        None => Framing::Chunked,
    };
    Ok((head, Some(framing)))
}

/// Chooses the way of a body over `wire`, and says in the head which it is.
fn way(wire: &Wire, head: &mut RequestHeader, framing: Framing) -> Result<Held> {
    if framing.is_large()
        && let Some(sender) = wire.take_slots()
    {
        let body = Slots::Body(framing.length());
        head.insert_header(handover::SLOTS, body.to_string())?;
        head.insert_header(TRANSFER_ENCODING, "chunked")?;
        return Ok(Held::InSlots(InSlots::new(sender)));
    }
    match framing {
        Framing::Length(length) => head.insert_header(CONTENT_LENGTH, length)?,
        Framing::Chunked => head.insert_header(TRANSFER_ENCODING, "chunked")?,
    }
    Ok(Held::Gathered(Gathered::new(framing)))
}

/// Returns whether a client waits to be told that its body is wanted. What else it may expect nobody
/// knows, and HTTP/1.0 has no way to tell it (RFC 9110, section 10.1.1).
fn asks_first(asked: &Parts) -> bool {
    let expected = asked.headers.get(EXPECT);
    let waits = expected.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(CONTINUE.as_bytes()));
    waits && asked.version == Version::HTTP_11
}

/// Sends a request, with the body of the client's where it has one, and reads the answer's head. It takes
/// the `body` when it begins to read it.
async fn exchange(
    wire: &Wire,
    socket: &Socket,
    mut head: RequestHeader,
    body: &mut Option<Framing>,
    session: &mut Session,
    ctx: &mut Context,
) -> Result<Answer> {
    let patience = socket.read_timeout;
    let asks_first = head.headers.contains_key(EXPECT);
    let held = body.map(|framing| way(wire, &mut head, framing));
    let held = held.transpose()?;
    let may_bring_file = head.headers.contains_key(handover::FILE);
    wire.ask_for_files(usize::from(may_bring_file));
    let mut client = wire.client(patience);
    let written = client.write_request_header(Box::new(head)).await;
    written.map_err(|error| error.into_up())?;
    let mut sent = Sent::All;
    if let Some(held) = held {
        if asks_first && !goes_on(&mut client, session, ctx).await? {
            sent = Sent::Part;
        } else {
            *body = None;
            sent = upload::pump(session, ctx, wire, held, patience).await?;
        }
    }
    loop {
        if let Some(head) = client.resp_header()
            && !head.status.is_informational()
        {
            let head = head.clone();
            return Ok(Answer { head, client, sent });
        }
        // One that is still sending is seen to be gone when its body is read.
        let watched = session.is_body_done();
        tokio::select! {
            biased;
            read = client.read_response() => read.map_err(|error| error.into_up())?,
            gone = gone(session), if watched => return Err(gone),
        };
    }
}

/// Waits for a client that has sent everything to go away; what it sends ahead is kept.
async fn gone(session: &mut Session) -> Box<Error> {
    match session.as_downstream_mut().read_body_or_idle(true).await {
        Err(error) => error.into_down(),
        // There is no more body to read, whatever comes.
        Ok(_) => std::future::pending().await,
    }
}

/// Waits for the registry to want a body, and tells the client; or returns that it does not.
async fn goes_on(client: &mut HttpSession, session: &mut Session, ctx: &Context) -> Result<bool> {
    let read = client.read_response().await;
    read.map_err(|error| error.into_up())?;
    if client.get_status() != Some(StatusCode::CONTINUE) {
        return Ok(false);
    }
    let told = session.as_downstream_mut().write_continue_response().await;
    told.map_err(|error| error.into_down())?;
    if let Some(pace) = &ctx.pace {
        // It may have waited for this.
        pace.forgive(Instant::now());
    }
    Ok(true)
}

/// Reads the next piece of an answer's body.
async fn body_piece(client: &mut HttpSession) -> Result<Option<Bytes>> {
    let read = client.read_body_bytes().await;
    read.map_err(|error| error.into_up())
}

/// Takes the file that a reply is about, and reads which part of it is meant.
fn handed_over(part: Option<&str>, wire: &Wire) -> Result<(Handed, ByteRange)> {
    let part = part.and_then(handover::read);
    let file = wire.take_file();
    let (part, file) = part.zip(file).ok_or_else(|| {
        let explained = Error::explain(ErrorType::InvalidHTTPHeader, "a body without its file");
        explained.into_up()
    })?;
    let file = Handed::open(file, part).map_err(|error| {
        Error::because(ErrorType::FileReadError, "a blob's file", error).into_up()
    })?;
    Ok((file, part))
}

/// Returns whether the registry closed a connection without having read all that was sent on it, which the
/// kernel says of Unix sockets (`ECONNRESET`, `EPIPE`). It works on a request when it has all of its head.
fn was_unread(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    let kind = cause.map(io::Error::kind);
    let unread = matches!(
        kind,
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    );
    unread && ended(error)
}

/// Returns whether a connection to the registry ended before it said anything.
fn ended(error: &Error) -> bool {
    *error.esource() == ErrorSource::Upstream
        && matches!(
            error.etype(),
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
        )
}

/// Gives a head values of its own, instead of parts of the buffer that it was read into: it may be kept
/// for as long as a client takes.
fn copy_values(head: &mut ResponseHeader) {
    let names: Vec<HeaderName> = head.headers.keys().cloned().collect();
    for name in names {
        if let Some(value) = head.headers.get(&name)
            && let Ok(copy) = HeaderValue::from_bytes(value.as_bytes())
        {
            // Of a file, the registry says each thing once.
            drop(head.insert_header(name, copy));
        }
    }
}

/// Returns whether the registry leaves the connection open.
fn stays(head: &ResponseHeader) -> bool {
    !head.headers.contains_key(CONNECTION)
}
