//! The socket on which a running role is asked to reload, or to start a successor, and reports the outcome.
//!
//! A signal has no answer. Here root and the role's own user write a word in a line and read one line of
//! JSON, an [`Outcome`]. Others cannot open the socket, and are refused if they can.

use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
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
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    /// To look at the files of users and robots at once, and not within a second.
    Look,
    /// To reload the config.
    Reload,
    /// To start a successor from the program on disk, and leave.
    Upgrade,
}

impl Request {
    /// The line that asks for it.
    fn line(self) -> &'static [u8] {
        match self {
            Self::Look => b"look\n",
            Self::Reload => b"reload\n",
            Self::Upgrade => b"upgrade\n",
        }
    }

    fn of_line(line: &[u8]) -> Option<Self> {
        let all = [Self::Look, Self::Reload, Self::Upgrade];
        all.into_iter().find(|request| request.line() == line)
    }

    /// How long it may take before whoever waits for the outcome gives up.
    fn takes_max(self) -> Duration {
        match self {
            Self::Look => LOOK_MAX,
            Self::Reload | Self::Upgrade => OUTCOME_MAX,
        }
    }
}

/// How long a line may be that asks for something.
const LINE_BYTES_MAX: usize = 32;

/// How long somebody may take to say what they want, or to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a reload or a start may take before whoever waits for it gives up.
const OUTCOME_MAX: Duration = Duration::from_secs(90);

/// How long a look at a few files may take.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// How long the answer may be.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// How many may ask at once.
const ASKING_MAX: usize = 4;

/// Those who ask something of this process.
pub(crate) struct Control(mpsc::Receiver<(Request, Asker)>);

/// Somebody who waits for an outcome.
pub(crate) struct Asker(net::UnixStream);

impl Control {
    /// Listens on a socket at `path`. Where that cannot be, nobody ever asks, and a signal is still
    /// obeyed. A successor is to `replace` the socket of the process before it.
    pub(crate) fn listen(path: &Path, replace: bool) -> Self {
        let (sender, receiver) = mpsc::channel(ASKING_MAX);
        match bind(path, replace) {
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
    pub(crate) async fn next(&mut self) -> (Request, Asker) {
        match self.0.recv().await {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
    }
}

impl Asker {
    /// Takes somebody over from a process that has passed them on.
    ///
    /// # Errors
    /// When it is no socket.
    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let stream = UnixStream::from(fd);
        stream.set_nonblocking(true)?;
        net::UnixStream::from_std(stream).map(Self)
    }

    /// Says that nothing is changed any more.
    pub(crate) fn refuse_while_stopping(self) {
        self.answer(&Outcome::Refused {
            problems: vec!["it is stopping".to_owned()],
        });
    }

    /// The connection, to pass it on.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

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

fn bind(path: &Path, replace: bool) -> Result<UnixListener> {
    if !replace && UnixStream::connect(path).is_ok() {
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

async fn accept(listener: UnixListener, askers: mpsc::Sender<(Request, Asker)>) {
    loop {
        // There is a place for it before it is let in.
        let Ok(place) = askers.clone().reserve_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    match timeout(PATIENCE, hear(stream)).await {
                        Ok(Ok(asked)) => drop(place.send(asked)),
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

async fn hear(mut stream: net::UnixStream) -> Result<(Request, Asker)> {
    let user = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    ensure!(user == 0 || user == own, "user {user} may not ask");
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        ensure!(line.len() < LINE_BYTES_MAX, "what is asked is too long");
        line.push(stream.read_u8().await?);
    }
    let request =
        Request::of_line(&line).context("something else is asked than this version knows")?;
    Ok((request, Asker(stream)))
}

/// Asks something of the process that listens at `path`, and waits for the outcome; nothing where there is
/// no such process.
///
/// # Errors
/// When it gives no answer.
pub(crate) fn ask(path: &Path, request: Request) -> Result<Option<Outcome>> {
    let outcome = match UnixStream::connect(path) {
        Ok(stream) => exchange(stream, request).map(Some),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error.into()),
        },
    };
    outcome.with_context(|| path.display().to_string())
}

fn exchange(mut stream: UnixStream, request: Request) -> Result<Outcome> {
    stream.set_read_timeout(Some(request.takes_max()))?;
    stream.write_all(request.line())?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
    ensure!(!line.is_empty(), "it gave no answer: see its log");
    Outcome::from_json(&line)
}
