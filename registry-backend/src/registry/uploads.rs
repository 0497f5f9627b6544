//! Uploads: sessions that begin, are claimed by one request after the other, and expire. What such a
//! request writes is an [`Append`]'s.
//!
//! A session is a folder with the bytes so far, and nothing else on disk: the state of the hash is
//! kept in memory and computed again from the bytes where it is missing, after a restart for
//! example. So a session survives everything, and nothing that is read from disk is trusted.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use oci::{Algorithm, RepositoryName, UploadId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use uuid::Uuid;

use super::append::{Append, Hashed};
use super::{Error, Registry};
use crate::storage::error::if_found;
use crate::storage::{Durability, Key, Wait, layout};

/// How long a request waits for another one to let go of the upload: a client whose connection was
/// cut may be back before its last request has noticed.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Of how many idle uploads the hash is remembered; at some 500 bytes each. For the others it is
/// computed again when they go on.
const SESSIONS_MAX: usize = 4096;

/// Uploads that this process has written to.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<(RepositoryName, UploadId), Session>>);

#[derive(Debug)]
struct Session {
    /// Held by the one request that writes.
    hashed: Arc<AsyncMutex<Hashed>>,
    /// When it was last asked for.
    used: Instant,
}

impl Sessions {
    /// Returns the hash of an upload; where it is not remembered, that of no bytes.
    fn hashed(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
        algorithm: Algorithm,
    ) -> Arc<AsyncMutex<Hashed>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX {
            forget_idle(&mut sessions);
        }
        let now = Instant::now();
        let session = sessions
            .entry((repository.clone(), id.clone()))
            .or_insert_with(|| Session {
                hashed: Arc::new(AsyncMutex::new(Hashed::nothing(algorithm))),
                used: now,
            });
        session.used = now;
        Arc::clone(&session.hashed)
    }

    fn forget(&self, repository: &RepositoryName, id: &UploadId) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&(repository.clone(), id.clone()));
    }
}

/// Forgets the older half of the sessions that no request holds.
fn forget_idle(sessions: &mut HashMap<(RepositoryName, UploadId), Session>) {
    let idle = |session: &Session| Arc::strong_count(&session.hashed) == 1;
    let mut used: Vec<Instant> = sessions
        .values()
        .filter(|session| idle(session))
        .map(|session| session.used)
        .collect();
    let middle = used.len() / 2;
    if let Some((_, median, _)) = (!used.is_empty()).then(|| used.select_nth_unstable(middle)) {
        let median = *median;
        sessions.retain(|_, session| !idle(session) || session.used > median);
    }
}

