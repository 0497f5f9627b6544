//! Patience with a registry that cannot be connected to: it restarts within moments, and a client that is
//! told 503 meanwhile gives up its push.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Wire;
use crate::upstream::Socket;

/// How often a registry that is away is asked for.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// After how long without a request an absence is taken for another one.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Since when registries have been away, by socket.
///
/// Each is waited for once: whoever asks for it when that time is over is told so at once.
#[derive(Debug, Default)]
pub(super) struct Absences(Mutex<HashMap<PathBuf, Absence>>);

#[derive(Debug)]
struct Absence {
    since: Instant,
    /// When the registry was last asked for in vain.
    asked: Instant,
}

impl Absences {
    /// Connects to a registry; waits for one that is away, no longer than it may take to connect.
    pub(super) async fn connect(&self, socket: &Socket) -> io::Result<Wire> {
        loop {
            let patience = socket.connect_timeout;
            match Wire::connect(&socket.path, patience).await {
                Ok(wire) => {
                    self.over(&socket.path);
                    return Ok(wire);
                }
                Err(error) if is_away(&error) && self.lasts(&socket.path, patience) < patience => {}
                Err(error) => return Err(error),
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Takes down that a registry is away; returns for how long. One that nobody has asked for in a while has
    /// been back since.
    fn lasts(&self, path: &Path, patience: Duration) -> Duration {
        let now = Instant::now();
        let mut absences = self.lock();
        let absence = match absences.get_mut(path) {
            Some(absence) => absence,
            None => absences.entry(path.to_owned()).or_insert(Absence {
                since: now,
                asked: now,
            }),
        };
        if now - absence.asked > patience.max(FORGET_AFTER) {
            absence.since = now;
        }
        absence.asked = now;
        now - absence.since
    }

    fn over(&self, path: &Path) {
        self.lock().remove(path);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Absence>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a registry may be there in a moment: it has not made its socket yet, or takes no
/// connections, or more wait for it than the system lets.
fn is_away(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
    )
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    fn socket(path: PathBuf, patience: Duration) -> Socket {
        Socket {
            path,
            connect_timeout: patience,
            read_timeout: patience,
            readiness: std::sync::Arc::default(),
        }
    }

    #[tokio::test]
    async fn a_registry_that_comes_back_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = socket(folder.path().join("sock"), Duration::from_secs(60));
        let absences = Absences::default();
        let comes = async {
            sleep(ASK_EVERY * 3).await;
            UnixListener::bind(&socket.path).unwrap()
        };
        let (connected, listener) = tokio::join!(absences.connect(&socket), comes);
        drop(connected.unwrap());
        // What is left of one that was killed.
        drop(listener);
        let comes = async {
            sleep(ASK_EVERY * 3).await;
            std::fs::remove_file(&socket.path).unwrap();
            UnixListener::bind(&socket.path).unwrap()
        };
        let (connected, _listener) = tokio::join!(absences.connect(&socket), comes);
        connected.unwrap();
        assert!(absences.lock().is_empty());
    }

    #[tokio::test]
    async fn one_that_stays_away_is_waited_for_once() {
        let folder = tempfile::tempdir().unwrap();
        let patience = Duration::from_millis(300);
        let socket = socket(folder.path().join("sock"), patience);
        let absences = Absences::default();
        let begin = Instant::now();
        absences.connect(&socket).await.unwrap_err();
        let first = begin.elapsed();
        assert!(first >= patience, "{first:?}");
        for _ in 0..100 {
            absences.connect(&socket).await.unwrap_err();
        }
        assert!(begin.elapsed() < first * 3, "{:?}", begin.elapsed());
        // What is no socket, or may not be opened, does not become one by waiting.
        let _listener = UnixListener::bind(&socket.path).unwrap();
        absences.connect(&socket).await.unwrap();
        assert!(absences.lock().is_empty());
    }
}
