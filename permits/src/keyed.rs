//! A pool for each key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use crate::{Permit, Pool};

/// With fewer pools than this none is looked for that could go.
const KEPT_MIN: usize = 64;

/// Pools of equal size, one for each key that somebody asks for.
#[derive(Debug)]
pub struct Keyed<K> {
    max: u32,
    pools: Mutex<Pools<K>>,
}

#[derive(Debug)]
struct Pools<K> {
    by_key: HashMap<K, Pool>,
    /// With so many, those that nobody uses are removed.
    sweep_at: usize,
}

impl<K: Eq + Hash> Keyed<K> {
    /// Makes pools of `max` permits.
    pub fn new(max: u32) -> Self {
        Self {
            max,
            pools: Mutex::new(Pools {
                by_key: HashMap::new(),
                sweep_at: KEPT_MIN,
            }),
        }
    }

    /// Returns the pool of `key`. It is the same one for everybody as long as anybody has it or a
    /// permit of it; memory is bounded by twice as many as that.
    pub fn pool(&self, key: K) -> Pool {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.by_key.len() >= pools.sweep_at {
            pools.by_key.retain(|_, pool| !pool.is_idle());
            pools.sweep_at = (pools.by_key.len() * 2).max(KEPT_MIN);
        }
        let pool = pools.by_key.entry(key);
        pool.or_insert_with(|| Pool::new(self.max)).clone()
    }

    /// Returns how many wait, for all pools together.
    pub fn waiting(&self) -> usize {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.by_key.values().map(Pool::waiting).sum()
    }

    /// Waits for `count` permits of `key`'s pool, as [`Pool::acquire`] does.
    pub async fn acquire(&self, key: K, count: u32) -> Permit {
        self.pool(key).acquire(count).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_key_has_its_own() {
        let keyed = Keyed::new(1);
        let held = keyed.acquire("a", 1).await;
        assert!(keyed.pool("a").try_acquire(1).is_none());
        assert!(keyed.pool("b").try_acquire(1).is_some());
        drop(held);
        assert!(keyed.pool("a").try_acquire(1).is_some());
    }

    #[tokio::test]
    async fn what_nobody_uses_is_forgotten_and_what_is_used_is_not() {
        let keyed = Keyed::new(1);
        let _held = keyed.acquire(0, 1).await;
        for key in 1..10_000 {
            drop(keyed.acquire(key, 1).await);
            assert!(keyed.pools.lock().unwrap().by_key.len() <= KEPT_MIN + 1);
        }
        assert!(keyed.pool(0).try_acquire(1).is_none(), "it is held");
    }
}
