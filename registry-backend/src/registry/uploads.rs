//! Uploads: sessions that begin, are claimed by one request after the other, and expire. What such a
//! request writes is an [`Append`]'s.
//!
//! A session is a folder with the bytes so far, and nothing else on disk: the state of the hash is
//! kept in memory and computed again from the bytes where it is missing, after a restart for
//! example. So a session survives everything, and nothing that is read from disk is trusted.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use oci::{Algorithm, RepositoryName, UploadId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use uuid::Uuid;

use super::append::{Append, Hashed};
use super::open_uploads::{Look, RESTS_FOR, UploadLimits};
use super::{Error, Principal, Registry};
use crate::storage::error::if_found;
use crate::storage::{Durability, Key, Lock, Wait, layout};

/// How long a request waits for another one to let go of the upload: a client whose connection was
/// cut may be back before its last request has noticed.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Of how many idle uploads the hash is remembered; at some 500 bytes each. For the others it is
/// computed again when they go on.
const SESSIONS_MAX: usize = 4096;

/// An upload that is to begin.
#[derive(Clone, Debug)]
pub(crate) struct NewUpload {
    /// Where.
    pub(crate) repository: RepositoryName,
    /// Of what algorithm its digest is expected to be.
    pub(crate) algorithm: Algorithm,
    /// Whom it counts for.
    pub(crate) principal: Principal,
    /// How many there may be.
    pub(crate) limits: UploadLimits,
}

/// Uploads that this process has written to.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<(RepositoryName, UploadId), Session>>);

#[derive(Debug)]
struct Session {
    state: Arc<State>,
    /// When it was last asked for.
    used: Instant,
}

/// What is remembered of an upload.
#[derive(Debug)]
struct State {
    /// Held by the one request that writes.
    hashed: Arc<AsyncMutex<Hashed>>,
    /// How many bytes this process has left in the file. If there are others, another process has gone on
    /// with the upload, and the hash may be of bytes that are not in the file.
    left: Arc<AtomicU64>,
}

impl Sessions {
    /// Returns what is remembered of an upload; of one that is not, the hash of no bytes.
    fn state(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
        algorithm: Algorithm,
    ) -> Arc<State> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX {
            forget_idle(&mut sessions);
        }
        let now = Instant::now();
        let session = sessions
            .entry((repository.clone(), id.clone()))
            .or_insert_with(|| Session {
                state: Arc::new(State {
                    hashed: Arc::new(AsyncMutex::new(Hashed::nothing(algorithm))),
                    left: Arc::default(),
                }),
                used: now,
            });
        session.used = now;
        Arc::clone(&session.state)
    }

    fn forget(&self, repository: &RepositoryName, id: &UploadId) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&(repository.clone(), id.clone()));
    }
}

