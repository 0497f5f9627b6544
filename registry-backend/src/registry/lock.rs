//! Who may change what is read and written together: the manifests and tags of a repository.

use oci::RepositoryName;
use permits::Permit;

use super::Registry;

/// The right to change the manifests and tags of one repository; nobody else has it meanwhile.
///
/// The methods that need it take it as a proof. It can only be waited for without a thread
/// ([`Registry::lock`]), so none is ever held while waiting for it.
#[derive(Debug)]
pub(crate) struct RepositoryLock {
    repository: RepositoryName,
    _permit: Permit,
}

impl Registry {
    /// Waits until nobody else changes the manifests and tags of a repository, and keeps others from
    /// it for as long as the lock lives; who waits longest is next.
    pub(crate) async fn lock(&self, repository: &RepositoryName) -> RepositoryLock {
        RepositoryLock {
            repository: repository.clone(),
            _permit: self.locks.acquire(repository.clone(), 1).await,
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
