//! A fair semaphore whose holders can find out that somebody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A number of permits; its clones are the same pool.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    permits: Arc<Semaphore>,
    max: u32,
    /// How many wait for permits.
    waiting: AtomicUsize,
    /// Notified once for each that begins to wait.
    wanted: Notify,
}

/// Some permits of a pool, returned to it on drop.
#[derive(Debug)]
pub struct Permit {
    pool: Pool,
    _permits: OwnedSemaphorePermit,
}

impl Pool {
    /// Makes a pool of `max` permits.
    pub fn new(max: u32) -> Self {
        let permits = usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            max,
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
        }))
    }

    /// Waits for `count` permits; of a smaller pool, for all of them. Who waits longest is next, and
    /// to give up waiting loses nothing.
    pub async fn acquire(&self, count: u32) -> Permit {
        if let Some(permit) = self.try_acquire(count) {
            return permit;
        }
        let _waiting = Waiting::new(&self.0);
        let permits = Arc::clone(&self.0.permits).acquire_many_owned(count.min(self.0.max));
        Permit {
            pool: self.clone(),
            _permits: permits
                .await
                .expect("invariant: the semaphore is never closed"),
        }
    }

    /// Takes `count` permits (of a smaller pool, all of them) if they are there and nobody waits.
    pub fn try_acquire(&self, count: u32) -> Option<Permit> {
        let permits = Arc::clone(&self.0.permits).try_acquire_many_owned(count.min(self.0.max));
        Some(Permit {
            pool: self.clone(),
            _permits: permits.ok()?,
        })
    }

    /// Returns how many permits are there to be taken.
    pub fn available(&self) -> usize {
        self.0.permits.available_permits()
    }

    /// Returns how many wait.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }

    /// Returns whether nobody else has this pool or a permit of it.
    pub(crate) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Permit {
    /// Waits until somebody waits for a permit of the same pool: a holder that has no use for its own
    /// at the moment can give it back then.
    pub async fn wanted(&self) {
        let pool = &self.pool.0;
        loop {
            // One that begins to wait after the look has left a notification behind.
            let notified = pool.wanted.notified();
            if pool.waiting.load(Ordering::SeqCst) > 0 {
                return;
            }
            notified.await;
        }
    }
}

/// Counts one that waits, for as long as it does.
struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn new(pool: &'a Inner) -> Self {
        pool.waiting.fetch_add(1, Ordering::SeqCst);
        pool.wanted.notify_one();
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn who_waits_longest_is_next() {
        let pool = Pool::new(2);
        let both = pool.acquire(2).await;
        let (mut first, mut second) = (pin!(pool.acquire(2)), pin!(pool.acquire(1)));
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        assert_eq!(pool.waiting(), 2);
        drop(both);
        assert!(pool.try_acquire(1).is_none(), "others were first");
        assert!(poll(second.as_mut()).is_pending());
        drop(first.await);
        drop(second.await);
        assert_eq!((pool.waiting(), pool.available()), (0, 2));
    }

    #[tokio::test]
    async fn who_gives_up_waiting_takes_nothing() {
        let pool = Pool::new(1);
        let held = pool.acquire(1).await;
        {
            let mut given_up = pin!(pool.acquire(1));
            assert!(poll(given_up.as_mut()).is_pending());
        }
        assert_eq!(pool.waiting(), 0);
        drop(held);
        assert_eq!(pool.available(), 1);
    }

    #[tokio::test]
    async fn more_than_there_are_is_all_of_them() {
        let pool = Pool::new(3);
        let all = pool.acquire(100).await;
        assert_eq!(pool.available(), 0);
        drop(all);
        assert_eq!(pool.available(), 3);
    }

    #[tokio::test]
    async fn a_holder_hears_that_somebody_waits() {
        let pool = Pool::new(1);
        let held = pool.acquire(1).await;
        let waiting = {
            let mut wanted = pin!(held.wanted());
            assert!(poll(wanted.as_mut()).is_pending());
            let waiting = pool.clone();
            let waiting = tokio::spawn(async move { drop(waiting.acquire(1).await) });
            wanted.await;
            waiting
        };
        held.wanted().await;
        drop(held);
        waiting.await.unwrap();
        // The notification of one that waits no more is none.
        let held = pool.acquire(1).await;
        assert!(poll(pin!(held.wanted())).is_pending());
    }
}