/// Forgets the older half of the sessions that no request holds.
fn forget_idle(sessions: &mut HashMap<(RepositoryName, UploadId), Session>) {
    let idle = |session: &Session| {
        Arc::strong_count(&session.state) == 1 && Arc::strong_count(&session.state.hashed) == 1
    };
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
    /// Begins an upload. Where its principal has too many, one that has rested for long makes room.
    ///
    /// # Errors
    /// [`Error::TooManyUploads`] and [`Error::NoSpace`].
    pub(crate) fn begin_upload(&self, new: &NewUpload) -> Result<UploadId, Error> {
        let repository = &new.repository;
        let id: UploadId = Uuid::new_v4()
            .to_string()
            .parse()
            .expect("invariant: an upload id is a UUID");
        self.count_upload(new, &id)?;
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let key = layout::upload_started_at(repository, &id);
        let written = self.driver.write(&key, now.as_bytes(), Durability::Process);
        if let Err(error) = written {
            self.open_uploads.ended(repository, &id);
            return Err(error.into());
        }
        drop(self.sessions.state(repository, &id, new.algorithm));
        Ok(id)
    }

    fn count_upload(&self, new: &NewUpload, id: &UploadId) -> Result<(), Error> {
        let begin = || {
            let name = (new.repository.clone(), id.clone());
            self.open_uploads.begin(name, &new.principal, new.limits)
        };
        let Err(refused) = begin() else {
            return Ok(());
        };
        if !refused.is_about_uploads_of_principal() || !self.make_room(&new.principal) {
            return Err(refused);
        }
        begin()
    }

    /// Removes an upload of a principal's that has rested for long; returns whether there was one.
    fn make_room(&self, principal: &Principal) -> bool {
        let before = SystemTime::now().checked_sub(RESTS_FOR);
        let before = before.unwrap_or(SystemTime::UNIX_EPOCH);
        let mut resting = self.open_uploads.resting(principal).into_iter();
        resting.any(|(repository, id)| {
            let removed = self.expire_upload(&repository, &id, before);
            if matches!(removed, Ok(false)) {
                // It was gone on with for longer than a request is remembered.
                self.open_uploads.went_on(&repository, &id);
            }
            removed.unwrap_or(false)
        })
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
        let state = self.sessions.state(repository, id, Algorithm::default());
        let folder = layout::upload(repository, id);
        let locked = async {
            let hashed = Arc::clone(&state.hashed).lock_owned().await;
            Ok::<_, Error>((hashed, self.lock_folder(&folder).await?))
        };
        match tokio::time::timeout(BUSY_WAIT, locked).await {
            Ok(locked) => {
                let (hashed, lock) = locked?;
                let upload = Upload {
                    registry: Arc::clone(self),
                    repository: repository.clone(),
                    id: id.clone(),
                    left: Arc::clone(&state.left),
                    _lock: lock,
                };
                Ok(UploadClaim { upload, hashed })
            }
            Err(_elapsed) => Err(Error::UploadBusy { id: id.clone() }),
        }
    }

    /// Removes the uploads that nobody has written to since `before`, and those without a byte that
    /// have rested for an hour; returns how many. What cannot be read or removed is passed over.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn expire_uploads(&self, before: SystemTime) -> Result<usize, Error> {
        let look = self.open_uploads.look();
        let mut expired = 0;
        self.visit_repositories(None, &mut |found| {
            expired += self.expire_uploads_of(look, &found.name, before);
            Ok(ControlFlow::Continue(()))
        })?;
        self.open_uploads.looked(look);
        Ok(expired)
    }

    /// Removes what interrupted writes left in storage before `before`; returns how many.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn sweep(&self, before: SystemTime) -> Result<usize, Error> {
        Ok(self.driver.sweep(before)?)
    }

    fn expire_uploads_of(
        &self,
        look: Look,
        repository: &RepositoryName,
        before: SystemTime,
    ) -> usize {
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
                Ok(true) => {
                    expired += 1;
                    continue;
                }
                Ok(false) => {}
                Err(error) => self.report_skipped(&folder.child(&child.name), &error),
            }
            self.open_uploads.found(look, repository, &id);
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
        let state = self.sessions.state(repository, id, Algorithm::default());
        let Ok(_claim) = state.hashed.try_lock() else {
            return Ok(false); // someone goes on with it
        };
        let folder = layout::upload(repository, id);
        let lock = if_found(self.driver.try_lock(&folder, Wait::AsNeeded))?;
        if matches!(lock, Some(None)) {
            return Ok(false); // someone does in another process
        }
        // Someone may have gone on with it just before the claim.
        let is_abandoned = self.is_abandoned(repository, id, before)?;
        if is_abandoned {
            self.discard_upload(repository, id)?;
            self.tally.expired_upload();
        }
        Ok(is_abandoned)
    }

    fn is_abandoned(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
        before: SystemTime,
    ) -> Result<bool, Error> {
        let stat = |key| if_found(self.driver.stat(&key, Wait::AsNeeded));
        // The folder's time is that of the beginning; that of the data moves on with each write.
        let begun = stat(layout::upload(repository, id))?;
        let data = stat(layout::upload_data(repository, id))?;
        let before = match &data {
            Some(data) if data.size_bytes > 0 => before,
            // There is nothing to go on with.
            _ => SystemTime::now()
                .checked_sub(RESTS_FOR)
                .map_or(before, |hour_ago| before.max(hour_ago)),
        };
        let mut times = begun.iter().chain(&data).map(|stat| stat.modified);
        Ok(times.all(|modified| modified < before))
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
        self.forget_upload(repository, id);
        Ok(())
    }

    fn forget_upload(&self, repository: &RepositoryName, id: &UploadId) {
        self.sessions.forget(repository, id);
        self.open_uploads.ended(repository, id);
    }
}

/// An upload, as one request knows it.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) registry: Arc<Registry>,
    pub(super) repository: RepositoryName,
    id: UploadId,
    left: Arc<AtomicU64>,
    /// Keeps other processes out.
    _lock: Option<Lock>,
}

impl Upload {
    /// Returns whether this process was the last to write to the upload, whose file has `size_bytes`.
    pub(super) fn is_as_left(&self, size_bytes: u64) -> bool {
        self.left.load(Ordering::Relaxed) == size_bytes
    }

    /// Takes down that the file has `size_bytes` now.
    pub(super) fn leave(&self, size_bytes: u64) {
        self.left.store(size_bytes, Ordering::Relaxed);
    }

    pub(super) fn data(&self) -> Key {
        layout::upload_data(&self.repository, &self.id)
    }

