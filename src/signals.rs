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
    /// That of a supervisor.
    finish: Option<Signal>,
    control: Option<Control>,
}

/// What a signal asks for.
pub(crate) enum Request {
    /// Somebody has changed users or robots, and waits until that counts.
    Look(Asker),
    /// SIGHUP, or somebody who waits for the answer: read the config again and open the logs again.
    Reload(Option<Asker>),
    /// Somebody wants a successor of this process, and waits for the outcome.
    Upgrade(Asker),
    /// SIGTERM or SIGINT: finish what is under way, and end; the second time, end at once.
    Stop,
    /// SIGUSR1, which a supervisor sends, and the kernel at its end: finish what is under way, and end. To be
    /// told more than once changes nothing.
    Finish,
}

impl Signals {
    /// Starts to listen; none of the signals ends the process by itself any more.
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            finish: None,
            control: None,
        })
    }

    /// Listens to a supervisor, too.
    pub(crate) fn and_supervisor(mut self) -> Result<Self> {
        let listening = signal(SignalKind::user_defined1()).context("listen for signals")?;
        self.finish = Some(listening);
        Ok(self)
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
                control::Request::Look => Request::Look(asker),
                control::Request::Reload => Request::Reload(Some(asker)),
                control::Request::Upgrade => Request::Upgrade(asker),
            },
            () = told(&mut self.finish) => Request::Finish,
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.terminate.recv() => Request::Stop,
        }
    }
}

/// Waits for a signal, for ever where it is not listened to.
async fn told(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Waits for somebody who asks, for ever where nobody can.
async fn asked(control: &mut Option<Control>) -> (control::Request, Asker) {
    match control {
        Some(control) => control.next().await,
        None => std::future::pending().await,
    }
}
