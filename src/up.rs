//! `tidegate up`: sets up a folder, runs both roles from it, and ends with them.
//!
//! Each role is a process of its own, so that neither can read the other's secrets from memory and
//! a crash of one cannot corrupt the other. This process only watches: it waits until the roles say
//! that they are ready, hands on what the signals ask, and leaves nothing running behind it.

use std::future::pending;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::config::{self, Role};
use crate::folder::Folder;
use crate::notify::{Readiness, Ready};
use crate::output::{note, say};
use crate::signals::{Request, Signals};
use crate::{banner, files, setup};

/// Runs `tidegate up`.
pub(crate) fn run(args: &setup::Args) -> Result<ExitCode> {
    let folder = setup::prepare(args)?;
    // Both roles would refuse a bad config; asked here, each problem is said once.
    config::read(&folder.config(), None)?;
    // One thread: the children are told to end with the thread that started them.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(supervise(&folder))
}

async fn supervise(folder: &Folder) -> Result<ExitCode> {
    let run = folder.run_directory()?;
    let Some(_lock) = files::try_lock(&run)? else {
        bail!(
            "{}: another `tidegate up` runs from this folder",
            folder.path().display()
        );
    };
    let mut signals = Signals::listen()?;
    let mut roles = Roles {
        config: folder.config(),
        run,
        registry: None,
        edge: None,
    };
    let end = watch(&mut roles, &mut signals, folder).await;
    if matches!(end, Ok(End::Asked)) {
        note("finishing the transfers under way; a second Ctrl-C stops at once");
    }
    let clean = roles.stop(&mut signals).await?;
    Ok(if end? == End::Asked && clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Why the roles are to be stopped.
#[derive(Debug, Eq, PartialEq)]
enum End {
    /// A signal asked for it.
    Asked,
    /// One of them is gone.
    Lost,
}

/// Starts one role after the other, and watches both until there is a reason to stop.
async fn watch(roles: &mut Roles, signals: &mut Signals, folder: &Folder) -> Result<End> {
    // Whoever closes the terminal wants an end; without one, SIGHUP is the usual wish to reload.
    let on_terminal = io::stdin().is_terminal();
    roles.start(Role::Registry)?;
    loop {
        let event = tokio::select! {
            event = roles.next() => event?,
            request = signals.next() => {
                if matches!(request, Request::Stop) || on_terminal {
                    return Ok(End::Asked);
                }
                roles.hand_on(Signal::HUP)?;
                continue;
            }
        };
        match event {
            (Role::Registry, Event::Ready(_)) => roles.start(Role::Edge)?,
            (Role::Edge, Event::Ready(ready)) => say(banner::text(folder, ready.https))?,
            (role, Event::Ended { status, was_ready }) => {
                // A role that gives up before it is ready has said why itself.
                if was_ready || !matches!(status.code(), Some(1 | 78)) {
                    note(format_args!(
                        "the {role} is gone ({status}); stopping what is left"
                    ));
                }
                return Ok(End::Lost);
            }
        }
    }
}

/// The roles of one folder, each in a process of its own.
struct Roles {
    config: PathBuf,
    run: PathBuf,
    edge: Option<Running>,
    registry: Option<Running>,
}

impl Roles {
    fn start(&mut self, role: Role) -> Result<()> {
        let running = Running::start(role, &self.config, &self.run)
            .with_context(|| format!("start the {role}"))?;
        match role {
            Role::Edge => self.edge = Some(running),
            Role::Registry => self.registry = Some(running),
        }
        Ok(())
    }

    /// Waits for what happens next to either of them.
    async fn next(&mut self) -> Result<(Role, Event)> {
        tokio::select! {
            event = next_of(&mut self.registry) => Ok((Role::Registry, event?)),
            event = next_of(&mut self.edge) => Ok((Role::Edge, event?)),
        }
    }

    fn hand_on(&self, signal: Signal) -> Result<()> {
        self.edge
            .iter()
            .chain(&self.registry)
            .try_for_each(|running| running.send(signal))
    }

    /// Stops the edge, whose transfers need the registry, and then the registry.
    ///
    /// Returns whether every role still running ended well. A signal cuts the wait short.
    async fn stop(mut self, signals: &mut Signals) -> Result<bool> {
        let mut clean = true;
        let mut signal = Signal::TERM;
        for slot in [&mut self.edge, &mut self.registry] {
            let Some(running) = slot else { continue };
            running.send(signal)?;
            loop {
                tokio::select! {
                    event = running.next() => if let Event::Ended { status, .. } = event? {
                        clean &= status.success();
                        break;
                    },
                    request = signals.next() => if matches!(request, Request::Stop) {
                        signal = Signal::KILL;
                        running.send(signal)?;
                    },
                }
            }
            *slot = None;
        }
        Ok(clean)
    }
}

/// What a role does that the supervisor cares for.
enum Event {
    /// It takes requests.
    Ready(Ready),
    /// Its process is no more.
    Ended { status: ExitStatus, was_ready: bool },
}

/// Waits for what the role in `slot` does next, and empties the slot when it ends; an empty slot
/// does nothing, ever.
async fn next_of(slot: &mut Option<Running>) -> Result<Event> {
    let Some(running) = slot else {
        return pending().await;
    };
    let event = running.next().await?;
    if matches!(event, Event::Ended { .. }) {
        *slot = None;
    }
    Ok(event)
}

/// The process of a role.
struct Running {
    child: Child,
    readiness: Readiness,
    ready: bool,
}

impl Running {
    fn start(role: Role, config: &Path, run: &Path) -> Result<Self> {
        let socket = run.join(format!("{role}.notify"));
        let readiness = Readiness::bind(&socket)?;
        let child = Command::new(std::env::current_exe().context("find the own executable")?)
            .args([
                role.name(),
                "--supervisor",
                &std::process::id().to_string(),
                "--config",
            ])
            .arg(config)
            .env("NOTIFY_SOCKET", socket)
            .env_remove(setup::PASSWORD_VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Ctrl-C on the terminal reaches this process alone, which then stops them in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            child,
            readiness,
            ready: false,
        })
    }

    async fn next(&mut self) -> Result<Event> {
        loop {
            tokio::select! {
                // What it said before it ended is not lost.
                biased;
                ready = self.readiness.next() => {
                    let ready = ready?;
                    // It says so again after each reload.
                    if !std::mem::replace(&mut self.ready, true) {
                        return Ok(Event::Ready(ready));
                    }
                }
                status = self.child.wait() => {
                    let status = status.context("wait for a role")?;
                    return Ok(Event::Ended { status, was_ready: self.ready });
                }
            }
        }
    }

    /// Sends a signal, unless the process has ended and only waits to be noticed.
    fn send(&self, signal: Signal) -> Result<()> {
        let id = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        match id {
            Some(id) => kill_process(id, signal).context("signal a role"),
            None => Ok(()),
        }
    }
}
