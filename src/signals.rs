//! What the outside asks of a running process.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::{self, Asker, Control};

/// The signals this program listens to, from the moment this value exists.
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    control: Option<Control>,
}

/// What a signal asks for.
pub(crate) enum Request {
    /// SIGHUP, or somebody who waits for the answer: read the config again and open the logs again.
    Reload(Option<Asker>),
    /// Somebody wants a successor of this process, and waits for the outcome.
    Upgrade(Asker),
    /// SIGTERM or SIGINT: finish what is under way, and end.
    Stop,
}

impl Signals {
    /// Starts to listen; none of the signals ends the process by itself any more.
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            control: None,
        })
    }

    /// Listens to those who ask on this socket, too.
    ///
    /// A successor is to `replace` the socket of the process before it.
    pub(crate) fn and_at(mut self, control_socket: &Path, replace: bool) -> Self {
        self.control = Some(Control::listen(control_socket, replace));
        self
    }

    /// Waits for the next signal; it is not lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.hangup.recv() => Request::Reload(None),
            (request, asker) = asked(&mut self.control) => match request {
                control::Request::Reload => Request::Reload(Some(asker)),
                control::Request::Upgrade => Request::Upgrade(asker),
            },
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.terminate.recv() => Request::Stop,
        }
    }
}

/// Waits for somebody who asks, for ever where nobody can.
async fn asked(control: &mut Option<Control>) -> (control::Request, Asker) {
    match control {
        Some(control) => control.next().await,
        None => std::future::pending().await,
    }
}
