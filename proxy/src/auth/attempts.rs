//! Wrong passwords, counted by address and by user: who brings too many is slowed, then refused.
//!
//! Nobody is locked out by others: from an address that a user has logged in from not long ago,
//! only what fails for this user there is counted against the user. What is remembered is bounded,
//! however many addresses and names are tried, and a refusal never depends on whether a user exists.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::Semaphore;

use super::hashing::Standing;
use super::{Hashing, Refusal};
use crate::config::{FORGET_AFTER_MAX, Logins};
use crate::limits::bucket::Bucket;
use crate::limits::neighbours::neighbours;

/// How many addresses, and how many names, are remembered: of a flood, those that try most.
const REMEMBERED_MAX: u64 = 16_384;

/// How long an address is known as a user's after the last login.
const KNOWN_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The part of the wrong passwords that are allowed which is not slowed: anyone mistypes.
const FREE: f64 = 0.25;

/// The pause between two attempts once they are slowed. Each further failure doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The longest that an attempt is held back; clients give up soon after.
const HELD_FOR_MAX: Duration = Duration::from_secs(5);

/// How many are held back at once.
const HELD_MAX: u32 = 512;

/// Who somebody claims to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    /// What the name is one of: the same name means somebody else in another file.
    pub(crate) scope: &'a str,
    pub(crate) name: &'a str,
    pub(crate) password: &'a [u8],
    pub(crate) client: IpAddr,
}

/// Whom too many failures were counted for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Culprit {
    Address,
    User,
}

/// What a password has to pass before it is believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scrutiny<'a> {
    pub(crate) attempts: &'a Attempts,
    pub(crate) hashing: &'a Hashing,
    pub(crate) logins: Logins,
}

impl Scrutiny<'_> {
    /// Lets `verify` say whether the claim is right, when it is the claim's turn, and counts it when
    /// it is not.
    ///
    /// Every check of a password or another secret that somebody could guess goes through here.
    pub(crate) async fn check(
        &self,
        claim: Claim<'_>,
        verify: impl Future<Output = Result<bool, Refusal>>,
    ) -> Result<bool, Refusal> {
        self.attempts.run(self.logins, claim, verify).await
    }
}

/// What has failed of late. It outlives every reload.
#[derive(Debug)]
pub(crate) struct Attempts {
    addresses: Accounts<IpAddr>,
    users: Accounts<u64>,
    /// The addresses that users have logged in from, each with what failed for that user there.
    known: Accounts<u64>,
    /// The very passwords that were right there.
    proven: Cache<u64, ()>,
    held: Semaphore,
    /// Keyed at random, so that nobody can make two names collide.
    hasher: RandomState,
}

type Accounts<K> = Cache<K, Arc<Mutex<Account>>>;

impl Default for Attempts {
    fn default() -> Self {
        Self {
            addresses: accounts(FORGET_AFTER_MAX),
            users: accounts(FORGET_AFTER_MAX),
            known: accounts(KNOWN_FOR),
            proven: Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_idle(KNOWN_FOR)
                .build(),
            held: Semaphore::new(HELD_MAX as usize),
            hasher: RandomState::new(),
        }
    }
}

fn accounts<K>(idle: Duration) -> Accounts<K>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(REMEMBERED_MAX)
        .time_to_idle(idle)
        .build()
}

impl Attempts {
    async fn run(
        &self,
        logins: Logins,
        claim: Claim<'_>,
        verify: impl Future<Output = Result<bool, Refusal>>,
    ) -> Result<bool, Refusal> {
        if !self.has_proven(claim) {
            self.wait(logins, claim).await?;
        }
        let right = verify.await?;
        let now = Instant::now();
        if right {
            self.succeeded(claim, now);
        } else {
            self.failed(logins, claim, now);
        }
        Ok(right)
    }

    /// Waits for the claim's turn.
    async fn wait(&self, logins: Logins, claim: Claim<'_>) -> Result<(), Refusal> {
        let wait = self.turn(logins, claim, Instant::now())?;
        if wait.is_zero() {
            return Ok(());
        }
        let Ok(_held) = self.held.try_acquire() else {
            return Err(throttled(wait, Culprit::Address));
        };
        tokio::time::sleep(wait).await;
        // Others have failed meanwhile.
        self.refuse(logins, claim, Instant::now())
    }

    /// Returns whether this very password was right from there not long ago.
    pub(super) fn has_proven(&self, claim: Claim<'_>) -> bool {
        self.proven.get(&self.proof(claim)).is_some()
    }

    /// Returns whether this user has logged in from there not long ago.
    pub(super) fn standing(&self, claim: Claim<'_>) -> Standing {
        match self.known.get(&self.pair(claim)) {
            Some(_) => Standing::Known,
            None => Standing::Stranger,
        }
    }

