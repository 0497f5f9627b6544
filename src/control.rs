//! The socket on which a running role is asked to reload, and reports the outcome.
//!
//! A signal has no answer. Here root and the role's own user write `reload` and read one line of JSON,
//! an [`Outcome`]. Others cannot open the socket, and are refused if they can.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{self, UnixListener};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::outcome::Outcome;

/// What is asked.
const RELOAD: &[u8] = b"reload\n";

/// How long somebody may take to say what they want, or to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a reload may take before whoever waits for it gives up.
const RELOAD_MAX: Duration = Duration::from_secs(60);

/// How long the answer may be.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// How many may ask at once.
const ASKING_MAX: usize = 4;

/// Those who ask this process to reload.
pub(crate) struct Control(mpsc::Receiver<Asker>);

/// Somebody who waits for the outcome of a reload.
pub(crate) struct Asker(net::UnixStream);

impl Control {
    /// Listens on a socket at `path`. Where that cannot be, nobody ever asks, and a signal is still
    /// obeyed.
    pub(crate) fn listen(path: &Path) -> Self {
        let (sender, receiver) = mpsc::channel(ASKING_MAX);
        match bind(path) {
            Ok(listener) => {
                tokio::spawn(accept(listener, sender));
            }
            Err(error) => {
                let path = path.display();
                tracing::info!(
                    "no control socket: `tidegate reload` does not reach this process: {path}: {error:#}"
                );
            }
        }
        Self(receiver)
    }

    /// Waits for the next one; none is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Asker {
        match self.0.recv().await {
            Some(asker) => asker,
            None => std::future::pending().await,
        }
    }
}

impl Asker {
    /// Reports the outcome.
    pub(crate) fn answer(self, outcome: &Outcome) {
        let Self(mut stream) = self;
        let line = outcome.to_json() + "\n";
        // Who does not listen is not waited for.
        tokio::spawn(timeout(PATIENCE, async move {
            stream.write_all(line.as_bytes()).await.ok();
        }));
    }
}

fn bind(path: &Path) -> Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        bail!("another process listens there");
    }
    match fs::symlink_metadata(path) {
        Ok(there) => ensure!(there.file_type().is_socket(), "there is something else"),
        Err(error) => ensure!(error.kind() == ErrorKind::NotFound, error),
    }
    // In its place at once, and with these permissions.
    let staged = path.with_extension(format!("{}", std::process::id()));
    fs::remove_file(&staged).ok();
    let listener = UnixListener::bind(&staged)?;
    let placed = fs::set_permissions(&staged, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&staged, path));
    if placed.is_err() {
        fs::remove_file(&staged).ok();
    }
    placed?;
    Ok(listener)
}

async fn accept(listener: UnixListener, askers: mpsc::Sender<Asker>) {
    loop {
        // There is a place for it before it is let in.
        let Ok(place) = askers.clone().reserve_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    match timeout(PATIENCE, hear(stream)).await {
                        Ok(Ok(asker)) => drop(place.send(asker)),
                        Ok(Err(error)) => tracing::info!("control socket: {error:#}"),
                        Err(_elapsed) => {}
                    }
                });
            }
            // For want of descriptors, perhaps.
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

async fn hear(mut stream: net::UnixStream) -> Result<Asker> {
    let user = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    ensure!(user == 0 || user == own, "user {user} may not ask");
    let mut asked = [0; RELOAD.len()];
    stream.read_exact(&mut asked).await?;
    ensure!(asked == RELOAD, "something else than a reload is asked for");
    Ok(Asker(stream))
}

/// Asks the process that listens at `path` to reload, and waits for the outcome; nothing where there is
/// no such process.
///
/// # Errors
/// When it gives no answer.
pub(crate) fn ask(path: &Path) -> Result<Option<Outcome>> {
    let outcome = match UnixStream::connect(path) {
        Ok(stream) => exchange(stream).map(Some),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error.into()),
        },
    };
    outcome.with_context(|| path.display().to_string())
}

fn exchange(mut stream: UnixStream) -> Result<Outcome> {
    stream.set_read_timeout(Some(RELOAD_MAX))?;
    stream.write_all(RELOAD)?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
    ensure!(!line.is_empty(), "it gave no answer: see its log");
    Outcome::from_json(&line)
}
