//! What is under way: requests and connections, counted so that a drain knows what it waits for.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts what is under way.
#[derive(Debug)]
pub(crate) struct InFlight(watch::Sender<usize>);

/// One thing under way; dropping it says that it is over.
#[derive(Debug)]
pub(crate) struct Guard(Arc<InFlight>);

impl InFlight {
    /// Counts from zero.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(0)))
    }

    /// Counts one more until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Guard {
        self.0.send_modify(|count| *count += 1);
        Guard(Arc::clone(self))
    }

    /// Returns how many are under way.
    pub(crate) fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until none is.
    pub(crate) async fn none_left(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let mut count = self.0.subscribe();
        drop(count.wait_for(|count| *count == 0).await);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn waiting_ends_when_the_last_one_is_over() {
        let in_flight = InFlight::new();
        in_flight.none_left().await;
        let (first, second) = (in_flight.enter(), in_flight.enter());
        assert_eq!(in_flight.count(), 2);
        let waiting = tokio::spawn({
            let in_flight = Arc::clone(&in_flight);
            async move { in_flight.none_left().await }
        });
        drop(first);
        assert!(!waiting.is_finished());
        drop(second);
        tokio::time::timeout(Duration::from_secs(5), waiting)
            .await
            .unwrap()
            .unwrap();
    }
}
