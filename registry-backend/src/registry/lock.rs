//! Who may change what is read and written together: the manifests and tags of a repository, and an
//! upload.
//!
//! In this process requests wait for one another in order. Another process on the same tree, which may
//! be this one's successor or not have ended yet, is kept out by the storage's own locks.

use std::sync::Arc;
use std::time::Duration;

use oci::RepositoryName;
use permits::Permit;
use tokio::task::spawn_blocking;

use super::{Error, Registry};
use crate::storage::error::if_found;
use crate::storage::{self, Key, Lock, Wait, layout};

/// How often a lock is asked for that another process has: at first, and at most.
const ASK_EVERY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The right to change the manifests and tags of one repository; nobody else has it meanwhile.
///
/// The methods that need it take it as a proof. It can only be waited for without a thread
/// ([`Registry::lock`]), so none is ever held while waiting for it.
#[derive(Debug)]
pub(crate) struct RepositoryLock {
    repository: RepositoryName,
    /// Given back first: who is next in this process need not ask twice.
    _lock: Option<Lock>,
    _permit: Permit,
}

impl Registry {
    /// Waits until nobody else changes the manifests and tags of a repository, and keeps others from
    /// it for as long as the lock lives; who waits longest is next.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) async fn lock(
        self: &Arc<Self>,
        repository: &RepositoryName,
    ) -> Result<RepositoryLock, Error> {
        let permit = self.locks.acquire(repository.clone(), 1).await;
        Ok(RepositoryLock {
            repository: repository.clone(),
            _lock: self.lock_folder(&layout::repository(repository)).await?,
            _permit: permit,
        })
    }

    /// Waits until no other process has locked a folder, and locks it. Returns nothing where there is no
    /// such folder, and so nothing in it that others might change.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(super) async fn lock_folder(self: &Arc<Self>, folder: &Key) -> Result<Option<Lock>, Error> {
        let (mut rest, longest) = ASK_EVERY;
        loop {
            let mut locked = self.driver.try_lock(folder, Wait::Never);
            if matches!(locked, Err(storage::Error::WouldWait { .. })) {
                let (registry, folder) = (Arc::clone(self), folder.clone());
                let ask = move || registry.driver.try_lock(&folder, Wait::AsNeeded);
                locked = spawn_blocking(ask)
                    .await
                    .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            }
            match if_found(locked)? {
                Some(None) => {}
                locked => return Ok(locked.flatten()),
            }
            tokio::time::sleep(rest).await;
            rest = (rest * 2).min(longest);
        }
    }
}

#[cfg(test)]
impl Registry {
    /// Returns how many wait for a repository's lock.
    pub(crate) fn waiting_for_lock(&self, repository: &RepositoryName) -> usize {
        self.locks.pool(repository.clone()).waiting()
    }
}

impl RepositoryLock {
    /// Returns the repository that is locked.
    pub(crate) fn repository(&self) -> &RepositoryName {
        &self.repository
    }
}
