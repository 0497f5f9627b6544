//! How much of what may be under way at once in one registry, fairly between those who ask.
//!
//! Each registry of the process has permits of its own, so that one whose disk hangs takes nothing
//! from the others. Work of each kind has permits of its own, too: a read never waits for a change.
//! Limits at several levels are asked one after the other, the narrowest first, and all are fair
//! queues: who floods stands in a queue of their own.
//!
//! Changes: the principal, then the repository's lock where it is needed, then the repository, then
//! the registry. A permit of the principal's comes before the lock, since others may want the same
//! lock: so few of one principal's requests are ever in front of theirs. The registry's comes last,
//! since it goes with a thread: nobody waits for a lock and keeps a thread from others.

use std::sync::Arc;

use oci::RepositoryName;
use permits::{Keyed, Permit, Pool, Share, Shares};

use super::bounds::PIECE_READS;
use super::error::Error;
use crate::registry::{Principal, Registry, RepositoryLock};

/// Changes of storage: most of the time they wait for the disk, which syncs many at once.
const CHANGES_MAX: u32 = 64;
const CHANGES_OF_REPOSITORY_MAX: u32 = 16;
const CHANGES_OF_PRINCIPAL_MAX: u32 = 16;

/// How many requests of a principal are waiting to change storage, or do so. Each is held in memory,
/// with a manifest of some KiB as a rule; more are refused.
const CHANGES_ASKED_FOR_MAX: u32 = 256 + CHANGES_OF_PRINCIPAL_MAX;

/// Reads that have to wait for the disk. There is no bound to how many wait for a permit: they hold
/// next to nothing.
const READS_MAX: u32 = 32;
const READS_OF_PRINCIPAL_MAX: u32 = 24;

/// Writing of large bodies, which goes on whatever the changes wait for.
const WRITES_MAX: u32 = 32;

/// Hashing, of these bodies for the most part. A thread that hashes may wait for one that writes: had
/// both their permits of the same pool, all could be taken by those that wait.
const HASHES_MAX: u32 = 32;

/// Lists and jobs, which see to their number themselves.
const OTHERS: u32 = 16;

/// How much memory manifests take that are being received, or wait to be stored.
const BODY_BYTES_MAX: u32 = 128 << 20;
const BODY_BYTES_OF_PRINCIPAL_MAX: u32 = 32 << 20;

/// How many times its size a manifest takes while it is checked: for its bytes, and for what is read
/// from them, which of many small annotations is the most.
const BODY_FACTOR: u64 = 13;

/// A body of which no more has come is counted as a request alone, and so never waits for large ones.
pub(super) const SMALL_BODY_BYTES: u64 = 64 << 10;

/// Returns how many threads for what blocks the runtime of so many registries is to have: as many as
/// there are permits to use one, so that nobody ever has a permit and no thread.
pub fn blocking_threads(registries: usize) -> usize {
    let each = CHANGES_MAX + READS_MAX + PIECE_READS + WRITES_MAX + HASHES_MAX + OTHERS;
    registries.max(1).saturating_mul(each as usize)
}

/// The permits of one registry.
#[derive(Debug)]
pub(super) struct Permits {
    asked_for: Keyed<Principal>,
    changes_of_principals: Keyed<Principal>,
    changes: Shares<RepositoryName>,
    reads: Shares<Principal>,
    bodies: Shares<Principal>,
    /// For writing large bodies.
    pub(super) writes: Pool,
    /// For hashing.
    pub(super) hashes: Pool,
}

/// How much there is of one kind of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) kind: &'static str,
    pub(super) waiting: usize,
    pub(super) in_progress: usize,
}

impl Work {
    pub(super) fn new(kind: &'static str, waiting: usize) -> Self {
        Self {
            kind,
            waiting,
            in_progress: 0,
        }
    }

    /// Says how many of `max` permits are there to be taken.
    pub(super) fn of(self, max: u32, available: usize) -> Self {
        Self {
            in_progress: (max as usize).saturating_sub(available),
            ..self
        }
    }
}

/// The right to use a thread to change a repository.
#[derive(Debug)]
pub(super) struct Turn {
    _principal: Permit,
    _shared: Share,
}

impl Permits {
    pub(super) fn new() -> Self {
        Self {
            asked_for: Keyed::new(CHANGES_ASKED_FOR_MAX),
            changes_of_principals: Keyed::new(CHANGES_OF_PRINCIPAL_MAX),
            changes: Shares::new(CHANGES_MAX, CHANGES_OF_REPOSITORY_MAX),
            reads: Shares::new(READS_MAX, READS_OF_PRINCIPAL_MAX),
            bodies: Shares::new(BODY_BYTES_MAX, BODY_BYTES_OF_PRINCIPAL_MAX),
            writes: Pool::new(WRITES_MAX),
            hashes: Pool::new(HASHES_MAX),
        }
    }

    /// Lets a request in that is to change storage.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] when too many of its principal's are waiting.
    pub(super) fn enter(&self, principal: &Principal) -> Result<Permit, Error> {
        let asked_for = self.asked_for.pool(principal.clone());
        asked_for.try_acquire(1).ok_or(Error::TooManyRequests)
    }

    /// Waits for the right to hold a large body of `size_bytes` in memory.
    pub(super) async fn body(&self, principal: &Principal, size_bytes: u64) -> Share {
        let size_bytes = u32::try_from(size_bytes.saturating_mul(BODY_FACTOR)).unwrap_or(u32::MAX);
        self.bodies.acquire(principal.clone(), size_bytes).await
    }