    /// Returns how long the claim is to wait for its turn, or refuses it.
    fn turn(&self, logins: Logins, claim: Claim<'_>, now: Instant) -> Result<Duration, Refusal> {
        self.refuse(logins, claim, now)?;
        let mut longest = (Duration::ZERO, Culprit::Address);
        for (account, allowed, culprit) in self.accounts_of(logins, claim) {
            let wait = lock(&account).wait(now, allowed);
            if wait > longest.0 {
                longest = (wait, culprit);
            }
        }
        let (wait, culprit) = longest;
        if wait > HELD_FOR_MAX {
            return Err(throttled(wait, culprit));
        }
        for (account, allowed, _) in self.accounts_of(logins, claim) {
            lock(&account).begins(now + wait, allowed);
        }
        Ok(wait)
    }

    /// Refuses a claim for which, or from where, too much has failed.
    fn refuse(&self, logins: Logins, claim: Claim<'_>, now: Instant) -> Result<(), Refusal> {
        let full = self
            .accounts_of(logins, claim)
            .map(|(account, allowed, culprit)| (lock(&account).full_for(now, allowed), culprit))
            .max_by_key(|(time, _)| *time);
        match full {
            Some((time, culprit)) if !time.is_zero() => Err(throttled(time, culprit)),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the accounts that the claim is held to, as far as anything stands in them.
    fn accounts_of(
        &self,
        logins: Logins,
        claim: Claim<'_>,
    ) -> impl Iterator<Item = (Arc<Mutex<Account>>, Allowed, Culprit)> {
        let address = Allowed::new(logins.per_address, logins.forget_after);
        let user = Allowed::new(logins.per_user, logins.forget_after);
        let known = self.known.get(&self.pair(claim));
        let strange = known.is_none();
        let from = || self.addresses.get(&neighbours(claim.client));
        let to = || self.users.get(&self.user(claim));
        [
            (known, address, Culprit::Address),
            (strange.then(from).flatten(), address, Culprit::Address),
            (strange.then(to).flatten(), user, Culprit::User),
        ]
        .into_iter()
        .filter_map(|(account, allowed, culprit)| Some((account?, allowed?, culprit)))
    }

    fn succeeded(&self, claim: Claim<'_>, now: Instant) {
        self.known.get_with(self.pair(claim), || Account::open(now));
        self.proven.insert(self.proof(claim), ());
    }

    fn failed(&self, logins: Logins, claim: Claim<'_>, now: Instant) {
        let open = || Account::open(now);
        self.proven.invalidate(&self.proof(claim));
        if let Some(known) = self.known.get(&self.pair(claim)) {
            count(&known, logins.per_address, logins.forget_after, now);
            return;
        }
        if logins.per_address > 0 {
            let address = self.addresses.get_with(neighbours(claim.client), open);
            count(&address, logins.per_address, logins.forget_after, now);
        }
        if logins.per_user > 0 {
            let user = self.users.get_with(self.user(claim), open);
            count(&user, logins.per_user, logins.forget_after, now);
        }
    }

    fn user(&self, claim: Claim<'_>) -> u64 {
        self.hasher.hash_one((claim.scope, claim.name))
    }

    fn proof(&self, claim: Claim<'_>) -> u64 {
        let client = neighbours(claim.client);
        self.hasher
            .hash_one((claim.scope, claim.name, client, claim.password))
    }

    fn pair(&self, claim: Claim<'_>) -> u64 {
        self.hasher
            .hash_one((claim.scope, claim.name, neighbours(claim.client)))
    }
}

fn throttled(retry_after: Duration, culprit: Culprit) -> Refusal {
    Refusal::Throttled {
        retry_after,
        culprit,
    }
}

fn count(account: &Mutex<Account>, most: u32, forget_after: Duration, now: Instant) {
    if let Some(allowed) = Allowed::new(most, forget_after) {
        lock(account).fails(now, allowed);
    }
}

fn lock(account: &Mutex<Account>) -> std::sync::MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many failures are allowed, and how many of them are forgotten each second.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    most: f64,
    forgotten: f64,
}

impl Allowed {
    fn new(most: u32, forget_after: Duration) -> Option<Self> {
        let forgotten = f64::from(most) / forget_after.as_secs_f64();
        (most > 0).then_some(Self {
            most: f64::from(most),
            forgotten,
        })
    }
}

/// What has failed for one user or from one address.
#[derive(Debug)]
struct Account {
    failures: Bucket,
    /// When the next attempt may begin.
    next: Instant,
}

impl Account {
    fn open(now: Instant) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            failures: Bucket::new(now),
            next: now,
        }))
    }

    fn fails(&mut self, now: Instant, allowed: Allowed) {
        self.failures.add(now, allowed.forgotten, allowed.most);
    }

    /// Returns for how long nothing more may fail.
    fn full_for(&self, now: Instant, allowed: Allowed) -> Duration {
        self.failures.full_for(now, allowed.forgotten, allowed.most)
    }

    /// Returns how long the next attempt has to wait.
    fn wait(&self, now: Instant, allowed: Allowed) -> Duration {
        if self.pause(now, allowed).is_zero() {
            return Duration::ZERO;
        }
        self.next.saturating_duration_since(now)
    }

    /// Keeps the attempt after the one that begins at `begin` at a distance.
    fn begins(&mut self, begin: Instant, allowed: Allowed) {
        self.next = self.next.max(begin + self.pause(begin, allowed));
    }

    /// Returns the pause between two attempts at this moment.
    fn pause(&self, now: Instant, allowed: Allowed) -> Duration {
        let level = self.failures.level(now, allowed.forgotten);
        let over = level - (allowed.most * FREE).floor();
        if over < 0.5 {
            return Duration::ZERO;
        }
        let doubled = PAUSE_MIN.as_secs_f64() * (over - 1.0).clamp(0.0, 16.0).exp2();
        Duration::from_secs_f64(doubled).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGINS: Logins = Logins {
        per_address: 20,
        per_user: 40,
        forget_after: Duration::from_secs(200),
    };

    fn claim<'a>(name: &'a str, client: &str) -> Claim<'a> {
        Claim {
            scope: "htpasswd",
            name,
            password: b"a guess",
            client: client.parse().unwrap(),
        }
    }

    fn retry_after(refused: Result<impl Sized, Refusal>) -> Option<Duration> {
        match refused {
            Err(Refusal::Throttled { retry_after, .. }) => Some(retry_after),
            Err(_) | Ok(_) => None,
        }
    }

    /// Fails until refused, always when told to; returns how often, and how long it took.
    fn fail_on(attempts: &Attempts, claim: Claim<'_>, mut now: Instant) -> (usize, Duration) {
        let begin = now;
        let mut failed = 0;
        while let Ok(wait) = attempts.turn(LOGINS, claim, now) {
            now += wait;
            attempts.failed(LOGINS, claim, now);
            failed += 1;
            assert!(failed < 1000);
        }
        (failed, now - begin)
    }

    #[test]
    fn who_fails_again_and_again_is_slowed_and_then_refused() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let attacker = claim("docker", "192.0.2.1");
        let waits: Vec<u128> = (0..11)
            .map(|_| {
                let wait = attempts.turn(LOGINS, attacker, now).unwrap();
                attempts.failed(LOGINS, attacker, now);
                wait.as_millis()
            })
            .take_while(|wait| *wait < 3000)
            .collect();
        let (free, slowed) = waits.split_at(7);
        assert_eq!(free, [0; 7]);
        assert!(
            slowed.windows(2).all(|two| two[1] > 2 * two[0]),
            "{waits:?}"
        );
        assert!(slowed.len() == 4 && slowed[0] == 100, "{waits:?}");
        let (_, took) = fail_on(&attempts, attacker, now);
        assert!(took < Duration::from_secs(120), "{took:?}");
        assert!(retry_after(attempts.turn(LOGINS, attacker, now)).is_some());
    }

    #[test]
    fn a_refusal_says_when_to_come_back_and_keeps_its_word() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let attacker = claim("docker", "192.0.2.1");
        for _ in 0..20 {
            attempts.failed(LOGINS, attacker, now);
        }
        let later = retry_after(attempts.turn(LOGINS, attacker, now)).unwrap();
        assert_eq!(later, Duration::from_secs(10));
        // To be refused is not to fail: who hammers on is not kept out for longer.
        let early = now + later - Duration::from_millis(100);
        assert!(retry_after(attempts.turn(LOGINS, attacker, early)).is_some());
        assert_eq!(
            attempts.turn(LOGINS, attacker, now + later),
            Ok(Duration::ZERO)
        );
        // In the end all is forgotten.
        let end = now + LOGINS.forget_after;
        for _ in 0..5 {
            assert_eq!(attempts.turn(LOGINS, attacker, end), Ok(Duration::ZERO));
        }
    }

    #[test]
    fn a_user_is_never_locked_out_from_a_known_address() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let home = claim("docker", "192.0.2.1");
        attempts.succeeded(home, now);
        for host in 0..100 {
            let attacker = claim("docker", &format!("198.51.100.{host}"));
            fail_on(&attempts, attacker, now);
        }
        // The same address, for others who are behind it.
        fail_on(&attempts, claim("podman", "192.0.2.1"), now);
        assert!(retry_after(attempts.turn(LOGINS, claim("docker", "203.0.113.1"), now)).is_some());
        assert!(retry_after(attempts.turn(LOGINS, claim("crane", "192.0.2.1"), now)).is_some());
        assert_eq!(attempts.turn(LOGINS, home, now), Ok(Duration::ZERO));
        // Who guesses from there has no more tries than from elsewhere.
        for _ in 0..20 {
            attempts.failed(LOGINS, home, now);
        }
        assert!(retry_after(attempts.turn(LOGINS, home, now)).is_some());
    }

    #[test]
    fn a_user_is_guarded_against_many_addresses_at_once() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let failed: usize = (0..100)
            .map(|net| {
                let attacker = claim("docker", &format!("2001:db8:0:{net}::1"));
                fail_on(&attempts, attacker, now).0
            })
            .sum();
        assert!((10..=40).contains(&failed), "{failed}");
        let next = claim("docker", "203.0.113.1");
        assert!(retry_after(attempts.turn(LOGINS, next, now)).is_some());
        // The same name in another file is somebody else.
        let other = Claim {
            scope: "other",
            ..next
        };
        assert_eq!(attempts.turn(LOGINS, other, now), Ok(Duration::ZERO));
    }

    #[test]
    fn a_client_with_a_network_of_addresses_counts_as_one() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for host in 0..20 {
            let name = format!("user{host}");
            attempts.failed(LOGINS, claim(&name, &format!("2001:db8::{host}")), now);
        }
        let next = claim("other", "2001:db8::ffff");
        assert!(retry_after(attempts.turn(LOGINS, next, now)).is_some());
        let far = claim("other", "2001:db8:0:1::1");
        assert_eq!(attempts.turn(LOGINS, far, now), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_not_limited_is_not_counted() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let off = Logins {
            per_address: 0,
            per_user: 0,
            ..LOGINS
        };
        let attacker = claim("docker", "192.0.2.1");
        for _ in 0..1000 {
            assert_eq!(attempts.turn(off, attacker, now), Ok(Duration::ZERO));
            attempts.failed(off, attacker, now);
        }
        attempts.addresses.run_pending_tasks();
        attempts.users.run_pending_tasks();
        assert_eq!(attempts.addresses.entry_count(), 0);
        assert_eq!(attempts.users.entry_count(), 0);
    }

    #[test]
    fn a_flood_of_names_and_addresses_is_not_all_remembered() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..100_000_u128 {
            let name = number.to_string();
            let client = std::net::Ipv6Addr::from_bits(number << 64).into();
            let attacker = Claim {
                client,
                ..claim(&name, "::1")
            };
            attempts.failed(LOGINS, attacker, now);
        }
        attempts.addresses.run_pending_tasks();
        attempts.users.run_pending_tasks();
        assert!(attempts.addresses.entry_count() <= REMEMBERED_MAX);
        assert!(attempts.users.entry_count() <= REMEMBERED_MAX);
    }

    #[tokio::test]
    async fn those_held_back_are_few_and_each_is_told_the_truth() {
        let attempts = Attempts::default();
        let attacker = claim("docker", "192.0.2.1");
        let now = Instant::now();
        for _ in 0..6 {
            attempts.failed(LOGINS, attacker, now);
        }
        let wrong = || attempts.run(LOGINS, attacker, async { Ok(false) });
        assert_eq!(wrong().await, Ok(false));
        let _all = attempts.held.acquire_many(HELD_MAX).await.unwrap();
        assert!(retry_after(wrong().await).is_some());
    }

    #[tokio::test]
    async fn the_password_that_was_right_there_waits_for_nothing_until_it_is_wrong() {
        let attempts = Attempts::default();
        let mine = claim("docker", "192.0.2.1");
        let says = |claim, right| attempts.run(LOGINS, claim, async move { Ok(right) });
        assert_eq!(says(mine, true).await, Ok(true));
        let neighbours = Claim {
            password: b"the old one",
            ..mine
        };
        for _ in 0..20 {
            attempts.failed(LOGINS, neighbours, Instant::now());
        }
        assert!(retry_after(says(neighbours, false).await).is_some());
        assert_eq!(says(mine, true).await, Ok(true));
        // Somebody changed it.
        assert_eq!(says(mine, false).await, Ok(false));
        assert!(retry_after(says(mine, false).await).is_some());
    }

    #[tokio::test]
    async fn a_verification_that_did_not_take_place_counts_for_nothing() {
        let attempts = Attempts::default();
        let client = claim("docker", "192.0.2.1");
        for _ in 0..50 {
            let busy = attempts.run(LOGINS, client, async { Err(Refusal::Busy) });
            assert_eq!(busy.await, Err(Refusal::Busy));
        }
        assert_eq!(
            attempts.run(LOGINS, client, async { Ok(true) }).await,
            Ok(true)
        );
    }
}
