//! The `sd_notify` protocol: what a role tells whoever started it, systemd or `tidegate up`.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sd_notify::NotifyState;
use slots::descriptors;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::output::note;

/// The variable of our own that carries the address of the TLS listener; systemd skips those.
const HTTPS: &str = "X_TIDEGATE_HTTPS";

/// That which carries the version.
const VERSION: &str = "X_TIDEGATE_VERSION";

/// How long a message of a role may be; the rest of a longer one is not read.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What asks for a successor.
const UPGRADE: &str = "X_TIDEGATE_UPGRADE=1";

/// Says that the role takes requests, and on which address over TLS, if it does.
pub(crate) fn ready(status: &str, https: Option<SocketAddr>) {
    let https = https.map(|address| format!("{HTTPS}={address}"));
    let version = format!("{VERSION}={}", env!("CARGO_PKG_VERSION"));
    let mut states = vec![
        NotifyState::Ready,
        NotifyState::Status(status),
        NotifyState::Custom(&version),
    ];
    states.extend(https.as_deref().map(NotifyState::Custom));
    send(&states);
}

/// Says that the role reads its config again; [`ready`] follows.
pub(crate) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    send(&states);
}

/// Says that the role will end once the transfers under way have.
pub(crate) fn stopping() {
    send(&[
        NotifyState::Stopping,
        NotifyState::Status("finishing the transfers under way"),
    ]);
}

/// Says why the role cannot go on: in a line, for a status is one.
pub(crate) fn failed(why: &str) {
    let why = why.replace('\n', "; ");
    send(&[NotifyState::Status(&why)]);
}

fn send(states: &[NotifyState<'_>]) {
    match sd_notify::notify(states) {
        // A process that finishes its transfers may have outlived its supervisor.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            tracing::debug!(%error, "there is no service manager");
        }
        Err(error) => tracing::warn!(%error, "the service manager was not told of the state"),
        Ok(()) => {}
    }
}

/// Asks the supervisor to start a successor of this process, and hands it whoever waits for the outcome.
///
/// # Errors
/// When there is no supervisor.
pub(crate) fn ask_for_successor(asker: BorrowedFd<'_>) -> io::Result<()> {
    sd_notify::notify_with_fds(&[NotifyState::Custom(UPGRADE)], &[asker])
}

/// The other end: where a supervisor hears what a role says.
pub(crate) struct Readiness {
    path: PathBuf,
    socket: UnixDatagram,
}

/// What a role says in one message: lines of `KEY=value`, and the open files that came with them.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    text: String,
    pub(crate) files: Vec<OwnedFd>,
}

/// What a role said when it became ready.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ready {
    /// The address of its TLS listener; the real port where the config says 0.
    pub(crate) https: Option<SocketAddr>,
    /// Its version.
    pub(crate) version: String,
}

impl Readiness {
    /// Binds the socket that a role is given as `NOTIFY_SOCKET`.
    pub(crate) fn bind(path: &Path) -> Result<Self> {
        // The folder is the supervisor's alone, so a socket that is there already belonged to a dead
        // process.
        let socket = match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => UnixDatagram::bind(path),
        }
        .with_context(|| format!("listen on {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            socket,
        })
    }

    /// Waits for what the role says next; nothing is lost when the wait is given up.
    pub(crate) async fn next(&self) -> Result<Notice> {
        let mut message = vec![0_u8; MESSAGE_BYTES_MAX];
        let mut files = Vec::new();
        let length = loop {
            self.socket.readable().await.context("wait for a role")?;
            let received = self.socket.try_io(Interest::READABLE, || {
                descriptors::receive(&self.socket, &mut message, &mut files)
            });
            match received {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                received => break received.context("wait for a role")?,
            }
        };
        let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
        Ok(Notice {
            text: text.into_owned(),
            files,
        })
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

impl Notice {
    /// Returns the value of a key.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        let mut lines = self.text.lines().filter_map(|line| line.split_once('='));
        lines.find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Returns what it says if it says that the role is ready; most do not.
    pub(crate) fn ready(&self) -> Option<Ready> {
        (self.value("READY") == Some("1")).then(|| Ready {
            https: self.value(HTTPS).and_then(|address| address.parse().ok()),
            version: self.value(VERSION).unwrap_or("unknown").to_owned(),
        })
    }

    /// Takes who waits for the outcome, if it asks for a successor.
    pub(crate) fn asks_for_successor(&mut self) -> Option<OwnedFd> {
        let asks = self.text.lines().any(|line| line == UPGRADE);
        asks.then(|| self.files.pop()).flatten()
    }

    /// Says the same to this process's own service manager.
    pub(crate) fn pass_on(&self) {
        let states: Vec<_> = self.text.lines().map(NotifyState::Custom).collect();
        let files: Vec<_> = self.files.iter().map(AsFd::as_fd).collect();
        if let Err(error) = sd_notify::notify_with_fds(&states, &files) {
            note(format_args!(
                "the service manager was not told of the state: {error}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(text: &str) -> Notice {
        Notice {
            text: text.to_owned(),
            files: Vec::new(),
        }
    }

    #[test]
    fn ready_message_carries_the_address_and_the_version() {
        let ready =
            notice("READY=1\nSTATUS=a=b\nX_TIDEGATE_HTTPS=[::1]:8443\nX_TIDEGATE_VERSION=1.2\n");
        let ready = ready.ready().unwrap();
        assert_eq!(ready.https, Some("[::1]:8443".parse().unwrap()));
        assert_eq!(ready.version, "1.2");
        assert_eq!(notice("READY=1\n").ready().unwrap().https, None);
    }

    #[test]
    fn other_messages_are_no_readiness() {
        for other in [
            "",
            "STATUS=READY=1",
            "RELOADING=1\nMONOTONIC_USEC=5",
            "READY=0",
        ] {
            assert_eq!(notice(other).ready(), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn open_files_come_with_a_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.notify");
        let readiness = Readiness::bind(&path).unwrap();
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        socket.connect(&path).unwrap();
        let text = [io::IoSlice::new(b"FDSTORE=1\nFDNAME=a")];
        descriptors::send(&socket, &text, &[socket.as_fd()]).unwrap();
        let notice = readiness.next().await.unwrap();
        assert_eq!(notice.value("FDNAME"), Some("a"));
        assert_eq!(notice.files.len(), 1);
    }
}
