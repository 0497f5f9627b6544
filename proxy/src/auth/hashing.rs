//! The line of those who wait for a password to be hashed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::Refusal;
use crate::limits::neighbours::neighbours;

/// The longest line of waiting for a hash. At bcrypt's usual 50 ms each and two cores, the last one
/// waits six seconds; who comes after that is better told so.
pub(super) const WAITING_MAX: usize = 256;

/// How many of them may be from one client, so that nobody can keep all others out. Whoever comes
/// with credentials that are being verified already takes no place.
const WAITING_MAX_PER_CLIENT: usize = 16;

/// The right to hash: as many at once as there are cores, so that hashing passwords never starves
/// what streams.
#[derive(Debug)]
pub(crate) struct Hashing {
    pub(super) permits: Arc<Semaphore>,
    /// The strangers among them. All others of their line wait here, so that who is known finds no
    /// more of them in front than are hashed at once.
    strangers: Arc<Semaphore>,
    pub(super) waiting: Mutex<Line>,
    known_waiting: Mutex<Line>,
}

/// Whether somebody has logged in before, from where they come now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    Known,
    Stranger,
}

/// Who waits for a hash.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) len: usize,
    /// Those who wait, counted by [`neighbours`].
    by_client: HashMap<IpAddr, usize>,
}

impl Hashing {
    /// Lets `at_once` passwords be hashed at once.
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(at_once.max(1))),
            strangers: Arc::new(Semaphore::new(at_once.max(1))),
            waiting: Mutex::default(),
            known_waiting: Mutex::default(),
        }
    }

    /// Runs `work` on a thread where blocking is allowed, when it is its turn.
    pub(super) async fn run(
        &self,
        client: IpAddr,
        standing: Standing,
        work: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool, Refusal> {
        let line = match standing {
            Standing::Known => &self.known_waiting,
            Standing::Stranger => &self.waiting,
        };
        let _place = Place::take(line, neighbours(client))?;
        let strange = match standing {
            Standing::Known => None,
            Standing::Stranger => Some(Arc::clone(&self.strangers).acquire_owned().await),
        };
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        debug_assert!(permit.is_ok(), "the semaphore is never closed");
        let hash = move || {
            // Held to the end of the work: a client that goes away does not make room for another
            // hash beside one that is still being computed.
            let _permits = (strange, permit);
            work()
        };
        // A panic in a hash is a refusal, not a way in.
        Ok(tokio::task::spawn_blocking(hash).await.unwrap_or_default())
    }
}

/// A place in the line, given up when dropped.
struct Place<'a> {
    line: &'a Mutex<Line>,
    client: IpAddr,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a Mutex<Line>, client: IpAddr) -> Result<Self, Refusal> {
        let mut line = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let own = line.by_client.get(&client).copied().unwrap_or_default();
        if line.len >= WAITING_MAX || own >= WAITING_MAX_PER_CLIENT {
            return Err(Refusal::Busy);
        }
        line.len += 1;
        line.by_client.insert(client, own + 1);
        Ok(Self {
            line: waiting,
            client,
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.len -= 1;
        if let Entry::Occupied(mut own) = line.by_client.entry(self.client) {
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

    #[tokio::test]
    async fn who_is_known_passes_the_line_of_strangers() {
        let hashing = Arc::new(Hashing::new(1));
        let other = Arc::clone(&hashing.permits).acquire_owned().await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let ask = |client: [u8; 4], standing| {
            let (hashing, order) = (Arc::clone(&hashing), Arc::clone(&order));
            let work = move || order.lock().map(|mut order| order.push(standing)).is_ok();
            tokio::spawn(async move { hashing.run(client.into(), standing, work).await })
        };
        let mut asked = Vec::new();
        for number in 0..100 {
            asked.push(ask([192, 0, 2, number], Standing::Stranger));
        }
        while hashing.waiting.lock().unwrap().len < 100 {
            tokio::task::yield_now().await;
        }
        // The address is one of theirs.
        asked.push(ask([192, 0, 2, 1], Standing::Known));
        while hashing.known_waiting.lock().unwrap().len < 1 {
            tokio::task::yield_now().await;
        }
        drop(other);
        for one in asked {
            assert_eq!(one.await.unwrap(), Ok(true));
        }
        let order = order.lock().unwrap();
        let place = order.iter().position(|one| *one == Standing::Known);
        assert!(place.unwrap() <= 1, "{place:?}");
    }

    #[test]
    fn no_client_fills_the_line_alone() {
        let line = Mutex::default();
        let take = |client: &str| Place::take(&line, neighbours(client.parse().unwrap()));
        for (client, neighbour, other) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::2:0:0:1", "2001:db8:0:1::1"),
        ] {
            let mut places: Vec<_> = (0..WAITING_MAX_PER_CLIENT).map(|_| take(client)).collect();
            assert!(places.iter().all(Result::is_ok));
            assert!(take(neighbour).is_err());
            assert!(take(other).is_ok());
            places.pop();
            assert!(take(neighbour).is_ok());
        }
        assert_eq!(line.lock().unwrap().len, 0);
        assert!(line.lock().unwrap().by_client.is_empty());
    }
}
