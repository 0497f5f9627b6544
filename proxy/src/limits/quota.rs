//! How many requests a site takes: each second and at once, from everyone, from each address, from
//! each user.
//!
//! The counts are kept by the site's name, so a reload changes what is allowed and forgets nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::auth::Origin;
use crate::config::{Quota, Quotas};
use crate::filter::Refused;
use crate::limits::bucket::Bucket;
use crate::limits::neighbours::neighbours;
use crate::respond::Rejection;
use crate::site::Site;

/// How many addresses and users are remembered: of a flood, those that ask most.
const REMEMBERED_MAX: u64 = 65_536;

/// After this time without a request, what was asked before is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(60 * 60);

/// When to come back to a place that becomes free nobody knows when.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Who a quota is for.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum Subject<'a> {
    /// Everyone together.
    Everyone,
    Address(IpAddr),
    /// By how the name was proven, and the name: namesakes of different kinds share nothing.
    Principal(Origin, &'a str),
}

/// What all have had of late.
#[derive(Debug)]
pub(crate) struct Ledger {
    rates: Cache<u64, Arc<Mutex<Bucket>>>,
    /// Requests under way, of those that are counted.
    under_way: Arc<Mutex<HashMap<u64, u32>>>,
    /// Keyed at random, so that nobody can make two names collide.
    hasher: RandomState,
}

/// A place among the requests under way, free again when dropped, however the request ended.
#[derive(Debug)]
pub(crate) struct Place {
    under_way: Arc<Mutex<HashMap<u64, u32>>>,
    key: u64,
}

/// What a quota ran out of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Exhausted {
    limit: &'static str,
    retry_after: Duration,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            rates: Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_idle(FORGET_AFTER)
                .build(),
            under_way: Arc::default(),
            hasher: RandomState::new(),
        }
    }
}

impl Ledger {
    /// Lets a request of `subject` in to `site`, as long as what is returned is kept, or says that
    /// it has to wait.
    pub(crate) fn enter(
        &self,
        site: &Site,
        subject: Subject<'_>,
    ) -> Result<Option<Place>, Refused> {
        let quota = subject.quota(&site.quotas);
        if quota.rate.is_none() && quota.concurrent.is_none() {
            return Ok(None);
        }
        let subject = subject.of_client();
        let key = self.key(&site.name, subject);
        self.count(quota, key, Instant::now()).map_err(|exhausted| {
            let Exhausted { limit, retry_after } = exhausted;
            let rejection = match subject {
                Subject::Everyone => Rejection::Overloaded { retry_after },
                Subject::Address(_) | Subject::Principal(..) => {
                    Rejection::TooManyRequests { retry_after }
                }
            };
            rejection.because(format!("{}.{}.{limit}", site.quotas.key, subject.name()))
        })
    }

    fn key(&self, site: &str, subject: Subject<'_>) -> u64 {
        self.hasher.hash_one((site, subject))
    }

    fn count(&self, quota: Quota, key: u64, now: Instant) -> Result<Option<Place>, Exhausted> {
        let place = quota
            .concurrent
            .map(|most| Place::take(&self.under_way, key, most.get()))
            .transpose()?;
        if let Some(rate) = quota.rate {
            let (leak, size) = (f64::from(rate.get()), f64::from(quota.burst));
            let open = || Arc::new(Mutex::new(Bucket::new(now)));
            let bucket = self.rates.get_with(key, open);
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            let retry_after = bucket.full_for(now, leak, size);
            if !retry_after.is_zero() {
                return Err(Exhausted {
                    limit: "rate",
                    retry_after,
                });
            }
            bucket.add(now, leak, size);
        }
        Ok(place)
    }
}

impl Subject<'_> {
    fn quota(self, quotas: &Quotas) -> Quota {
        match self {
            Self::Everyone => quotas.site,
            Self::Address(_) => quotas.address,
            Self::Principal(..) => quotas.principal,
        }
    }

    fn of_client(self) -> Self {
        match self {
            Self::Address(address) => Self::Address(neighbours(address)),
            Self::Everyone | Self::Principal(..) => self,
        }
    }

    /// Returns the name of its table.
    fn name(self) -> &'static str {
        match self {
            Self::Everyone => "site",
            Self::Address(_) => "address",
            Self::Principal(..) => "principal",
        }
    }
}

