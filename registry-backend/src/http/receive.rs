//! A request body on its way into an upload.
//!
//! What arrives is gathered into pieces, and while one piece is hashed on one thread and written on
//! another, the next is filled. There are never more than these two, so memory does not depend on
//! the size of a blob, and a slow disk stops the reading of the socket, and so the client.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::error::Error;
use super::payload::Payload;
use super::{begin_change, changing};
use crate::registry::{self, Append, Hashing, Piece, Writing};

/// A body that is all there: written but for the last piece, which is for the caller to write
/// together with what comes next, on one thread.
#[derive(Debug)]
pub(super) struct Received {
    /// The upload.
    pub(super) append: Append,
    /// The last piece.
    pub(super) rest: Piece,
}

/// Receives a body of `announced` bytes, if that is known. A body of another length leaves the
/// upload as it was; of one that was cut all that came is kept, for the client to go on from there.
pub(super) async fn receive(
    payload: &mut Payload,
    append: Append,
    announced: Option<u64>,
) -> Result<Received, Error> {
    let mark = append.mark();
    let mut store = Store::new(append);
    let mut actual = 0;
    let cut = loop {
        match payload.next().await {
            Ok(Some(data)) => {
                actual += data.len() as u64;
                if announced.is_some_and(|announced| actual > announced) {
                    break None;
                }
                store.take(&data).await?;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let Received { mut append, rest } = store.finish().await?;
    if let Some(cut) = cut {
        changing(move || append.write(&rest)).await?;
        return Err(cut);
    }
    match announced {
        Some(announced) if announced != actual => {
            changing(move || append.go_back(mark)).await?;
            Err(Error::LengthMismatch { announced, actual })
        }
        _ => Ok(Received { append, rest }),
    }
}

/// Fills one piece while the last one is stored.
#[derive(Debug)]
struct Store {
    piece: Piece,
    last: Last,
}

/// What is done with the last piece.
#[derive(Debug)]
enum Last {
    /// Nothing: it is stored, if there was one.
    Stored(Append),
    /// It is hashed on one thread and written on another.
    UnderWay(
        JoinHandle<Hashing>,
        JoinHandle<Result<Writing, registry::Error>>,
    ),
    /// It could not be stored.
    Failed,
}

impl Store {
    fn new(append: Append) -> Self {
        Self {
            piece: Piece::at(append.size_bytes()),
            last: Last::Stored(append),
        }
    }

    /// Takes in what has arrived; waits for the last piece when this one is full.
    async fn take(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            data = self.piece.fill(data);
            if self.piece.is_full() {
                self.begin_piece().await?;
            }
        }
        Ok(())
    }

    async fn begin_piece(&mut self) -> Result<(), Error> {
        let append = self.stored().await?;
        let next = append.size_bytes() + self.piece.len() as u64;
        let piece = Arc::new(std::mem::replace(&mut self.piece, Piece::at(next)));
        let (mut hashing, mut writing) = append.apart();
        let to_hash = Arc::clone(&piece);
        let hash = tokio::task::spawn_blocking(move || {
            hashing.update(&to_hash);
            hashing
        });
        let write = begin_change(move || {
            writing.write(&piece)?;
            Ok(writing)
        });
        self.last = Last::UnderWay(hash, write.await);
        Ok(())
    }

    async fn finish(mut self) -> Result<Received, Error> {
        let append = self.stored().await?;
        Ok(Received {
            append,
            rest: self.piece,
        })
    }

    /// Waits for the last piece to be stored.
    async fn stored(&mut self) -> Result<Append, Error> {
        match std::mem::replace(&mut self.last, Last::Failed) {
            Last::Stored(append) => Ok(append),
            Last::UnderWay(hash, write) => match (hash.await, write.await) {
                (Ok(hashing), Ok(writing)) => Ok(Append::joined(hashing, writing?)),
                _panic => Err(Error::Panicked),
            },
            Last::Failed => Err(Error::Panicked),
        }
    }
}
