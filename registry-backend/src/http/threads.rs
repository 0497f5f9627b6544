//! Threads for what may block: how many there are, and of what there is only so much at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::error::Error;
use crate::registry::{self, Registry, Wait};

const CHANGES_MAX: usize = 64;
const WRITES_MAX: usize = 32;
const HASHES_MAX: usize = 32;

/// What is left for readers, however many pushes wait for a lock or for the disk.
const READERS: usize = 32;

/// How many threads for what blocks the registry's runtime is to have.
pub const BLOCKING_THREADS: usize = CHANGES_MAX + WRITES_MAX + HASHES_MAX + READERS;

/// For changes of storage, which may wait for each other.
static CHANGES: Places = Places::new(CHANGES_MAX);

/// For writing large bodies, which goes on whatever the changes wait for.
pub(super) static WRITES: Places = Places::new(WRITES_MAX);

/// For hashing these bodies meanwhile. A thread that hashes may wait for one that writes: had both
/// their places of the same, all could be taken by those that wait.
pub(super) static HASHES: Places = Places::new(HASHES_MAX);

/// Places for work of one kind.
#[derive(Debug)]
pub(super) struct Places(Semaphore);

impl Places {
    pub(super) const fn new(max: usize) -> Self {
        Self(Semaphore::const_new(max))
    }

    /// Runs work on a thread that may block, once there is a place for it; who waits longest is next.
    pub(super) async fn run<T, F>(&'static self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, registry::Error> + Send + 'static,
    {
        let place = self
            .0
            .acquire()
            .await
            .expect("invariant: the semaphore is never closed");
        let work = move || {
            let result = work();
            drop(place);
            result
        };
        blocking(work).await
    }
}

/// Runs work that changes storage, or waits for others who do, on a thread that may block, once there
/// is one for it.
pub(super) async fn changing<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, registry::Error> + Send + 'static,
{
    CHANGES.run(work).await
}

/// Runs work that reads a little of storage: here, if all is at hand, else on a thread that may
/// block.
pub(super) async fn reading<T, F>(registry: &Arc<Registry>, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: Fn(&Registry, Wait) -> Result<T, registry::Error> + Send + 'static,
{
    match work(registry, Wait::Never) {
        Err(registry::Error::WouldWait) => {
            let registry = Arc::clone(registry);
            blocking(move || work(&registry, Wait::AsNeeded)).await
        }
        answer => Ok(answer?),
    }
}

/// Runs work on a thread that may block; work that changes storage goes by [`changing`].
pub(super) async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, registry::Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_panic) => Err(Error::Panicked),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn reading_goes_on_while_every_change_waits() {
        let gate = Arc::new(tokio::sync::Mutex::new(()));
        let closed = gate.lock().await;
        let changes: Vec<_> = (0..600)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(changing(move || {
                    drop(gate.blocking_lock());
                    Ok(())
                }))
            })
            .collect();
        while CHANGES.0.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let read = tokio::time::timeout(Duration::from_secs(20), blocking(|| Ok(7))).await;
        assert_eq!(read.unwrap().unwrap(), 7);
        drop(closed);
        for change in changes {
            change.await.unwrap().unwrap();
        }
    }
}
