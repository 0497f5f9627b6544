//! Links: small files that name a digest. Those of a crashed `registry:2` may be torn or empty.

use std::sync::PoisonError;

use oci::Digest;

use super::{Error, Registry};
use crate::storage::error::if_found;
use crate::storage::{self, Durability, Key, Wait};

/// Longer than the longest digest: anything above is no link.
const LINK_SIZE_MAX: u64 = 256;

/// How many broken objects are remembered as reported.
const REPORTED_MAX: usize = 4096;

impl Registry {
    /// Returns what a link names, or nothing where there is none that can be read.
    pub(super) fn link(&self, key: &Key, wait: Wait) -> Result<Option<Digest>, Error> {
        let read = self.driver.read(key, LINK_SIZE_MAX, wait);
        self.digest_in(read, || key.clone())
    }

    /// Returns what the link at `rest` names below each of `names` in a folder.
    pub(super) fn links(
        &self,
        folder: &Key,
        names: &[&str],
        rest: &str,
    ) -> Result<Vec<Option<Digest>>, Error> {
        let read = self.driver.read_each(folder, names, rest, LINK_SIZE_MAX);
        read.into_iter()
            .zip(names)
            .map(|(read, name)| self.digest_in(read, || folder.child(name).child(rest)))
            .collect()
    }

    fn digest_in(
        &self,
        read: Result<Vec<u8>, storage::Error>,
        key: impl FnOnce() -> Key,
    ) -> Result<Option<Digest>, Error> {
        let content = match if_found(read) {
            Ok(None) => return Ok(None),
            Ok(Some(content)) => content,
            Err(storage::Error::TooLarge { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let digest = str::from_utf8(&content)
            .ok()
            .and_then(|text| text.parse().ok());
        if digest.is_none() {
            self.report(&key(), "link holds no digest: taken as absent");
        }
        Ok(digest)
    }

    /// Makes a link durable.
    pub(super) fn write_link(&self, key: &Key, digest: &Digest) -> Result<(), Error> {
        let content = digest.to_string();
        Ok(self
            .driver
            .write(key, content.as_bytes(), Durability::Power)?)
    }

    /// Tells the log, once, of an object that is not as it should be.
    pub(super) fn report(&self, key: &Key, problem: &str) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < REPORTED_MAX && reported.insert(key.clone()) {
            tracing::warn!(registry = self.name(), path = %key, "{problem}");
        }
    }

    /// Tells the log, once, of an object that is passed over because storage failed.
    pub(super) fn report_skipped(&self, key: &Key, error: &(dyn std::error::Error + 'static)) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < REPORTED_MAX && reported.insert(key.clone()) {
            tracing::error!(registry = self.name(), path = %key, error, "storage failed: passed over");
        }
    }
}