impl Registry {
    /// Begins an upload whose digest is expected to be of `algorithm`.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(crate) fn begin_upload(
        &self,
        repository: &RepositoryName,
        algorithm: Algorithm,
    ) -> Result<UploadId, Error> {
        let id: UploadId = Uuid::new_v4()
            .to_string()
            .parse()
            .expect("invariant: an upload id is a UUID");
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let key = layout::upload_started_at(repository, &id);
        self.driver
            .write(&key, now.as_bytes(), Durability::Process)?;
        drop(self.sessions.hashed(repository, &id, algorithm));
        Ok(id)
    }

    /// Returns how many bytes an upload has received.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`].
    pub(crate) fn upload_size(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<u64, Error> {
        self.check_upload(repository, id)?;
        let stat = if_found(
            self.driver
                .stat(&layout::upload_data(repository, id), Wait::AsNeeded),
        )?;
        Ok(stat.map_or(0, |stat| stat.size_bytes))
    }

    /// Waits until no other request writes to an upload, and keeps others out from then on.
    ///
    /// # Errors
    /// [`Error::UploadBusy`] when the other one does not let go.
    pub(crate) async fn claim_upload(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<UploadClaim, Error> {
        let hashed = self.sessions.hashed(repository, id, Algorithm::default());
        match tokio::time::timeout(BUSY_WAIT, hashed.lock_owned()).await {
            Ok(hashed) => {
                let upload = Upload {
                    registry: Arc::clone(self),
                    repository: repository.clone(),
                    id: id.clone(),
                };
                Ok(UploadClaim { upload, hashed })
            }
            Err(_elapsed) => Err(Error::UploadBusy { id: id.clone() }),
        }
    }

    /// Removes the uploads that nobody has written to since `before`; returns how many. What cannot be
    /// read or removed is passed over.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn expire_uploads(&self, before: SystemTime) -> Result<usize, Error> {
        let mut expired = 0;
        self.visit_repositories(None, &mut |found| {
            expired += self.expire_uploads_of(&found.name, before);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(expired)
    }

    /// Removes what interrupted writes left in storage before `before`; returns how many.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn sweep(&self, before: SystemTime) -> Result<usize, Error> {
        Ok(self.driver.sweep(before)?)
    }

    fn expire_uploads_of(&self, repository: &RepositoryName, before: SystemTime) -> usize {
        let folder = layout::uploads(repository);
        let children = if_found(self.driver.list(&folder)).unwrap_or_else(|error| {
            self.report_skipped(&folder, &error);
            None
        });
        let mut expired = 0;
        for child in children.unwrap_or_default() {
            let Ok(id) = child.name.parse() else {
                continue;
            };
            match self.expire_upload(repository, &id, before) {
                Ok(is_expired) => expired += usize::from(is_expired),
                Err(error) => self.report_skipped(&folder.child(&child.name), &error),
            }
        }
        expired
    }

    fn expire_upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
        before: SystemTime,
    ) -> Result<bool, Error> {
        if !self.is_abandoned(repository, id, before)? {
            return Ok(false);
        }
        let hashed = self.sessions.hashed(repository, id, Algorithm::default());
        let Ok(_claim) = hashed.try_lock() else {
            return Ok(false); // someone goes on with it
        };
        // Someone may have gone on with it just before the claim.
        let is_abandoned = self.is_abandoned(repository, id, before)?;
        if is_abandoned {
            self.discard_upload(repository, id)?;
        }
        Ok(is_abandoned)
    }

    fn is_abandoned(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
        before: SystemTime,
    ) -> Result<bool, Error> {
        // The folder's time is that of the beginning; that of the data moves on with each write.
        for key in [
            layout::upload(repository, id),
            layout::upload_data(repository, id),
        ] {
            if let Some(stat) = if_found(self.driver.stat(&key, Wait::AsNeeded))?
                && stat.modified >= before
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check_upload(&self, repository: &RepositoryName, id: &UploadId) -> Result<(), Error> {
        match if_found(
            self.driver
                .stat(&layout::upload_started_at(repository, id), Wait::AsNeeded),
        )? {
            Some(_) => Ok(()),
            None => Err(Error::UploadUnknown { id: id.clone() }),
        }
    }

    fn discard_upload(&self, repository: &RepositoryName, id: &UploadId) -> Result<(), Error> {
        // In this order: whoever asks in between waits for the same claim, and then finds nothing.
        if_found(
            self.driver
                .delete(&layout::upload(repository, id), Durability::Process),
        )?;
        self.sessions.forget(repository, id);
        Ok(())
    }
}

/// An upload, as one request knows it.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) registry: Arc<Registry>,
    pub(super) repository: RepositoryName,
    id: UploadId,
}

impl Upload {
    pub(super) fn data(&self) -> Key {
        layout::upload_data(&self.repository, &self.id)
    }

    /// Checks that there still is such an upload; of one that is not, nothing is remembered.
    fn check(&self) -> Result<(), Error> {
        let checked = self.registry.check_upload(&self.repository, &self.id);
        if matches!(checked, Err(Error::UploadUnknown { .. })) {
            self.registry.sessions.forget(&self.repository, &self.id);
        }
        checked
    }

    /// Removes the upload and all it has received.
    pub(super) fn discard(&self) {
        // What stays behind is harmless, and expires.
        drop(self.registry.discard_upload(&self.repository, &self.id));
    }
}

/// The right of one request to write to an upload.
#[derive(Debug)]
pub(crate) struct UploadClaim {
    upload: Upload,
    hashed: OwnedMutexGuard<Hashed>,
}

impl UploadClaim {
    /// Opens the upload at its end, to be hashed by `algorithm` from here on where that is known.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`].
    pub(crate) fn open(self, algorithm: Option<Algorithm>) -> Result<Append, Error> {
        let Self { upload, hashed } = self;
        upload.check()?;
        Append::open(upload, hashed, algorithm)
    }

    /// Removes the upload and all it has received.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`].
    pub(crate) fn cancel(self) -> Result<(), Error> {
        let upload = &self.upload;
        upload.check()?;
        upload
            .registry
            .discard_upload(&upload.repository, &upload.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Filesystem;
    use crate::storage::faulty::{Faults, Faulty};

    fn registry(root: &tempfile::TempDir) -> (Arc<Registry>, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        let driver = Filesystem::open(root.path(), true).unwrap();
        let driver = Faulty::new(driver, Arc::clone(&faults));
        (Arc::new(Registry::new(Box::new(driver))), faults)
    }

    fn remembered(registry: &Registry) -> usize {
        registry.sessions.0.lock().unwrap().len()
    }

    #[tokio::test]
    async fn a_session_is_forgotten_only_once_its_folder_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let (registry, faults) = registry(&root);
        let name: RepositoryName = "a".parse().unwrap();
        let id = registry.begin_upload(&name, Algorithm::Sha256).unwrap();
        faults.break_keys(Some("_uploads"));
        let claim = registry.claim_upload(&name, &id).await.unwrap();
        claim.cancel().unwrap_err();
        assert_eq!(remembered(&registry), 1);
        faults.break_keys(None);

        let first = registry.claim_upload(&name, &id).await.unwrap();
        let mut waiting = claim_in_a_task(&registry, &name, &id);
        tokio::task::yield_now().await;
        first.cancel().unwrap();
        let second = (&mut waiting).await.unwrap();
        let opened = second.open(None);
        assert!(matches!(opened, Err(Error::UploadUnknown { .. })));
        assert!(registry.upload_size(&name, &id).is_err());
        assert_eq!(remembered(&registry), 0);
    }

    fn claim_in_a_task(
        registry: &Arc<Registry>,
        name: &RepositoryName,
        id: &UploadId,
    ) -> tokio::task::JoinHandle<UploadClaim> {
        let (registry, name, id) = (Arc::clone(registry), name.clone(), id.clone());
        tokio::spawn(async move { registry.claim_upload(&name, &id).await.unwrap() })
    }

    #[tokio::test]
    async fn an_unknown_upload_is_not_remembered() {
        let root = tempfile::tempdir().unwrap();
        let (registry, _) = registry(&root);
        let name: RepositoryName = "a".parse().unwrap();
        let id: UploadId = "6c3f62a0-0000-4000-8000-0123456789ab".parse().unwrap();
        let claim = registry.claim_upload(&name, &id).await.unwrap();
        claim.open(None).unwrap_err();
        assert_eq!(remembered(&registry), 0);
        let claim = registry.claim_upload(&name, &id).await.unwrap();
        claim.cancel().unwrap_err();
        assert_eq!(remembered(&registry), 0);
    }

    #[test]
    fn idle_sessions_are_forgotten_and_busy_ones_are_not() {
        let sessions = Sessions::default();
        let repository: RepositoryName = "a".parse().unwrap();
        let id = |number: usize| -> UploadId {
            format!("00000000-0000-4000-8000-{number:012x}")
                .parse()
                .unwrap()
        };
        let first = sessions.hashed(&repository, &id(0), Algorithm::Sha512);
        let busy = first.try_lock().unwrap();
        for number in 1..SESSIONS_MAX * 3 {
            drop(sessions.hashed(&repository, &id(number), Algorithm::Sha256));
            assert!(sessions.0.lock().unwrap().len() <= SESSIONS_MAX);
        }
        let again = sessions.hashed(&repository, &id(0), Algorithm::Sha256);
        assert!(again.try_lock().is_err(), "it is the same one");
        let newest = (repository, id(SESSIONS_MAX * 3 - 1));
        assert!(sessions.0.lock().unwrap().contains_key(&newest));
        drop(busy);
        assert_eq!(again.try_lock().unwrap().algorithm(), Algorithm::Sha512);
    }
}
