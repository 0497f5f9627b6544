//! What the edge asks a registry for itself ([`oci::inquiry`]), on a connection of its own.

use std::io;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{Method, StatusCode};
use oci::inquiry::{EDGE, HEADER, PATIENCE};
use pingora::http::RequestHeader;
use tokio::time::timeout;

use super::wire::Wire;
use crate::upstream::Socket;

/// A page of figures is a tenth of it.
const ANSWER_BYTES_MAX: usize = 512 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("its answer breaks off")]
    Broken(#[from] Box<pingora::Error>),
    #[error("does not answer within {PATIENCE:?}")]
    Silent,
    #[error("its answer is too long")]
    TooLong,
    #[error("cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
}

/// Asks a registry, and waits for a second at most.
pub(crate) async fn ask(socket: &Socket, path: &str) -> Result<(StatusCode, Bytes), Unanswered> {
    let asked = timeout(PATIENCE, ask_at_leisure(socket, path)).await;
    asked.unwrap_or(Err(Unanswered::Silent))
}

async fn ask_at_leisure(socket: &Socket, path: &str) -> Result<(StatusCode, Bytes), Unanswered> {
    let wire = Wire::connect(&socket.path, PATIENCE).await?;
    wire.ask_for_files(0);
    let mut client = wire.client(PATIENCE);
    let mut head = RequestHeader::build(Method::GET, path.as_bytes(), Some(2))?;
    head.insert_header(HOST, "registry")?;
    head.insert_header(HEADER, EDGE)?;
    client.write_request_header(Box::new(head)).await?;
    client.read_response().await?;
    let status = client.resp_header().map(|head| head.status);
    let mut answer = BytesMut::new();
    while let Some(piece) = client.read_body_bytes().await? {
        answer.extend_from_slice(&piece);
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(Unanswered::TooLong);
        }
    }
    Ok((status.unwrap_or_default(), answer.freeze()))
}
