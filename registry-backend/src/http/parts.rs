//! Parts of an open file as a body, read while they are sent.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use oci::range::ByteRange;
use permits::Permit;

use super::bounds::{PIECE_MIN_BYTES, Pieces};
use super::error::Error;
use super::gate::Gate;
use super::threads::blocking;
use crate::registry::Blob;

/// What a body is made of, in order.
#[derive(Debug)]
pub(super) enum Part {
    /// Bytes at hand.
    Text(Bytes),
    /// A part of the file.
    Range(ByteRange),
}

impl Part {
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Range(range) => range.size_bytes(),
        }
    }
}

/// A piece that is being read, and the room that it takes.
struct Reading(Pin<Box<dyn Future<Output = Read> + Send + Sync>>);

type Read = Result<(Vec<u8>, Option<Permit>), Error>;

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}

/// Parts of a file, and where the reading of them stands. Nothing is read ahead of what the client
/// takes: there may be thousands that take nothing.
#[derive(Debug)]
pub(super) struct Parts {
    blob: Blob,
    rest: VecDeque<Part>,
    pieces: Pieces,
    reading: Option<Reading>,
    gate: Gate,
    /// How much is yet to be sent.
    size_bytes: u64,
}

impl Parts {
    pub(super) fn new(blob: Blob, parts: impl IntoIterator<Item = Part>, pieces: &Pieces) -> Self {
        let rest: VecDeque<Part> = parts.into_iter().collect();
        let size_bytes = rest.iter().map(Part::size_bytes).sum();
        Self {
            blob,
            rest,
            pieces: pieces.clone(),
            reading: None,
            gate: Gate::default(),
            size_bytes,
        }
    }

    /// Returns the open file and the one part of it that this is, where it is that and nothing else.
    pub(super) fn as_file(&self) -> Option<(Blob, ByteRange)> {
        let [Part::Range(range)] = *self.rest.as_slices().0 else {
            return None;
        };
        if self.reading.is_some() {
            return None;
        }
        self.blob.as_file()?;
        Some((self.blob.clone(), range))
    }

    /// Returns the number of bytes that are yet to be sent.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Reads the next piece.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        ready!(self.gate.poll_open(cx));
        if let Some(Part::Text(_)) = self.rest.front()
            && self.reading.is_none()
            && let Some(Part::Text(text)) = self.rest.pop_front()
        {
            self.size_bytes -= text.len() as u64;
            return Poll::Ready(Some(Ok(text)));
        }
        if self.reading.is_none() {
            self.reading = self.read();
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let read = ready!(reading.0.as_mut().poll(cx));
        self.reading = None;
        let piece = match read {
            Ok((piece, room)) => {
                self.size_bytes -= piece.len() as u64;
                Ok(self.gate.let_go(piece, room))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &piece {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "blob could not be read to its end"
            );
        }
        Poll::Ready(Some(piece))
    }

    /// Starts to read the next piece, if one of the file is next.
    fn read(&mut self) -> Option<Reading> {
        let Some(Part::Range(range)) = self.rest.front_mut() else {
            return None;
        };
        let (size_max, mut room) = self.pieces.room();
        let offset = range.first;
        let len = range.size_bytes().min(size_max as u64);
        if len == range.size_bytes() {
            self.rest.pop_front();
        } else {
            range.first += len;
        }
        let len = usize::try_from(len).unwrap_or(0);
        if len <= PIECE_MIN_BYTES {
            room = None;
        }
        let (blob, pieces) = (self.blob.clone(), self.pieces.clone());
        Some(Reading(Box::pin(async move {
            let permit = pieces.to_read().await;
            // Allocated here, for an allocator keeps some of what each thread has had.
            let mut piece = vec![0; len];
            let read = blocking(move || {
                blob.read_at(offset, &mut piece)?;
                drop(permit);
                Ok((piece, room))
            });
            read.await
        })))
    }
}
