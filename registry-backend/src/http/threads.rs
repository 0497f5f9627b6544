//! How work that may block gets to a thread: when the [`Permits`](super::permits::Permits) let it.
//!
//! A request that is to change storage [asks](Call::ask_to_change) first, and waits as long as its client
//! does; from the moment on that its work has begun it is finished, whoever waits for it.

use std::sync::Arc;

use oci::RepositoryName;
use permits::{Permit, Pool, Share};

use super::error::Error;
use super::principal::principal;
use super::router::Call;
use crate::registry::{self, Principal, Registry, RepositoryLock, Wait};

/// A request that is to change storage, and waits for its turn.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    call: &'a Call<'a>,
    principal: Principal,
    _entry: Permit,
}

impl<'a> Call<'a> {
    /// Asks to change storage, before anything is done for it.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`].
    pub(super) fn ask_to_change(&'a self) -> Result<Asking<'a>, Error> {
        let principal = principal(&self.parts.headers);
        Ok(Asking {
            call: self,
            _entry: self.permits.enter(&principal)?,
            principal,
        })
    }
}

impl Asking<'_> {
    /// Returns who asks.
    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Waits for the right to hold a large body of `size_bytes` in memory.
    pub(super) async fn to_hold(&self, size_bytes: u64) -> Result<Share, Error> {
        let call = self.call;
        let share = call.permits.body(&self.principal, size_bytes);
        call.client.unless_gone(share).await
    }

    /// Runs work that changes a repository in a way that needs no lock.
    pub(super) async fn change<T, F>(self, repository: &RepositoryName, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Registry>) -> Result<T, registry::Error> + Send + 'static,
    {
        let call = self.call;
        let turn = call.permits.change(&self.principal, repository);
        let turn = call.client.unless_gone(turn).await?;
        let registry = Arc::clone(call.registry);
        holding(turn, move || work(&registry)).await
    }

    /// Runs work that changes the manifests or tags of a repository.
    pub(super) async fn change_locked<T, F>(
        self,
        repository: &RepositoryName,
        work: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Registry, &RepositoryLock) -> Result<T, registry::Error> + Send + 'static,
    {
        let call = self.call;
        let turn = call
            .permits
            .change_locked(&self.principal, call.registry, repository);
        let (lock, turn) = call.client.unless_gone(turn).await??;
        let registry = Arc::clone(call.registry);
        holding(turn, move || work(&registry, &lock)).await
    }
}

/// Runs work that goes on with a change of a repository that has begun: it waits for its turn, too,
/// but is neither refused nor given up.
pub(super) async fn going_on<T, F>(
    call: &Call<'_>,
    repository: &RepositoryName,
    work: F,
) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, registry::Error> + Send + 'static,
{
    let principal = principal(&call.parts.headers);
    let turn = call.permits.change(&principal, repository).await;
    holding(turn, work).await
}

/// Runs work that reads a little of storage: here, if all is at hand, else on a thread that may
/// block.
pub(super) async fn reading<T, F>(call: &Call<'_>, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: Fn(&Registry, Wait) -> Result<T, registry::Error> + Send + 'static,
{
    match work(call.registry, Wait::Never) {
        Err(registry::Error::WouldWait) => {
            looking(call, move |registry| work(registry, Wait::AsNeeded)).await
        }
        answer => Ok(answer?),
    }
}

/// Runs work that reads storage, on a thread that may block.
pub(super) async fn looking<T, F>(call: &Call<'_>, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce(&Registry) -> Result<T, registry::Error> + Send + 'static,
{
    let principal = principal(&call.parts.headers);
    let share = call.permits.read(&principal);
    let share = call.client.unless_gone(share).await?;
    let registry = Arc::clone(call.registry);
    holding(share, move || work(&registry)).await
}

/// Runs work on a thread that may block, once there is a permit for it.
pub(super) async fn permitted<T, F>(pool: &Pool, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, registry::Error> + Send + 'static,
{
    holding(pool.acquire(1).await, work).await
}

/// Runs work on a thread that may block, and holds a permit until it is finished.
async fn holding<T, F>(permit: impl Send + 'static, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, registry::Error> + Send + 'static,
{
    let work = move || {
        let result = work();
        drop(permit);
        result
    };
    blocking(work).await
}

/// Runs work on a thread that may block; how much of it there is at once is for the caller to see to.
pub(super) async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, registry::Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_panic) => Err(Error::Panicked),
    }
}
