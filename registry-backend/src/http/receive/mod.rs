//! A request body on its way into an upload.
//!
//! What arrives is gathered into pieces. While one is filled, those before it are hashed on one thread
//! and written on another, each at its own pace. There are never more than a few, so memory does not
//! depend on the size of a blob, and a slow disk stops the taking of bytes, and so the client.

use slots::Slot;
use tokio::sync::mpsc;

use super::error::Error;
use super::half::Half;
use super::payload::{Data, Payload};
use super::threads::{HASHES, WRITES, changing};
use crate::registry::{self, Append, Hashing, Piece, Writing};

/// How much of a slot is copied before it is hashed: what fits into a core's first cache.
const BLOCK_BYTES: usize = 16 << 10;

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
                store.take(data).await?;
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

/// Fills one piece while others are stored.
#[derive(Debug)]
struct Store {
    piece: Piece,
    /// How many bytes the upload has before those of the piece.
    size_bytes: u64,
    stage: Stage,
}

/// Where the full pieces go.
#[derive(Debug)]
enum Stage {
    /// There was none yet.
    Before(Append),
    /// To the thread that hashes, and from there to that which writes.
    Apart(Half<Hash, Part>, Half<Writing, Piece>),
    /// Nowhere: one could not be stored.
    Failed,
}

impl Store {
    fn new(append: Append) -> Self {
        let size_bytes = append.size_bytes();
        Self {
            piece: Piece::at(size_bytes),
            size_bytes,
            stage: Stage::Before(append),
        }
    }

    /// Takes in what has arrived; waits when others wait already.
    async fn take(&mut self, data: Data) -> Result<(), Error> {
        let data = match data {
            Data::Slot(slot) if self.piece.is_empty() && matches!(self.stage, Stage::Apart(..)) => {
                return self.pass_on(Part::Slot(slot)).await;
            }
            data => data,
        };
        let mut data = &data[..];
        while !data.is_empty() {
            data = self.piece.fill(data);
            if self.piece.is_full() {
                let piece = std::mem::replace(&mut self.piece, Piece::at(0));
                self.pass_on(Part::Piece(piece)).await?;
            }
        }
        Ok(())
    }

    /// Passes a part on, and begins the next piece.
    async fn pass_on(&mut self, part: Part) -> Result<(), Error> {
        self.size_bytes += part.len() as u64;
        self.piece = Piece::at(self.size_bytes);
        let (hashing, writing) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Before(append) => {
                let (hashing, writing) = append.apart();
                let writing = Half::new(&WRITES, writing, |writing: &mut Writing, piece: Piece| {
                    writing.write(&piece)
                });
                let hash = Hash::new(hashing, writing.inlet());
                (Half::new(&HASHES, hash, Hash::take), writing)
            }
            Stage::Apart(hashing, writing) => (hashing, writing),
            Stage::Failed => return Err(Error::Panicked),
        };
        if hashing.take(part).await {
            self.stage = Stage::Apart(hashing, writing);
            return Ok(());
        }
        joined(hashing, writing).await?;
        Err(Error::Panicked)
    }

    async fn finish(self) -> Result<Received, Error> {
        let append = match self.stage {
            Stage::Before(append) => append,
            Stage::Apart(hashing, writing) => joined(hashing, writing).await?,
            Stage::Failed => return Err(Error::Panicked),
        };
        Ok(Received {
            append,
            rest: self.piece,
        })
    }
}

/// Waits until both halves have done everything.
async fn joined(hashing: Half<Hash, Part>, writing: Half<Writing, Piece>) -> Result<Append, Error> {
    let hashing = match hashing.done().await {
        Ok(hash) => Ok(hash.end().await),
        Err(error) => Err(error),
    };
    // When both have failed, it is this one that has a reason.
    let writing = writing.done().await?;
    Ok(Append::joined(hashing?, writing))
}

/// What is to be hashed, and then written.
#[derive(Debug)]
enum Part {
    /// Bytes that were gathered.
    Piece(Piece),
    /// Bytes where the edge has put them.
    Slot(Slot),
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Piece(piece) => piece.len(),
            Self::Slot(slot) => slot.len(),
        }
    }
}

/// The half that hashes, and passes on what it has hashed.
#[derive(Debug)]
struct Hash {
    hashing: Hashing,
    /// What has come in slots, hashed already.
    piece: Piece,
    writing: mpsc::Sender<Piece>,
}

impl Hash {
    fn new(hashing: Hashing, writing: mpsc::Sender<Piece>) -> Self {
        Self {
            piece: Piece::at(hashing.size_bytes()),
            hashing,
            writing,
        }
    }

    fn take(&mut self, part: Part) -> Result<(), registry::Error> {
        match part {
            Part::Piece(piece) => {
                self.hashing.update(&piece);
                self.piece = Piece::at(self.hashing.size_bytes());
                self.pass_on(piece)
            }
            Part::Slot(slot) => slot
                .chunks(BLOCK_BYTES)
                .try_for_each(|block| self.copy(block)),
        }
    }

    /// Hashes the copy: so it is what is written, whatever the edge does to a slot.
    fn copy(&mut self, mut bytes: &[u8]) -> Result<(), registry::Error> {
        while !bytes.is_empty() {
            let begin = self.piece.len();
            bytes = self.piece.fill(bytes);
            let copied = self.piece.get(begin..).unwrap_or_default();
            self.hashing.update(copied);
            if self.piece.is_full() {
                let next = Piece::at(self.hashing.size_bytes());
                let piece = std::mem::replace(&mut self.piece, next);
                self.pass_on(piece)?;
            }
        }
        Ok(())
    }

    fn pass_on(&self, piece: Piece) -> Result<(), registry::Error> {
        // A half that takes no more has failed, and says why.
        let sent = self.writing.blocking_send(piece);
        sent.map_err(|_failed| registry::Error::WouldWait)
    }

    /// Passes on what is left.
    async fn end(self) -> Hashing {
        if !self.piece.is_empty() {
            self.writing.send(self.piece).await.ok();
        }
        self.hashing
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::threads::BLOCKING_THREADS;

    /// More than have a thread at once.
    const MANY: usize = BLOCKING_THREADS * 2;

    /// Hashes and writes what comes from a client that is faster than the disk.
    async fn body() {
        let writing = Half::new(&WRITES, 0, |written, ()| {
            *written += 1;
            Ok(())
        });
        let hashing = Half::new(&HASHES, writing.inlet(), |inlet, pieces| {
            for () in pieces {
                inlet.blocking_send(()).ok();
            }
            Ok(())
        });
        // More at a time than can wait.
        assert!(hashing.take([(); 8]).await);
        drop(hashing.done().await.unwrap());
        assert_eq!(writing.done().await.unwrap(), 8);
    }

    #[test]
    fn bodies_that_are_hashed_leave_threads_for_what_is_written() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()
            .unwrap();
        let bodies: Vec<_> = (0..MANY).map(|_| runtime.spawn(body())).collect();
        let all = async {
            for body in bodies {
                body.await.unwrap();
            }
        };
        let patience = Duration::from_secs(20);
        let ended = runtime.block_on(async { tokio::time::timeout(patience, all).await });
        runtime.shutdown_background();
        assert!(ended.is_ok(), "each waits for another");
    }
}
