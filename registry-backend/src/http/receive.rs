//! A request body on its way into an upload.
//!
//! What arrives is gathered into pieces. While one is filled, those before it are hashed on one thread
//! and written on another, neither of which waits for the other. There are never more than a few, so
//! memory does not depend on the size of a blob, and a slow disk stops the reading of the socket, and
//! so the client.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::changing;
use super::error::Error;
use super::payload::Payload;
use crate::registry::{self, Append, Hashing, Piece, Writing};

/// How many full pieces wait while another is hashed or written: with none the reading stops whenever
/// that is a little late, and a core has nothing to do.
const WAITING_MAX: usize = 1;

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
    /// To the thread that hashes and to that which writes.
    Apart(Half<Hashing>, Half<Writing>),
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

    /// Takes in what has arrived; waits when the piece is full and others wait already.
    async fn take(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            data = self.piece.fill(data);
            if self.piece.is_full() {
                self.pass_on().await?;
            }
        }
        Ok(())
    }

    /// Passes the full piece on, and begins the next.
    async fn pass_on(&mut self) -> Result<(), Error> {
        self.size_bytes += self.piece.len() as u64;
        let next = Piece::at(self.size_bytes);
        let piece = Arc::new(std::mem::replace(&mut self.piece, next));
        let (hashing, writing) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Before(append) => {
                let (hashing, writing) = append.apart();
                let hashing = Half::new(hashing, |hashing, piece| {
                    hashing.update(piece);
                    Ok(())
                });
                (hashing, Half::new(writing, Writing::write))
            }
            Stage::Apart(hashing, writing) => (hashing, writing),
            Stage::Failed => return Err(Error::Panicked),
        };
        if hashing.take(&piece).await && writing.take(&piece).await {
            self.stage = Stage::Apart(hashing, writing);
            return Ok(());
        }
        drop(piece);
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
async fn joined(hashing: Half<Hashing>, writing: Half<Writing>) -> Result<Append, Error> {
    let (hashing, writing) = (hashing.done().await?, writing.done().await?);
    Ok(Append::joined(hashing, writing))
}

/// What a half does with a piece.
type Work<T> = fn(&mut T, &[u8]) -> Result<(), registry::Error>;

/// One half of what is done with pieces, in their order. It has a thread only while there are some.
#[derive(Debug)]
struct Half<T> {
    pieces: mpsc::Sender<Arc<Piece>>,
    /// Ends with the last piece, or the first failure.
    task: JoinHandle<Result<T, Error>>,
}

impl<T: Send + 'static> Half<T> {
    fn new(half: T, work: Work<T>) -> Self {
        let (pieces, waiting) = mpsc::channel(WAITING_MAX);
        Self {
            pieces,
            task: tokio::spawn(work_off(half, waiting, work)),
        }
    }

    /// Gives it a piece, once not too many wait; returns whether it takes any.
    async fn take(&self, piece: &Arc<Piece>) -> bool {
        self.pieces.send(Arc::clone(piece)).await.is_ok()
    }

    /// Waits until it has done everything.
    async fn done(self) -> Result<T, Error> {
        drop(self.pieces);
        self.task.await.unwrap_or(Err(Error::Panicked))
    }
}

/// Does `work` with one piece after the other, on one thread as long as there is a next.
async fn work_off<T: Send + 'static>(
    mut half: T,
    mut waiting: mpsc::Receiver<Arc<Piece>>,
    work: Work<T>,
) -> Result<T, Error> {
    while let Some(first) = waiting.recv().await {
        let turn = move || {
            let mut next = Ok(first);
            while let Ok(piece) = next {
                work(&mut half, &piece)?;
                drop(piece);
                next = waiting.try_recv();
            }
            Ok((half, waiting))
        };
        (half, waiting) = changing(turn).await?;
    }
    Ok(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(number: usize) -> Arc<Piece> {
        let mut piece = Piece::at(0);
        assert!(piece.fill(&vec![7; number]).is_empty());
        Arc::new(piece)
    }

    #[tokio::test]
    async fn all_pieces_are_worked_off_in_their_order() {
        let half = Half::new(Vec::new(), |lengths, piece| {
            lengths.push(piece.len());
            Ok(())
        });
        for number in 1..100 {
            assert!(half.take(&piece(number)).await);
            if number % 10 == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await; // its thread goes
            }
        }
        assert_eq!(half.done().await.unwrap(), (1..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn few_pieces_wait_for_one_that_takes_long() {
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let half = Half::new(gate, |gate, _piece| {
            gate.recv().ok();
            Ok(())
        });
        let given = piece(1);
        let mut taken = 0;
        let patience = std::time::Duration::from_millis(200);
        while tokio::time::timeout(patience, half.take(&given))
            .await
            .is_ok()
        {
            taken += 1;
        }
        assert_eq!(taken, 1 + WAITING_MAX);
        drop(open);
        half.done().await.unwrap();
        assert_eq!(Arc::strong_count(&given), 1, "a piece is kept for nothing");
    }

    #[tokio::test]
    async fn after_a_failure_nothing_more_is_taken_and_the_failure_is_told() {
        let half = Half::new(0, |done, piece| {
            *done += 1;
            match piece.len() {
                3 => Err(registry::Error::WouldWait),
                _ => Ok(()),
            }
        });
        let mut number = 1;
        while half.take(&piece(number)).await {
            number += 1;
            tokio::task::yield_now().await;
            assert!(number < 1_000_000, "it takes whatever comes");
        }
        assert!(number > 3);
        let told = half.done().await;
        let is_told = matches!(told, Err(Error::Registry(registry::Error::WouldWait)));
        assert!(is_told, "{told:?}");
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let half = Half::new((), |(), _piece| panic!("a panic on purpose"));
        while half.take(&piece(1)).await {
            tokio::task::yield_now().await;
        }
        assert!(matches!(half.done().await, Err(Error::Panicked)));
    }
}
