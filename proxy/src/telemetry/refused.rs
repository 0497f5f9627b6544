//! How many lines the access log has of requests that were refused before anyone knew who asks.
//!
//! To be refused costs a client next to nothing: a request without credentials, for no site, with a
//! wrong password. So of these there are so many lines a second for one client, and for all clients
//! together; what goes beyond is counted, and told by client every few seconds. A request that was let
//! in always has a line, and so has one whose user is known.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use instruments::{Log, count_suppressed};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::limits::bucket::Bucket;
use crate::limits::neighbours::neighbours;

/// How many lines a second there are of one client (see [`neighbours`]): what counts failed logins to
/// block their address needs a few.
const OF_A_CLIENT: f64 = 50.0;

/// How many there are of all clients.
const OF_ALL: f64 = 500.0;

/// How many clients are counted one by one. Those that share a place share its lines, too.
const PLACES: u64 = 4096;

/// How often it is told what was left out.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// How many clients are named then.
const NAMED_MAX: usize = 20;

/// Those of this process.
static REFUSED: LazyLock<Refused> = LazyLock::new(Refused::new);

/// Returns whether a refused request has a line of its own; if not, it is counted.
pub(super) fn has_line(client: Option<IpAddr>) -> bool {
    let has_line = REFUSED.has_line_at(client, Instant::now());
    if !has_line {
        count_suppressed(Log::Access);
        if !REFUSED.owes.swap(true, Ordering::AcqRel) {
            report_in_time();
        }
    }
    has_line
}

/// Tells what was left out since it was told last.
pub(crate) fn report() {
    REFUSED.owes.store(false, Ordering::Release);
    REFUSED.take_left_out().tell();
}

fn report_in_time() {
    // Without a runtime nobody serves clients.
    if let Ok(runtime) = Handle::try_current() {
        drop(runtime.spawn(async {
            sleep(REPORT_EVERY).await;
            report();
        }));
    }
}

/// The lines of all clients.
struct Refused {
    owes: AtomicBool,
    all: Mutex<Bucket>,
    hasher: RandomState,
    places: Vec<Mutex<Place>>,
    /// What was left out of clients that found their place taken by another.
    unnamed: Mutex<u64>,
}

/// The lines of one client, or of a few.
struct Place {
    client: IpAddr,
    recent: Bucket,
    left_out: u64,
}

/// What was left out, the clients with the most of it first.
#[derive(Debug, Eq, PartialEq)]
struct LeftOut {
    by_client: Vec<(IpAddr, u64)>,
    of_others: u64,
}

impl Refused {
    fn new() -> Self {
        let now = Instant::now();
        let place = || {
            Mutex::new(Place {
                client: Ipv4Addr::UNSPECIFIED.into(),
                recent: Bucket::new(now),
                left_out: 0,
            })
        };
        Self {
            owes: AtomicBool::new(false),
            all: Mutex::new(Bucket::new(now)),
            hasher: RandomState::new(),
            places: (0..PLACES).map(|_| place()).collect(),
            unnamed: Mutex::default(),
        }
    }

    fn has_line_at(&self, client: Option<IpAddr>, now: Instant) -> bool {
        let client = neighbours(client.unwrap_or_else(|| Ipv4Addr::UNSPECIFIED.into()));
        let place = usize::try_from(self.hasher.hash_one(client) % PLACES).unwrap_or_default();
        let Some(place) = self.places.get(place) else {
            return true;
        };
        let mut place = lock(place);
        if place.left_out == 0 && place.recent.level(now, OF_A_CLIENT) <= 0.0 {
            place.client = client;
        }
        let has_line = place.recent.has_room(now, OF_A_CLIENT) && {
            let mut all = lock(&self.all);
            let has_room = all.has_room(now, OF_ALL);
            if has_room {
                all.add(now, OF_ALL, OF_ALL);
            }
            has_room
        };
        if has_line {
            place.recent.add(now, OF_A_CLIENT, OF_A_CLIENT);
        } else if place.client == client {
            place.left_out += 1;
        } else {
            *lock(&self.unnamed) += 1;
        }
        has_line
    }

    fn take_left_out(&self) -> LeftOut {
        let mut by_client = HashMap::<IpAddr, u64>::new();
        for place in &self.places {
            let mut place = lock(place);
            if place.left_out > 0 {
                *by_client.entry(place.client).or_default() += std::mem::take(&mut place.left_out);
            }
        }
        let mut by_client: Vec<(IpAddr, u64)> = by_client.into_iter().collect();
        by_client.sort_unstable_by_key(|(client, left_out)| (u64::MAX - left_out, *client));
        let others = by_client.split_off(by_client.len().min(NAMED_MAX));
        let others = others.iter().map(|(_, left_out)| left_out).sum::<u64>();
        LeftOut {
            by_client,
            of_others: others + std::mem::take(&mut *lock(&self.unnamed)),
        }
    }
}

impl LeftOut {
    fn tell(&self) {
        for (client, left_out) in &self.by_client {
            tracing::info!(target: "access", %client, left_out, "refused requests without a line");
        }
        if self.of_others > 0 {
            let left_out = self.of_others;
            tracing::info!(target: "access", left_out, "refused requests of others without a line");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn a_client_has_so_many_lines_a_second_and_the_rest_is_counted() {
        let refused = Refused::new();
        let begin = Instant::now();
        let ask = |number, now| refused.has_line_at(Some(address(number)), now);
        assert_eq!((0..1000).filter(|_| ask(1, begin)).count(), 50);
        let later = begin + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| ask(1, later)).count(), 50);
        let expected = LeftOut {
            by_client: vec![(address(1), 1900)],
            of_others: 0,
        };
        assert_eq!(refused.take_left_out(), expected);
        assert_eq!(refused.take_left_out().by_client, []);
    }

    #[test]
    fn many_clients_have_not_more_together_and_those_with_most_are_named() {
        let refused = Refused::new();
        let begin = Instant::now();
        let mut lines = 0;
        for number in 0..100_000 {
            // Every tenth request is the same client's.
            let number = if number % 10 == 0 { 7 } else { number };
            lines += usize::from(refused.has_line_at(Some(address(number)), begin));
        }
        assert_eq!(lines, 500);
        let left_out = refused.take_left_out();
        assert_eq!(left_out.by_client.len(), NAMED_MAX);
        let named = left_out.by_client.iter().map(|(_, left_out)| left_out);
        assert_eq!(named.sum::<u64>() + left_out.of_others, 99_500);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let refused = Refused::new();
        let begin = Instant::now();
        let lines = (0..1000_u16).filter(|number| {
            let address = format!("2001:db8::{number:x}").parse().unwrap();
            refused.has_line_at(Some(address), begin)
        });
        assert_eq!(lines.count(), 50);
        let network = "2001:db8::".parse().unwrap();
        assert_eq!(refused.take_left_out().by_client, [(network, 950)]);
    }
}
