//! A request body on its way into an upload.
//!
//! What arrives is gathered into chunks, and while one chunk is hashed and written on a blocking
//! thread the next is filled. There are never more than these two, so memory does not depend on the
//! size of a blob, and a slow disk stops the reading of the socket, and so the client.

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::error::Error;
use super::payload::Payload;
use super::{begin_change, changing};
use crate::registry::{self, Append};

/// Large enough that handing a chunk over costs nothing beside hashing it, small enough for
/// hundreds of uploads at once.
const CHUNK_BYTES: usize = 512 << 10;

/// A chunk is also full with so many parts: each costs memory of its own, however small it is.
const CHUNK_PARTS: usize = 1024;

/// A body that is all there: written but for the last chunk, which is for the caller to write
/// together with what comes next, on one thread.
#[derive(Debug)]
pub(super) struct Received {
    /// The upload.
    pub(super) append: Append,
    /// The last chunk.
    pub(super) rest: Vec<Bytes>,
}

/// Receives a body of `announced` bytes, if that is known. A body of another length leaves the
/// upload as it was; of one that was cut all that came is kept, for the client to go on from there.
pub(super) async fn receive(
    payload: &mut Payload,
    append: Append,
    announced: Option<u64>,
) -> Result<Received, Error> {
    let mark = append.mark();
    let mut writer = Writer::new(append);
    let mut actual = 0;
    let cut = loop {
        match payload.next().await {
            Ok(Some(data)) => {
                actual += data.len() as u64;
                if announced.is_some_and(|announced| actual > announced) {
                    break None;
                }
                writer.take(data).await?;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let Received { mut append, rest } = writer.finish().await?;
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

/// Fills one chunk while the last one is written.
#[derive(Debug)]
struct Writer {
    /// The upload, while no chunk of it is being written.
    idle: Option<Append>,
    /// The chunk that is being written.
    writing: Option<JoinHandle<Result<Append, registry::Error>>>,
    chunk: Vec<Bytes>,
    chunk_bytes: usize,
}

impl Writer {
    fn new(append: Append) -> Self {
        Self {
            idle: Some(append),
            writing: None,
            chunk: Vec::new(),
            chunk_bytes: 0,
        }
    }

    /// Takes in what has arrived; waits for the last chunk when this one is full.
    async fn take(&mut self, data: Bytes) -> Result<(), Error> {
        self.chunk_bytes += data.len();
        self.chunk.push(data);
        if self.chunk_bytes >= CHUNK_BYTES || self.chunk.len() >= CHUNK_PARTS {
            let mut append = self.idle().await?;
            let chunk = std::mem::take(&mut self.chunk);
            self.chunk_bytes = 0;
            let write = begin_change(move || {
                append.write(&chunk)?;
                Ok(append)
            });
            self.writing = Some(write.await);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Received, Error> {
        let append = self.idle().await?;
        Ok(Received {
            append,
            rest: self.chunk,
        })
    }

    async fn idle(&mut self) -> Result<Append, Error> {
        if let Some(writing) = self.writing.take() {
            return match writing.await {
                Ok(result) => Ok(result?),
                Err(_panic) => Err(Error::Panicked),
            };
        }
        self.idle.take().ok_or(Error::Panicked)
    }
}
