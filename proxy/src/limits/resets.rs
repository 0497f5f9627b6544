//! How often the requests of an HTTP/2 connection end by the client's reset.
//!
//! To open streams and reset them at once costs a client next to nothing, and us the beginning of
//! each request; the limit of streams at once does not count them (CVE-2023-44487).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::limits::bucket::Bucket;

/// The time in which so many resets as are allowed are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// The resets of one connection.
#[derive(Debug)]
pub(crate) struct Resets {
    recent: Mutex<Bucket>,
    flooded: Notify,
}

tokio::task_local! {
    /// Whether the client has reset the stream of this task.
    static RESET: AtomicBool;
}

/// Takes down that the client has reset the stream that this task serves.
pub(crate) fn seen() {
    // Over HTTP/1 there is none.
    let _elsewhere = RESET.try_with(|reset| reset.store(true, Ordering::Relaxed));
}

impl Resets {
    /// A connection without any.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            recent: Mutex::new(Bucket::new(Instant::now())),
            flooded: Notify::new(),
        })
    }

    /// Serves a stream of the connection, of which `most` may be reset in a minute; 0 is any number.
    pub(crate) async fn watch<T>(&self, most: u32, stream: impl Future<Output = T>) -> T {
        let watched = RESET.scope(AtomicBool::new(false), async {
            let done = stream.await;
            let reset = RESET.try_with(|reset| reset.load(Ordering::Relaxed));
            (done, reset.unwrap_or_default())
        });
        let (done, reset) = watched.await;
        if reset && most > 0 {
            self.count(f64::from(most), Instant::now());
        }
        done
    }

    fn count(&self, most: f64, now: Instant) {
        let leak = most / FORGET_AFTER.as_secs_f64();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.full_for(now, leak, most).is_zero() {
            recent.add(now, leak, most);
        } else {
            self.flooded.notify_one();
        }
    }

    /// Waits until there were too many.
    pub(crate) async fn too_many(&self) {
        self.flooded.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_may_reset_so_many_streams_and_no_more() {
        let resets = Resets::new();
        for _ in 0..5 {
            assert_eq!(resets.watch(5, async { 1 }).await, 1);
            resets.watch(5, async { seen() }).await;
        }
        let patience = Duration::from_millis(10);
        let early = tokio::time::timeout(patience, resets.too_many()).await;
        assert!(early.is_err());
        resets.watch(5, async { seen() }).await;
        resets.too_many().await;
    }

    #[tokio::test]
    async fn without_a_limit_none_is_counted() {
        let resets = Resets::new();
        for _ in 0..5000 {
            resets.watch(0, async { seen() }).await;
        }
        let patience = Duration::from_millis(10);
        let flooded = tokio::time::timeout(patience, resets.too_many()).await;
        assert!(flooded.is_err());
        // What is not watched is nobody's.
        seen();
    }
}