    /// Waits for the right to change a repository in ways that need no lock.
    pub(super) async fn change(&self, principal: &Principal, repository: &RepositoryName) -> Turn {
        let principal = self.changes_of_principals.acquire(principal.clone(), 1);
        Turn {
            _principal: principal.await,
            _shared: self.changes.acquire(repository.clone(), 1).await,
        }
    }

    /// Waits for the right to change a repository's manifests and tags.
    pub(super) async fn change_locked(
        &self,
        principal: &Principal,
        registry: &Arc<Registry>,
        repository: &RepositoryName,
    ) -> Result<(RepositoryLock, Turn), Error> {
        let principal = self.changes_of_principals.acquire(principal.clone(), 1);
        let principal = principal.await;
        let lock = registry.lock(repository).await?;
        let turn = Turn {
            _principal: principal,
            _shared: self.changes.acquire(repository.clone(), 1).await,
        };
        Ok((lock, turn))
    }

    /// Returns how much of each kind of work waits, and how much is in progress.
    pub(super) fn work(&self, registry: &Registry) -> [Work; 4] {
        let in_queue = self.changes_of_principals.waiting() + registry.waiting_for_locks();
        [
            Work::new("change", in_queue + self.changes.waiting())
                .of(CHANGES_MAX, self.changes.available()),
            Work::new("hash", self.hashes.waiting()).of(HASHES_MAX, self.hashes.available()),
            Work::new("read", self.reads.waiting()).of(READS_MAX, self.reads.available()),
            Work::new("write", self.writes.waiting()).of(WRITES_MAX, self.writes.available()),
        ]
    }

    /// Waits for the right to use a thread to read.
    pub(super) async fn read(&self, principal: &Principal) -> Share {
        self.reads.acquire(principal.clone(), 1).await
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::Config;
    use crate::app::App;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn user(name: &str) -> Principal {
        Principal::User(name.as_bytes().into())
    }

    fn repository(name: &str) -> RepositoryName {
        name.parse().unwrap()
    }

    /// Who floods one repository with changes fills their own queue; the owner of another, and whoever
    /// shares that one, get their turn.
    #[tokio::test]
    async fn who_floods_waits_in_a_queue_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let config = Config::new(root.path().join("sock"), root.path().join("root"));
        let registry = &App::open(config, &[]).unwrap().registry;
        // Both are there, and the kernel has their folders at hand.
        for name in ["flooded", "other"] {
            let folder = root
                .path()
                .join("root/docker/registry/v2/repositories")
                .join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::metadata(&folder).unwrap();
        }
        let permits = Permits::new();
        let (eve, ann) = (user("eve"), user("ann"));
        let (flooded, other) = (repository("flooded"), repository("other"));
        let mut flood: Vec<_> = (0..200)
            .map(|_| Box::pin(permits.change_locked(&eve, registry, &flooded)))
            .collect();
        let mut first = None;
        flood.retain_mut(|change| match poll(change.as_mut()) {
            Poll::Ready(change) => {
                assert!(first.replace(change).is_none(), "two have the lock");
                false
            }
            Poll::Pending => true,
        });
        assert_eq!(permits.changes.available(), 63, "one has a thread");
        let elsewhere = permits.change_locked(&ann, registry, &other);
        assert!(poll(pin!(elsewhere)).is_ready());
        assert!(poll(pin!(permits.change(&ann, &flooded))).is_ready());
        assert!(poll(pin!(permits.change(&eve, &other))).is_pending());
        let mut shared = pin!(permits.change_locked(&ann, registry, &flooded));
        assert!(poll(shared.as_mut()).is_pending());
        drop(first);
        // Those who were in the lock's queue before.
        let mut turns = 0;
        let (lock, _turn) = loop {
            if let Poll::Ready(shared) = poll(shared.as_mut()) {
                break shared.unwrap();
            }
            let before = flood.len();
            flood.retain_mut(|change| poll(change.as_mut()).is_pending());
            turns += before - flood.len();
        };
        assert_eq!(lock.repository(), &flooded);
        assert!(turns <= 16, "{turns} came first");
        assert!(!flood.is_empty());
    }

    #[tokio::test]
    async fn no_crowd_of_one_takes_all_there_is() {
        let permits = Permits::new();
        let (eve, ann) = (user("eve"), user("ann"));
        let name = repository("a");
        let mut held = Vec::new();
        let mut reads = Vec::new();
        for _ in 0..100 {
            if let Poll::Ready(turn) = poll(pin!(permits.change(&eve, &name))) {
                held.push(turn);
            }
            if let Poll::Ready(read) = poll(pin!(permits.read(&eve))) {
                reads.push(read);
            }
        }
        assert_eq!((held.len(), reads.len()), (16, 24));
        assert!(poll(pin!(permits.change(&ann, &repository("b")))).is_ready());
        assert!(poll(pin!(permits.read(&ann))).is_ready());
        let asked: Vec<_> = (0..1000).map_while(|_| permits.enter(&eve).ok()).collect();
        assert_eq!(asked.len(), 272);
        assert!(permits.enter(&ann).is_ok());
    }

    #[tokio::test]
    async fn large_bodies_of_one_wait_for_each_other_and_leave_room_for_others() {
        let permits = Permits::new();
        let (eve, ann) = (user("eve"), user("ann"));
        let held: Vec<_> = (0..100)
            .map_while(|_| match poll(pin!(permits.body(&eve, 1 << 20))) {
                Poll::Ready(share) => Some(share),
                Poll::Pending => None,
            })
            .collect();
        assert_eq!(held.len(), 2);
        assert!(poll(pin!(permits.body(&ann, 16 << 20))).is_ready());
    }
}
