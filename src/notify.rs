//! The `sd_notify` protocol: what a role tells whoever started it, systemd or `tidegate up`.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sd_notify::NotifyState;
use tokio::net::UnixDatagram;

/// The variable of our own that carries the address of the TLS listener; systemd skips it.
const HTTPS: &str = "X_TIDEGATE_HTTPS";

/// Says that the role takes requests, and on which address over TLS, if it does.
pub(crate) fn ready(status: &str, https: Option<SocketAddr>) {
    let https = https.map(|address| format!("{HTTPS}={address}"));
    let mut states = vec![NotifyState::Ready, NotifyState::Status(status)];
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
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told of the state");
    }
}

/// The other end: where `tidegate up` hears that a role is ready.
pub(crate) struct Readiness {
    path: PathBuf,
    socket: UnixDatagram,
}

/// What a role said when it became ready.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ready {
    /// The address of its TLS listener; the real port where the config says 0.
    pub(crate) https: Option<SocketAddr>,
}

impl Readiness {
    /// Binds the socket that a role is given as `NOTIFY_SOCKET`.
    pub(crate) fn bind(path: &Path) -> Result<Self> {
        // The folder is locked, so a socket that is there already belonged to a dead process.
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

    /// Waits until the role is ready; nothing is lost when the wait is given up.
    pub(crate) async fn next(&self) -> Result<Ready> {
        let mut message = [0_u8; 4096];
        loop {
            let length = self
                .socket
                .recv(&mut message)
                .await
                .context("wait for a role")?;
            let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
            if let Some(ready) = parse(&text) {
                return Ok(ready);
            }
        }
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

/// Reads a message; most are no `READY=1`.
fn parse(message: &str) -> Option<Ready> {
    let value = |key: &str| {
        message
            .lines()
            .find_map(|line| line.split_once('=').filter(|(name, _)| *name == key))
    };
    let (_, ready) = value("READY")?;
    let https = value(HTTPS).and_then(|(_, address)| address.parse().ok());
    (ready == "1").then_some(Ready { https })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_message_carries_the_address() {
        let ready = parse("READY=1\nSTATUS=a=b\nX_TIDEGATE_HTTPS=[::1]:8443\n").unwrap();
        assert_eq!(ready.https, Some("[::1]:8443".parse().unwrap()));
        assert_eq!(parse("READY=1\n"), Some(Ready { https: None }));
    }

    #[test]
    fn other_messages_are_no_readiness() {
        for other in [
            "",
            "STATUS=READY=1",
            "RELOADING=1\nMONOTONIC_USEC=5",
            "READY=0",
        ] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }
}
