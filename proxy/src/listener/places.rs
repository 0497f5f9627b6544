//! How many connections there are: in all, and of each address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::neighbours::neighbours;

/// The places that connections take.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: AtomicUsize,
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection, given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: Option<IpAddr>,
}

impl Places {
    /// Takes a place, if fewer than `max` are taken.
    pub(super) fn take(self: &Arc<Self>, max: usize) -> Option<Place> {
        let one_more = |taken: usize| (taken < max).then_some(taken + 1);
        let relaxed = Ordering::Relaxed;
        let taken = self.taken.fetch_update(relaxed, relaxed, one_more);
        taken.is_ok().then(|| Place {
            places: Arc::clone(self),
            client: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts this place as one of `client`'s, if it has fewer than `max`; the addresses that one
    /// client has are counted together.
    pub(super) fn give_to(&mut self, client: IpAddr, max: usize) -> bool {
        let client = neighbours(client);
        let mut by_client = self.places.lock();
        let own = by_client.entry(client).or_default();
        if *own >= max {
            return false;
        }
        *own += 1;
        drop(by_client);
        self.client = Some(client);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client
            && let Entry::Occupied(mut own) = self.places.lock().entry(client)
        {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_for_each_client() {
        let places = Arc::new(Places::default());
        let take = |client: &str| {
            let mut place = places.take(4)?;
            place.give_to(client.parse().unwrap(), 2).then_some(place)
        };
        let first = take("192.0.2.1").unwrap();
        let second = take("192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none());
        let other = take("192.0.2.2").unwrap();
        // One line has all of these.
        let network = take("2001:db8::1").unwrap();
        assert!(take("2001:db8:1::1").is_none(), "four are taken");
        drop(other);
        let neighbour = take("2001:db8::ffff:0:0:1").unwrap();
        drop(first);
        assert!(take("2001:db8::2").is_none());
        drop((second, network, neighbour));
        assert_eq!(places.taken.load(Ordering::Relaxed), 0);
        assert!(places.lock().is_empty());
    }
}
