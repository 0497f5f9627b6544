//! One half of what is done with the pieces of a body, on a thread of its own.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use permits::Pool;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::Error;
use super::threads::permitted;
use crate::registry;

/// How many full pieces wait while another is hashed or written: with none the reading stops whenever
/// that is a little late, and a core has nothing to do.
const WAITING_MAX: usize = 1;

/// How long a half keeps its thread without a piece: to be woken costs less than to get one again.
const LINGER: Duration = Duration::from_millis(5);

/// How long a half keeps its thread while piece follows piece: others may wait for one.
const TURN_MAX: Duration = Duration::from_millis(100);

/// What a half does with a piece.
type Work<T, P> = fn(&mut T, P) -> Result<(), registry::Error>;

/// Where the pieces come from.
pub(super) trait Source: Send + 'static {
    type Piece: Send + 'static;

    /// Waits for the next piece, if there will be one.
    fn next(&mut self) -> impl Future<Output = Result<Option<Self::Piece>, Error>> + Send;

    /// Returns the next piece, if it is here or will never be.
    fn try_next(&mut self) -> Result<Poll<Option<Self::Piece>>, Error>;

    /// Waits on this thread, for no longer than `time`, until it may be worth another
    /// [try](Self::try_next).
    fn wait(&mut self, time: Duration) -> Result<(), Error>;
}

/// Does the same with one piece after the other. It has a thread only while there are some.
#[derive(Debug)]
pub(super) struct Half<T, P> {
    pieces: mpsc::Sender<P>,
    /// Ends with the last piece, or the first failure.
    task: JoinHandle<Result<T, Error>>,
}

impl<T: Send + 'static, P: Send + 'static> Half<T, P> {
    /// Does `work` with each piece, with a permit of `pool`.
    pub(super) fn new(pool: Pool, half: T, work: Work<T, P>) -> Self {
        let (pieces, waiting) = mpsc::channel(WAITING_MAX);
        Self {
            pieces,
            task: spawn(pool, half, waiting, work),
        }
    }

    /// Returns what gives it pieces, to be dropped before it can have [done](Self::done) everything.
    pub(super) fn inlet(&self) -> mpsc::Sender<P> {
        self.pieces.clone()
    }

    /// Gives it a piece, once not too many wait; returns whether it takes any.
    pub(super) async fn take(&self, piece: P) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// Waits until it has done everything.
    pub(super) async fn done(self) -> Result<T, Error> {
        drop(self.pieces);
        self.task.await.unwrap_or(Err(Error::Panicked))
    }
}

/// Does `work` with what comes from `source`, in a task that ends with it or the first failure.
pub(super) fn spawn<T: Send + 'static, S: Source>(
    pool: Pool,
    half: T,
    source: S,
    work: Work<T, S::Piece>,
) -> JoinHandle<Result<T, Error>> {
    tokio::spawn(work_off(pool, half, source, work))
}

/// Does `work` with one piece after the other, on one thread as long as there soon is a next and others
/// need not wait too long for theirs.
async fn work_off<T: Send + 'static, S: Source>(
    pool: Pool,
    mut half: T,
    mut source: S,
    work: Work<T, S::Piece>,
) -> Result<T, Error> {
    while let Some(first) = source.next().await? {
        let turn = move || Ok(turn(half, source, first, work));
        (half, source) = permitted(&pool, turn).await??;
    }
    Ok(half)
}

/// Works off `first` and what soon follows, for a while; returns what is needed to go on.
fn turn<T, S: Source>(
    mut half: T,
    mut source: S,
    first: S::Piece,
    work: Work<T, S::Piece>,
) -> Result<(T, S), Error> {
    let begun = Instant::now();
    let mut next = Some(first);
    while let Some(piece) = next {
        work(&mut half, piece)?;
        next = match begun.elapsed() < TURN_MAX {
            true => linger(&mut source)?,
            false => None,
        };
    }
    Ok((half, source))
}

/// Waits a little for the next piece.
fn linger<S: Source>(source: &mut S) -> Result<Option<S::Piece>, Error> {
    let until = Instant::now() + LINGER;
    loop {
        if let Poll::Ready(next) = source.try_next()? {
            return Ok(next);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        source.wait(left)?;
    }
}

impl<P: Send + 'static> Source for mpsc::Receiver<P> {
    type Piece = P;

    async fn next(&mut self) -> Result<Option<P>, Error> {
        Ok(self.recv().await)
    }

    fn try_next(&mut self) -> Result<Poll<Option<P>>, Error> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        Ok(self.poll_recv(&mut Context::from_waker(&waker)))
    }

    fn wait(&mut self, time: Duration) -> Result<(), Error> {
        thread::park_timeout(time);
        Ok(())
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_pieces_are_worked_off_in_their_order() {
        let half = Half::new(Pool::new(2), Vec::new(), |seen, piece: u32| {
            seen.push(piece);
            Ok(())
        });
        for number in 1..100 {
            assert!(half.take(number).await);
            if number % 10 == 0 {
                tokio::time::sleep(LINGER * 4).await; // its thread goes
            }
        }
        assert_eq!(half.done().await.unwrap(), (1..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn few_pieces_wait_for_one_that_takes_long() {
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let half = Half::new(Pool::new(2), gate, |gate, _piece: Arc<()>| {
            gate.recv().ok();
            Ok(())
        });
        let given = Arc::new(());
        let mut taken = 0;
        let patience = Duration::from_millis(200);
        while tokio::time::timeout(patience, half.take(Arc::clone(&given)))
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
    async fn a_half_gives_way_though_piece_follows_piece() {
        let one = Pool::new(1);
        let busy = Half::new(one.clone(), (), |(), ()| Ok(()));
        assert!(busy.take(()).await);
        let other = Half::new(one, (), |(), ()| Ok(()));
        assert!(other.take(()).await);
        tokio::select! {
            () = async { while busy.take(()).await {} } => panic!("it takes no more"),
            done = other.done() => done.unwrap(),
            () = tokio::time::sleep(TURN_MAX * 100) => panic!("it has had no turn"),
        }
        busy.done().await.unwrap();
    }

    #[tokio::test]
    async fn after_a_failure_nothing_more_is_taken_and_the_failure_is_told() {
        let half = Half::new(Pool::new(2), (), |(), piece: u32| match piece {
            3 => Err(registry::Error::WouldWait),
            _ => Ok(()),
        });
        let mut number = 1;
        while half.take(number).await {
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
        let half = Half::new(Pool::new(2), (), |(), ()| panic!("a panic on purpose"));
        while half.take(()).await {
            tokio::task::yield_now().await;
        }
        assert!(matches!(half.done().await, Err(Error::Panicked)));
    }
}
