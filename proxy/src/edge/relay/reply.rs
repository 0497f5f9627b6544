//! What the registry answers, on its way to the client.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Version};
use oci::handover;
use oci::range::ByteRange;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::proxy::{ProxyHttp as _, Session};

use super::handed::Handed;
use super::http2::BodyStream;
use super::rest::Rest;
use super::upload::Sent;
use super::wire::Wire;
use super::{Answer, body_piece, download, handed_over, stays};
use crate::context::Context;
use crate::edge::{EdgeProxy, answer};
use crate::limits::transfers::Transfer;
use crate::upstream::Socket;

/// A body of no more than this is read whole, whether the client takes it or not: the connection to the
/// registry is worth more.
const SMALL_BYTES: u64 = 16 << 10;

/// The client's side of a request to the registry.
pub(super) struct Reply<'a> {
    pub(super) proxy: &'a EdgeProxy,
    pub(super) socket: &'a Socket,
    pub(super) session: &'a mut Session,
    pub(super) ctx: &'a mut Context,
    /// What its stream holds of the registry.
    pub(super) transfer: Option<Transfer>,
    /// What the registry calls the content.
    pub(super) digest: Option<HeaderValue>,
}

/// What is left to be sent of a reply that has begun.
pub(super) enum Left {
    /// A part of a file that the registry has handed over.
    File(Handed, ByteRange),
    Nothing,
    /// A small body that is all here.
    Small(Bytes),
    /// A body that the registry sends meanwhile.
    Stream(Box<Stream>),
}

/// A body that comes over a connection to the registry.
pub(super) struct Stream {
    registry: HttpSession,
    /// The connection, if it can be used again.
    wire: Option<Wire>,
}

impl Reply<'_> {
    /// Begins the reply to the client; gives back the connection that the answer came on, unless the
    /// body is still to come on it.
    pub(super) async fn begin(&mut self, answer: Answer, wire: Wire) -> Result<Left> {
        let keeps = answer.sent == Sent::All && stays(&answer.head);
        let Answer {
            mut head,
            client: mut registry,
            sent,
        } = answer;
        let part = head.remove_header(handover::FILE);
        head.remove_header(&CONNECTION);
        let file = part.map(|part| handed_over(part.to_str().ok(), &wire));
        let file = file.transpose()?;
        if let Some((_, part)) = &file {
            head.remove_header(&TRANSFER_ENCODING);
            head.insert_header(CONTENT_LENGTH, part.size_bytes())?;
        }
        if sent == Sent::Part && answer::outlasts_patience(self.session.req_header()) {
            self.session.set_keepalive(None);
        }
        if self.session.req_header().version == Version::HTTP_10
            && head.remove_header(&TRANSFER_ENCODING).is_some()
        {
            // It knows no chunks: its body ends with the connection.
            self.session.set_keepalive(None);
        }
        self.proxy
            .response_filter(self.session, &mut head, self.ctx)
            .await?;
        let wire = keeps.then_some(wire);
        if let Some((file, part)) = file {
            // The connection is free while the client takes the bytes.
            self.give_back(wire);
            self.write_head(head, false).await?;
            return Ok(Left::File(file, part));
        }
        if registry.is_body_done() {
            self.give_back(wire);
            self.write_head(head, true).await?;
            self.finish().await?;
            return Ok(Left::Nothing);
        }
        if length(&head).is_some_and(|length| length <= SMALL_BYTES) {
            let content = whole(&mut registry).await?;
            self.give_back(wire);
            self.transfer = None;
            self.write_head(head, false).await?;
            return Ok(Left::Small(content));
        }
        self.write_head(head, false).await?;
        Ok(Left::Stream(Box::new(Stream { registry, wire })))
    }

    /// Sends a file that the registry has handed over.
    pub(super) async fn send_file(&mut self, file: Handed, part: ByteRange) -> Result<()> {
        let stream = BodyStream::take(self.proxy, self.session, self.ctx);
        let Some((mut stream, transfer)) = stream.zip(self.transfer.take()) else {
            return download::send(self.session, file, part).await;
        };
        let mut rest = Rest {
            proxy: self.proxy,
            socket: self.socket,
            session: self.session,
            ctx: self.ctx,
            digest: self.digest.as_ref(),
        };
        let sent = stream.send_file(file, part, transfer, &mut rest).await;
        self.ctx.body_bytes_sent = stream.sent_bytes();
        sent
    }

    /// Sends a small body.
    pub(super) async fn send_small(&mut self, content: Bytes) -> Result<()> {
        if let Some(mut stream) = BodyStream::take(self.proxy, self.session, self.ctx) {
            let sent = stream.send_small(content).await;
            self.ctx.body_bytes_sent = stream.sent_bytes();
            return sent;
        }
        self.write(content).await?;
        self.finish().await
    }

    /// Sends a body that comes from the registry meanwhile.
    pub(super) async fn send_stream(&mut self, body: Stream) -> Result<()> {
        let Stream { mut registry, wire } = body;
        let stream = BodyStream::take(self.proxy, self.session, self.ctx);
        if let Some((mut stream, transfer)) = stream.zip(self.transfer.take()) {
            let sent = stream.send_body(&mut registry, transfer).await;
            self.ctx.body_bytes_sent = stream.sent_bytes();
            sent?;
        } else {
            while let Some(piece) = body_piece(&mut registry).await? {
                self.write(piece).await?;
            }
            self.finish().await?;
        }
        self.give_back(wire);
        Ok(())
    }

    /// Keeps a connection for the next request, if it can be used again.
    fn give_back(&self, wire: Option<Wire>) {
        if let Some(wire) = wire {
            self.proxy.wires.keep(self.socket, wire);
        }
    }

    async fn write_head(&mut self, head: ResponseHeader, ends: bool) -> Result<()> {
        let written = self.session.write_response_header(Box::new(head), ends);
        written.await.map_err(|error| error.into_down())
    }

    async fn write(&mut self, piece: Bytes) -> Result<()> {
        let downstream = self.session.as_downstream_mut();
        let written = downstream.write_response_body(piece, false);
        written.await.map_err(|error| error.into_down())
    }

    async fn finish(&mut self) -> Result<()> {
        let finished = self.session.as_downstream_mut().finish_body();
        finished.await.map(drop).map_err(|error| error.into_down())
    }
}

fn length(head: &ResponseHeader) -> Option<u64> {
    head.headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Reads a body whole, which comes in one piece as a rule.
async fn whole(client: &mut HttpSession) -> Result<Bytes> {
    let Some(first) = body_piece(client).await? else {
        return Ok(Bytes::new());
    };
    let Some(second) = body_piece(client).await? else {
        return Ok(first);
    };
    let mut content = BytesMut::from(first);
    content.extend_from_slice(&second);
    while let Some(piece) = body_piece(client).await? {
        content.extend_from_slice(&piece);
    }
    Ok(content.freeze())
}