impl Place {
    fn take(
        under_way: &Arc<Mutex<HashMap<u64, u32>>>,
        key: u64,
        most: u32,
    ) -> Result<Self, Exhausted> {
        let mut counts = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.get(&key).copied().unwrap_or_default();
        if own >= most {
            return Err(Exhausted {
                limit: "concurrent",
                retry_after: RETRY_AFTER,
            });
        }
        counts.insert(key, own + 1);
        Ok(Self {
            under_way: Arc::clone(under_way),
            key,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut own) = counts.entry(self.key) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;

    fn quota(rate: u32, burst: u32, concurrent: u32) -> Quota {
        Quota {
            rate: NonZero::new(rate),
            burst,
            concurrent: NonZero::new(concurrent),
        }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let ledger = Ledger::default();
        let begin = Instant::now();
        let quota = quota(10, 5, 0);
        let passes = |now| ledger.count(quota, 1, now).is_ok();
        assert_eq!((0..8).filter(|_| passes(begin)).count(), 5);
        let refused = ledger.count(quota, 1, begin).unwrap_err();
        assert_eq!(refused.limit, "rate");
        assert_eq!(refused.retry_after, Duration::from_millis(100));
        assert!(passes(begin + refused.retry_after));
        assert!(!passes(begin + refused.retry_after));
        let second = begin + Duration::from_millis(100);
        let later = (1..=100).map(|turn| second + Duration::from_millis(10) * turn);
        assert_eq!(later.filter(|now| passes(*now)).count(), 10);
        // Everyone else has a burst of their own.
        assert!(ledger.count(quota, 2, begin).is_ok());
    }

    #[test]
    fn a_place_is_free_again_however_it_is_left() {
        let ledger = Ledger::default();
        let now = Instant::now();
        let quota = quota(0, 1, 2);
        let first = ledger.count(quota, 1, now).unwrap();
        let _second = ledger.count(quota, 1, now).unwrap();
        let refused = ledger.count(quota, 1, now).unwrap_err();
        assert_eq!(refused.limit, "concurrent");
        assert!(ledger.count(quota, 2, now).is_ok());
        drop(first);
        assert!(ledger.count(quota, 1, now).is_ok());
        assert_eq!(ledger.under_way.lock().unwrap().len(), 1);
    }

    #[test]
    fn namesakes_share_nothing() {
        let ledger = Ledger::default();
        let key = |origin| ledger.key("a.test", Subject::Principal(origin, "ci"));
        let origins = [
            Origin::Certificate,
            Origin::Issuer,
            Origin::Password,
            Origin::Robot,
        ];
        let keys: std::collections::HashSet<u64> = origins.map(key).into();
        assert_eq!(keys.len(), origins.len());
        assert_eq!(key(Origin::Robot), key(Origin::Robot));
    }

    #[test]
    fn who_is_refused_for_the_rate_takes_no_place() {
        let ledger = Ledger::default();
        let now = Instant::now();
        let quota = quota(1, 1, 5);
        let place = ledger.count(quota, 1, now).unwrap();
        for _ in 0..10 {
            assert_eq!(ledger.count(quota, 1, now).unwrap_err().limit, "rate");
        }
        drop(place);
        assert!(ledger.under_way.lock().unwrap().is_empty());
    }

    #[test]
    fn a_flood_of_addresses_is_not_all_remembered() {
        let ledger = Ledger::default();
        let now = Instant::now();
        for key in 0..200_000 {
            drop(ledger.count(quota(10, 5, 3), key, now));
        }
        ledger.rates.run_pending_tasks();
        assert!(ledger.rates.entry_count() <= REMEMBERED_MAX);
        assert!(ledger.under_way.lock().unwrap().is_empty());
    }
}
