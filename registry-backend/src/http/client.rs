//! Whether somebody still waits for the answer to a request.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::error::Error;

/// Says, when it is dropped, that nobody waits any more.
#[derive(Debug)]
pub(super) struct Presence(Arc<Semaphore>);

/// The client of a request.
#[derive(Clone, Debug)]
pub(super) struct Client(Arc<Semaphore>);

impl Client {
    /// Returns a client that waits, and what says when it no longer does.
    pub(super) fn new() -> (Self, Presence) {
        // It never has a permit: all that can happen to it is to be closed.
        let semaphore = Arc::new(Semaphore::new(0));
        (Self(Arc::clone(&semaphore)), Presence(semaphore))
    }

    /// Waits for something as long as the client waits for the answer.
    ///
    /// # Errors
    /// [`Error::ClientGone`].
    pub(super) async fn unless_gone<T>(&self, wait: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            answer = wait => Ok(answer),
            _closed = self.0.acquire() => Err(Error::ClientGone),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_the_one_who_waits() {
        let (client, presence) = Client::new();
        assert_eq!(client.unless_gone(ready(1)).await.unwrap(), 1);
        let waiting = client.unless_gone(pending::<()>());
        let gone = async { drop(presence) };
        let (waited, ()) = tokio::join!(waiting, gone);
        assert!(matches!(waited, Err(Error::ClientGone)));
        let again = client.unless_gone(pending::<()>()).await;
        assert!(matches!(again, Err(Error::ClientGone)));
    }
}
