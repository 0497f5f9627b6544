//! A pool of which each key has a part at most.

use std::hash::Hash;

use crate::{Keyed, Permit, Pool};

/// Permits for all, of which each key has so many at most.
#[derive(Debug)]
pub struct Shares<K> {
    of_one: Keyed<K>,
    max_of_one: u32,
    of_all: Pool,
}

/// Permits of a key's part and of the whole, returned to both on drop.
#[derive(Debug)]
pub struct Share {
    pools: [Pool; 2],
    _permits: [Permit; 2],
}

impl<K: Eq + Hash> Shares<K> {
    /// Makes a pool of `max` permits, of which each key has no more than `max_of_one`.
    pub fn new(max: u32, max_of_one: u32) -> Self {
        Self {
            of_one: Keyed::new(max_of_one),
            max_of_one,
            of_all: Pool::new(max),
        }
    }

    /// Waits for `count` permits for `key`; whoever asks for more than one key can have gets all of
    /// those.
    pub async fn acquire(&self, key: K, count: u32) -> Share {
        let count = count.min(self.max_of_one);
        let of_one = self.of_one.pool(key);
        let first = of_one.acquire(count).await;
        let second = self.of_all.acquire(count).await;
        Share {
            pools: [of_one, self.of_all.clone()],
            _permits: [first, second],
        }
    }

    /// Returns how many wait: for permits of their key's, or of the whole.
    pub fn waiting(&self) -> usize {
        self.of_one.waiting() + self.of_all.waiting()
    }

    /// Returns how many permits are there to be taken, by all keys together.
    pub fn available(&self) -> usize {
        self.of_all.available()
    }
}

impl Share {
    /// Returns whether somebody waits for permits like these.
    pub fn is_wanted(&self) -> bool {
        self.pools.iter().any(|pool| pool.waiting() > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_waiting(future: Pin<&mut impl Future>) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        future.poll(cx).is_pending()
    }

    #[tokio::test]
    async fn one_never_takes_what_is_left_for_the_others() {
        let shares = Shares::new(4, 2);
        let first = shares.acquire("a", 1).await;
        let second = shares.acquire("a", 1).await;
        let third = shares.acquire("a", 1);
        tokio::pin!(third);
        assert!(is_waiting(third.as_mut()), "a has all of its own");
        let other = shares.acquire("b", 9).await;
        assert!(first.is_wanted() && !other.is_wanted());
        let waiting = shares.acquire("c", 1);
        tokio::pin!(waiting);
        assert!(is_waiting(waiting.as_mut()), "all are taken");
        assert!(other.is_wanted());
        assert_eq!(shares.waiting(), 2);
        drop(second);
        drop(waiting.await);
        drop(third.await);
        assert!(!other.is_wanted());
        assert_eq!(shares.available(), 1);
    }
}
