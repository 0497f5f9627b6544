//! A request body on its way into an upload.
//!
//! What arrives is gathered into a piece. When one is full, it and those that follow are hashed on one
//! thread and written on another, each at its own pace; what comes in slots the thread that hashes
//! takes itself. There are never more than a few, so memory does not depend on the size of a blob, and
//! a slow disk stops the taking of bytes, and so the client.

mod gather;
mod hash;
mod in_slots;

use oci::RepositoryName;

use self::gather::Gather;
use self::hash::{Hash, Part};
use self::in_slots::InSlots;
use super::error::Error;
use super::half::{self, Half};
use super::payload::{Lent, Payload};
use super::permits::Permits;
use super::router::Call;
use super::threads::going_on;
use crate::registry::{Append, Piece, Writing};

/// A body that is all there: written but for the last piece, which is for the caller to write
/// together with what comes next, on one thread.
#[derive(Debug)]
pub(super) struct Received {
    /// The upload.
    pub(super) append: Append,
    /// The last piece.
    pub(super) rest: Piece,
}

/// What became of a large body: what it was added to, and how it ended.
type Stored = (Append, Result<(), Error>);

/// Receives a body of `announced` bytes, if that is known. A body of another length leaves the
/// upload as it was; of one that was cut all that came is kept, for the client to go on from there.
pub(super) async fn receive(
    call: &Call<'_>,
    repository: &RepositoryName,
    payload: &mut Payload,
    append: Append,
    announced: Option<u64>,
) -> Result<Received, Error> {
    let mark = append.mark();
    let begin = append.size_bytes();
    let mut gather = Gather::new(begin, announced);
    let (mut append, ended) = match gather.next(payload).await {
        Ok(Some(full)) => match payload.lend() {
            Some(lent) => in_slots(call.permits, lent, &mut gather, full, append).await?,
            None => over_socket(call.permits, payload, &mut gather, full, append).await?,
        },
        ended => (append, ended.map(drop)),
    };
    let actual = gather.size_bytes() - begin;
    let rest = gather.into_rest();
    if let Err(cut) = ended {
        going_on(call, repository, move || append.write(&rest)).await?;
        return Err(cut);
    }
    match announced {
        Some(announced) if announced != actual => {
            going_on(call, repository, move || append.go_back(mark)).await?;
            Err(Error::LengthMismatch { announced, actual })
        }
        _ => Ok(Received { append, rest }),
    }
}

/// Stores `full` and the pieces that are gathered after it.
async fn over_socket(
    permits: &Permits,
    payload: &mut Payload,
    gather: &mut Gather,
    full: Piece,
    append: Append,
) -> Result<Stored, Error> {
    let (hash, writing) = apart(permits, append);
    let hashing = Half::new(permits.hashes.clone(), hash, Hash::take);
    let mut next = Ok(Some(full));
    while let Ok(Some(piece)) = next {
        if !hashing.take(Part::Piece(piece)).await {
            joined(hashing.done().await, writing).await?;
            return Err(Error::Panicked);
        }
        next = gather.next(payload).await;
    }
    let append = joined(hashing.done().await, writing).await?;
    Ok((append, next.map(drop)))
}

/// Stores `full`, what else was gathered, and what comes in slots after it.
async fn in_slots(
    permits: &Permits,
    mut lent: Lent<'_>,
    gather: &mut Gather,
    full: Piece,
    append: Append,
) -> Result<Stored, Error> {
    let (hash, writing) = apart(permits, append);
    let receiver = lent.receiver();
    let source = InSlots::new(gather.take(full), receiver.clone(), gather.left());
    let mut hashing = half::spawn(permits.hashes.clone(), hash, source, Hash::take);
    let (hash, ended) = tokio::select! {
        biased;
        ended = lent.end() => {
            if let Err(error) = receiver.tell_end() {
                hashing.abort();
                return Err(Error::Slots(error));
            }
            (hashing.await, Some(ended))
        }
        hash = &mut hashing => (hash, None),
    };
    let hash = hash.unwrap_or(Err(Error::Panicked));
    if let Ok(hash) = &hash {
        gather.went_on(hash.size_bytes());
    }
    let append = joined(hash, writing).await?;
    let ended = match ended {
        // It was not taken to its end, however that came.
        _ if gather.is_too_much() => Ok(()),
        Some(ended) => ended.inspect(|()| lent.all_taken()),
        // Who sends slots is gone, and with it most likely the connection: how the body has ended, it
        // says.
        None => lent.end().await.inspect(|()| lent.all_taken()),
    };
    Ok((append, ended))
}

/// Takes an upload apart into what hashes and what writes what was hashed.
fn apart(permits: &Permits, append: Append) -> (Hash, Half<Writing, Piece>) {
    let (hashing, writing) = append.apart();
    let write = |writing: &mut Writing, piece: Piece| writing.write(&piece);
    let writing = Half::new(permits.writes.clone(), writing, write);
    (Hash::new(hashing, writing.inlet()), writing)
}

/// Puts it together again, once both have done everything.
async fn joined(hash: Result<Hash, Error>, writing: Half<Writing, Piece>) -> Result<Append, Error> {
    let hashing = match hash {
        Ok(hash) => Ok(hash.end().await),
        Err(error) => Err(error),
    };
    // When both have failed, it is this one that has a reason.
    let writing = writing.done().await?;
    Ok(Append::joined(hashing?, writing))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::http::permits::blocking_threads;

    /// Hashes and writes what comes from a client that is faster than the disk.
    async fn body(permits: Arc<Permits>) {
        let writing = Half::new(permits.writes.clone(), 0, |written, ()| {
            *written += 1;
            Ok(())
        });
        let hashing = Half::new(permits.hashes.clone(), writing.inlet(), |inlet, pieces| {
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
        let threads = blocking_threads(1);
        let permits = Arc::new(Permits::new());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(threads)
            .enable_all()
            .build()
            .unwrap();
        // More than have a thread at once.
        let bodies: Vec<_> = (0..threads * 2)
            .map(|_| runtime.spawn(body(Arc::clone(&permits))))
            .collect();
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
