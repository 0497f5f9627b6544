//! What `tidegate renew` asks of the edge that runs: a file in the state folder, and one in reply.
//!
//! A request is a file `renewals/<id>.request`. The edge that renames it has taken it, and leaves
//! what came of it in `<id>.outcome`. Whether there is an edge is seen by the lock that it holds.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use openssl::rand::rand_bytes;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::storage::{Storage, open_lock};
use crate::state_dir;

const REQUEST: &str = ".request";
const TAKEN: &str = ".taken";
const OUTCOME: &str = ".outcome";

/// More than any request or outcome takes.
const JSON_BYTES_MAX: u64 = 1024 * 1024;

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Renewal {
    /// The site, by one of its hosts; without one, all.
    pub site: Option<String>,
    /// Whether only to try, at the CA's staging directory where it has one.
    pub dry_run: bool,
    #[serde(skip)]
    id: String,
}

/// What came of it for one site.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Outcome {
    /// The name of the site's files.
    pub site: String,
    /// Why there is no certificate; without it, there is.
    pub failure: Option<String>,
    /// What to do about that.
    pub advice: Option<String>,
}

/// A request that was made.
#[derive(Debug)]
pub struct Pending {
    folder: PathBuf,
    id: String,
    presence: File,
}

/// Asks the edge that runs on this folder to renew; `None` when there is no such edge.
///
/// # Errors
/// What the system says.
pub fn ask(storage: &Storage, renewal: &Renewal) -> io::Result<Option<Pending>> {
    let presence = open_presence(storage)?;
    if is_alone(&presence) {
        return Ok(None);
    }
    let folder = storage.renewals()?;
    let mut bytes = [0; 8];
    rand_bytes(&mut bytes).map_err(io::Error::other)?;
    let id = format!("{:016x}", u64::from_be_bytes(bytes));
    let text = serde_json::to_vec(renewal).map_err(io::Error::other)?;
    state_dir::replace(&folder.join(format!("{id}{REQUEST}")), &text)?;
    Ok(Some(Pending {
        folder,
        id,
        presence,
    }))
}

impl Pending {
    /// Returns what came of it, once it is known.
    ///
    /// # Errors
    /// What the system says.
    pub fn outcome(&self) -> io::Result<Option<Vec<Outcome>>> {
        let path = self.folder.join(format!("{}{OUTCOME}", self.id));
        let bytes = match state_dir::read(&path, JSON_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if is_alone(&self.presence) {
                    Err(io::Error::other("the edge has ended"))
                } else {
                    Ok(None)
                };
            }
            other => other?,
        };
        state_dir::remove(&path)?;
        Ok(Some(serde_json::from_slice(&bytes)?))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Who does not wait any more does not want it any more.
        let path = self.folder.join(format!("{}{REQUEST}", self.id));
        drop(state_dir::remove(&path));
    }
}

/// Shows, as long as the file is held, that an edge works on the folder.
pub(super) fn be_present(storage: &Storage) -> io::Result<File> {
    let presence = open_presence(storage)?;
    // Nobody holds it alone for longer than it takes to look.
    flock(&presence, FlockOperation::LockShared)?;
    Ok(presence)
}

/// Returns whether no edge works on the folder.
fn is_alone(presence: &File) -> bool {
    let alone = flock(presence, FlockOperation::NonBlockingLockExclusive).is_ok();
    if alone {
        // An edge that starts in this moment must not find it taken; it tries again all the same.
        flock(presence, FlockOperation::Unlock).ok();
    }
    alone
}

fn open_presence(storage: &Storage) -> io::Result<File> {
    open_lock(&storage.renewals()?.join("edges.lock"))
}

/// Takes the next request, if there is one.
pub(super) fn next(storage: &Storage) -> Option<Renewal> {
    let folder = storage.renewals().ok()?;
    state_dir::names(&folder, REQUEST)
        .ok()?
        .into_iter()
        .find_map(|id| take(&folder, id))
}

fn take(folder: &Path, id: String) -> Option<Renewal> {
    let taken = folder.join(format!("{id}{TAKEN}"));
    // Of several edges, one succeeds.
    fs::rename(folder.join(format!("{id}{REQUEST}")), &taken).ok()?;
    let bytes = state_dir::read(&taken, JSON_BYTES_MAX);
    state_dir::remove(&taken).ok()?;
    let renewal: Renewal = serde_json::from_slice(&bytes.ok()?).ok()?;
    Some(Renewal { id, ..renewal })
}

impl Renewal {
    /// Asks for the site of a host, or for all.
    pub fn new(site: Option<String>, dry_run: bool) -> Self {
        Self {
            site,
            dry_run,
            id: String::new(),
        }
    }

    /// Returns whether it is about a site of this name and with these hosts.
    pub(super) fn is_about(&self, name: &str, hosts: &[String]) -> bool {
        let wanted = |site: &String| site == name || hosts.contains(site);
        self.site.as_ref().is_none_or(wanted)
    }

    /// Says that the state folder stands in the way.
    pub(super) fn fail(&self, storage: &Storage, error: &io::Error) {
        let outcome = Outcome::of("", Some(&Failure::ours(error)));
        self.finish(storage, &[outcome]);
    }

    /// Leaves what came of it.
    pub(super) fn finish(&self, storage: &Storage, outcomes: &[Outcome]) {
        let left = storage.renewals().and_then(|folder| {
            let text = serde_json::to_vec(outcomes)?;
            state_dir::replace(&folder.join(format!("{}{OUTCOME}", self.id)), &text)
        });
        if let Err(error) = left {
            tracing::error!(%error, "the outcome of a renewal cannot be told");
        }
    }
}

impl Outcome {
    pub(super) fn of(site: &str, failure: Option<&Failure>) -> Self {
        Self {
            site: site.to_owned(),
            failure: failure.map(ToString::to_string),
            advice: failure.map(|failure| failure.advice().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::StateDir;

    #[test]
    fn a_request_is_taken_once_and_its_outcome_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::new(StateDir::new(folder.path()));
        let renewal = Renewal {
            site: Some("a.test".to_owned()),
            ..Renewal::default()
        };
        assert!(ask(&storage, &renewal).unwrap().is_none(), "no edge");
        let presence = be_present(&storage).unwrap();
        let other_edge = be_present(&storage).unwrap();
        let pending = ask(&storage, &renewal).unwrap().unwrap();
        let taken = next(&storage).unwrap();
        assert!(next(&storage).is_none());
        assert!(taken.is_about("x", &["a.test".to_owned()]) && !taken.is_about("b.test", &[]));
        assert!(pending.outcome().unwrap().is_none());
        let failure = Failure::ours("refused");
        taken.finish(&storage, &[Outcome::of("a.test", Some(&failure))]);
        let [outcome] = &pending.outcome().unwrap().unwrap()[..] else {
            panic!()
        };
        assert_eq!(outcome.failure.as_deref(), Some("refused"));
        drop((presence, other_edge));
        assert!(
            ask(&storage, &renewal).unwrap().is_none(),
            "no edge any more"
        );
    }
}
