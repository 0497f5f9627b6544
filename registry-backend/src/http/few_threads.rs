//! A few threads for what takes much memory: pages of lists, and large manifests.
//!
//! What an allocator has freed on a thread it keeps for that thread for a while, some megabytes after
//! such work. Among all the threads that may block, it would be kept for each of them.

use tokio::runtime::{Builder, Runtime};

use super::error::Error;
use super::threads::blocking;
use crate::registry;

/// A few threads.
#[derive(Debug)]
pub(super) struct FewThreads(Option<Runtime>);

impl FewThreads {
    /// Has up to `max` threads of this name, which are started when there is work for them.
    pub(super) fn new(name: &str, max: usize) -> Self {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(max)
            .thread_name(name)
            .build();
        // Without it the threads of others do.
        Self(runtime.ok())
    }

    /// Runs work on one of them.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, registry::Error> + Send + 'static,
    {
        let Some(runtime) = &self.0 else {
            return blocking(work).await;
        };
        match runtime.spawn_blocking(work).await {
            Ok(result) => Ok(result?),
            Err(_panic) => Err(Error::Panicked),
        }
    }
}

impl Drop for FewThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // It may be dropped where nobody may wait.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn work_is_done_on_these_threads_alone() {
        let threads = FewThreads::new("test", 2);
        let mut seen = HashSet::new();
        for _ in 0..20 {
            seen.insert(threads.run(|| Ok(thread::current().id())).await.unwrap());
        }
        assert!(seen.len() <= 2);
        assert!(!seen.contains(&thread::current().id()));
        let panicked = threads.run(|| -> Result<(), _> { panic!("a panic on purpose") });
        assert!(matches!(panicked.await, Err(Error::Panicked)));
    }
}
