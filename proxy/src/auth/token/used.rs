//! When a robot or a refresh token was last used: to the minute, and on disk a little later.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::state_dir::{self, StateDir};

/// How exactly a use is told, and how often the file is written at most.
const STEP_SECS: u64 = 60;

const FILE_BYTES_MAX: u64 = 16 << 20;

/// When what was last used, in seconds since 1970.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LastUsed {
    /// Robots by name.
    #[serde(default)]
    pub robots: HashMap<String, u64>,
    /// Refresh tokens by the name that each is revoked by.
    #[serde(default)]
    pub sessions: HashMap<String, u64>,
}

impl LastUsed {
    /// Reads what the edge wrote down; nothing if it has not yet.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(state: &StateDir) -> io::Result<Self> {
        match state_dir::read(&path(state), FILE_BYTES_MAX) {
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

fn path(state: &StateDir) -> PathBuf {
    state.path().join("tokens/used.json")
}

/// What the edge knows of it.
#[derive(Debug)]
pub(crate) struct Used {
    state: StateDir,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    /// Nothing until the file has been read.
    last: Option<LastUsed>,
    changed: bool,
    written: u64,
}

/// What is used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Thing<'a> {
    Robot(&'a str),
    Session(&'a str),
}

impl Used {
    /// Knows nothing yet.
    pub(crate) fn new(state: StateDir) -> Self {
        Self {
            state,
            times: Mutex::default(),
        }
    }

    /// Notes a use.
    pub(crate) fn note(&self, thing: Thing<'_>, now: u64) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let last = times.last.get_or_insert_default();
        let (map, name) = match thing {
            Thing::Robot(name) => (&mut last.robots, name),
            Thing::Session(name) => (&mut last.sessions, name),
        };
        match map.get_mut(name) {
            Some(before) if *before + STEP_SECS > now => return,
            Some(before) => *before = now,
            None => {
                map.insert(name.to_owned(), now);
            }
        }
        times.changed = true;
    }

    /// Returns whether there is news and the last time it was written was long enough ago.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.changed && times.written + STEP_SECS <= now
    }

    /// Writes the file. `exists` says of what the times are still worth keeping.
    pub(crate) fn write(&self, now: u64, exists: impl Fn(Thing<'_>) -> bool) {
        let text = {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            if times.written == 0 {
                // What was used before this process began is not forgotten.
                let before = LastUsed::read(&self.state).unwrap_or_default();
                let last = times.last.get_or_insert_default();
                for (name, time) in before.robots {
                    last.robots.entry(name).or_insert(time);
                }
                for (name, time) in before.sessions {
                    last.sessions.entry(name).or_insert(time);
                }
            }
            times.written = now;
            times.changed = false;
            let last = times.last.get_or_insert_default();
            last.robots.retain(|name, _| exists(Thing::Robot(name)));
            last.sessions.retain(|name, _| exists(Thing::Session(name)));
            serde_json::to_vec_pretty(last).unwrap_or_default()
        };
        if let Err(error) = state_dir::replace(&path(&self.state), &text) {
            tracing::warn!(%error, file = %path(&self.state).display(), "last uses are not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_written_once_a_minute_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        state.make("tokens").unwrap();
        let used = Used::new(state.clone());
        used.note(Thing::Robot("ci"), 1000);
        assert!(used.is_due(1000));
        used.write(1000, |_| true);
        let read = || LastUsed::read(&state).unwrap().robots;
        assert_eq!(read(), HashMap::from([("ci".to_owned(), 1000)]));
        assert!(!used.is_due(1060));
        used.note(Thing::Robot("other"), 1010);
        assert!(!used.is_due(1059));
        assert!(used.is_due(1060));
        used.write(1060, |_| true);
        assert_eq!(read().len(), 2);

        let used = Used::new(state.clone());
        used.note(Thing::Robot("ci"), 2000);
        used.write(2000, |thing| matches!(thing, Thing::Robot("ci")));
        assert_eq!(read(), HashMap::from([("ci".to_owned(), 2000)]));
    }
}
