//! `tidegate up`: sets up a folder, runs both roles from it, and ends with them.
//!
//! Each role is a process of its own, so that neither can read the other's secrets from memory and
//! a crash of one cannot corrupt the other. This process only watches: it waits until the roles say
//! that they are ready, hands on what the signals ask, and leaves nothing running behind it.

use std::future::pending;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::config::{self, Role};
use crate::descriptors::Descriptors;
use crate::folder::Folder;
use crate::generations::{Event, Generations};
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
    roles.registry = Some(roles.start(Role::Registry)?);
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
            (Role::Registry, Event::Ready(_)) => roles.edge = Some(roles.start(Role::Edge)?),
            (Role::Edge, Event::Ready(ready)) => say(banner::text(folder, ready.https))?,
            (_, Event::Said(_) | Event::Left) => {}
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

/// The roles of one folder, each in processes of its own.
struct Roles {
    config: PathBuf,
    run: PathBuf,
    edge: Option<Generations>,
    registry: Option<Generations>,
}

impl Roles {
    fn start(&self, role: Role) -> Result<Generations> {
        Generations::start(role, &self.config, &self.run, Descriptors::default())
    }

    /// Waits for what happens next to either of them.
    async fn next(&mut self) -> Result<(Role, Event)> {
        tokio::select! {
            event = next_of(&mut self.registry) => Ok((Role::Registry, event?)),
            event = next_of(&mut self.edge) => Ok((Role::Edge, event?)),
        }
    }

    fn hand_on(&self, signal: Signal) -> Result<()> {
        let mut roles = self.edge.iter().chain(&self.registry);
        roles.try_for_each(|role| role.send(signal))
    }

    /// Stops the edge, whose transfers need the registry, and then the registry.
    ///
    /// Returns whether every role still running ended well. A signal cuts the wait short.
    async fn stop(self, signals: &mut Signals) -> Result<bool> {
        let mut clean = true;
        let mut at_once = false;
        for mut role in [self.edge, self.registry].into_iter().flatten() {
            role.close_listeners();
            clean &= role.stop(signals, &mut at_once).await?;
        }
        Ok(clean)
    }
}

/// Waits for what a role does next; one that has not been started does nothing, ever.
async fn next_of(role: &mut Option<Generations>) -> Result<Event> {
    match role {
        Some(role) => role.next().await,
        None => pending().await,
    }
}
