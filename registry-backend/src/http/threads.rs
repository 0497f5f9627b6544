//! Threads for what may block: how much of what can have one at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::error::Error;
use crate::registry::{self, Registry, Wait};

/// How many changes of storage can be under way at once: half of the threads that tokio has for what
/// blocks, so that readers find one however many pushes wait for a lock or for the disk.
const CHANGES_MAX: usize = 256;

static CHANGES: Semaphore = Semaphore::const_new(CHANGES_MAX);

/// Runs work that changes storage, or waits for others who do, on a thread that may block, once there
/// is one for it.
pub(super) async fn changing<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, registry::Error> + Send + 'static,
{
    let permit = CHANGES
        .acquire()
        .await
        .expect("invariant: the semaphore is never closed");
    let work = move || {
        let result = work();
        drop(permit);
        result
    };
    blocking(work).await
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
        while CHANGES.available_permits() > 0 {
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