    /// Checks that there still is such an upload; of one that is not, nothing is remembered.
    fn check(&self) -> Result<(), Error> {
        let checked = self.registry.check_upload(&self.repository, &self.id);
        match &checked {
            Ok(()) => self
                .registry
                .open_uploads
                .went_on(&self.repository, &self.id),
            Err(Error::UploadUnknown { .. }) => {
                self.registry.forget_upload(&self.repository, &self.id);
            }
            Err(_) => {}
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
        let id = registry.begin_upload(&new("a", 0)).unwrap();
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

    /// An upload of which a principal may have `principal_max`.
    fn new(repository: &str, principal_max: usize) -> NewUpload {
        NewUpload {
            repository: repository.parse().unwrap(),
            algorithm: Algorithm::Sha256,
            principal: Principal::Unknown,
            limits: UploadLimits {
                principal: principal_max,
                ..UploadLimits::default()
            },
        }
    }

    /// Makes an upload as old as it takes to make room.
    fn age(registry: &Registry, root: &tempfile::TempDir, id: &UploadId) {
        let name: RepositoryName = "a".parse().unwrap();
        registry.open_uploads.rested(&name, id);
        let long_ago = SystemTime::now() - RESTS_FOR * 2;
        for key in [
            layout::upload(&name, id),
            layout::upload_data(&name, id),
            layout::upload_started_at(&name, id),
        ] {
            if let Ok(file) = std::fs::File::open(key.below(root.path())) {
                file.set_modified(long_ago).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn an_upload_that_has_rested_makes_room_and_one_that_goes_on_does_not() {
        let root = tempfile::tempdir().unwrap();
        let (registry, faults) = registry(&root);
        let name: RepositoryName = "a".parse().unwrap();
        let begin = || registry.begin_upload(&new("a", 2));
        let (first, second) = (begin().unwrap(), begin().unwrap());
        let refused = || matches!(begin(), Err(Error::TooManyUploads { max: 2, .. }));
        assert!(refused());
        age(&registry, &root, &first);
        let claim = registry.claim_upload(&name, &first).await.unwrap();
        assert!(refused(), "a request writes to it");
        let mut append = claim.open(None).unwrap();
        append.write(b"bytes").unwrap();
        drop(append);
        assert!(refused(), "it has just gone on");

        age(&registry, &root, &first);
        let third = begin().unwrap();
        assert!(registry.upload_size(&name, &first).is_err());
        registry.upload_size(&name, &second).unwrap();
        assert!(refused());
        let claim = registry.claim_upload(&name, &third).await.unwrap();
        claim.cancel().unwrap();
        faults.set_full(true);
        assert!(matches!(begin(), Err(Error::NoSpace { .. })));
        faults.set_full(false);
        begin().unwrap();
        assert!(refused());
    }

    #[tokio::test]
    async fn an_upload_without_a_byte_expires_within_the_hour_and_others_do_not() {
        let root = tempfile::tempdir().unwrap();
        let (registry, _) = registry(&root);
        let name: RepositoryName = "a".parse().unwrap();
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(registry.begin_upload(&new("a", 0)).unwrap());
        }
        for id in &ids[1..3] {
            let claim = registry.claim_upload(&name, id).await.unwrap();
            let mut append = claim.open(None).unwrap();
            if *id == ids[1] {
                append.write(b"bytes").unwrap();
            }
        }
        for id in &ids[..3] {
            age(&registry, &root, id);
        }
        let week_ago = SystemTime::now() - Duration::from_secs(7 * 86_400);
        assert_eq!(registry.expire_uploads(week_ago).unwrap(), 2);
        registry.upload_size(&name, &ids[1]).unwrap();
        registry.upload_size(&name, &ids[3]).unwrap();
        let in_an_hour = SystemTime::now() + RESTS_FOR;
        assert_eq!(registry.expire_uploads(in_an_hour).unwrap(), 2);
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
        let first = sessions.state(&repository, &id(0), Algorithm::Sha512);
        let busy = first.hashed.try_lock().unwrap();
        for number in 1..SESSIONS_MAX * 3 {
            drop(sessions.state(&repository, &id(number), Algorithm::Sha256));
            assert!(sessions.0.lock().unwrap().len() <= SESSIONS_MAX);
        }
        let again = sessions.state(&repository, &id(0), Algorithm::Sha256);
        assert!(again.hashed.try_lock().is_err(), "it is the same one");
        let newest = (repository, id(SESSIONS_MAX * 3 - 1));
        assert!(sessions.0.lock().unwrap().contains_key(&newest));
        drop(busy);
        assert_eq!(
            again.hashed.try_lock().unwrap().algorithm(),
            Algorithm::Sha512
        );
    }
}
