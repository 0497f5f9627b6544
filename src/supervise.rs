//! `--supervise`: a role in a process below this one, which can be replaced while its sockets stay open.
//!
//! This process does little and holds little: it passes on what its service manager is told, and what
//! that keeps for the next one. It is what a service manager sees, and stays the same at an upgrade.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Role;
use crate::descriptors::Descriptors;
use crate::generations::{Event, Generations};
use crate::output::note;
use crate::role::{self, Args};
use crate::signals::{Request, Signals};

/// Runs a role in a process of its own until a signal stops it.
pub(crate) fn run(role: Role, args: &Args) -> Result<ExitCode> {
    let kept = args.inherited()?;
    role::without_huge_pages();
    // One thread: the children are told to end with the thread that started them.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(supervise(role, args, kept))
}

async fn supervise(role: Role, args: &Args, kept: Descriptors) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let mut told_to_leave = signal(SignalKind::user_defined1()).context("listen for signals")?;
    let run = Sockets::make()?;
    let mut generations = Generations::start(role, &args.config.path, &run.0, kept)?;
    loop {
        tokio::select! {
            event = generations.next() => match event? {
                Event::Said(notice) => notice.pass_on(),
                Event::Ready(_) | Event::Left => {}
                Event::Ended { status, was_ready } => {
                    // It has said why itself, unless it was killed.
                    if status.code().is_none() {
                        note(format_args!("the {role} is gone ({status})"));
                    }
                    // One that cannot even start must not have clients wait for the next.
                    if !was_ready {
                        generations.close_listeners();
                    }
                    leave(&run, status.code().unwrap_or(1));
                }
            },
            request = signals.next() => match request {
                Request::Stop => break,
                Request::Reload(_) => generations.send(Signal::HUP)?,
                Request::Finish | Request::Look(_) | Request::Upgrade(_) => {}
            },
            _ = told_to_leave.recv() => leave(&run, 0),
        }
    }
    generations.close_listeners();
    let clean = generations.stop(&mut signals, &mut false).await?;
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Ends this process alone. What is left of the role is told so by that, and finishes what it has begun.
#[expect(clippy::exit, reason = "to drop the processes would kill them")]
fn leave(run: &Sockets, code: i32) -> ! {
    run.remove();
    std::process::exit(code);
}

/// The folder of the sockets on which a role says how it is, of this process alone.
struct Sockets(PathBuf);

impl Sockets {
    fn make() -> Result<Self> {
        // What systemd makes for the unit (`RuntimeDirectory=`), of which there may be several.
        let folder = std::env::var("RUNTIME_DIRECTORY").ok();
        let folder = folder.and_then(|list| list.split(':').next().map(PathBuf::from));
        let folder = folder.unwrap_or_else(std::env::temp_dir);
        let mut random = [0; 8];
        getrandom(&mut random, GetRandomFlags::empty()).context("ask for a random number")?;
        let name = format!("tidegate-supervisor-{:016x}", u64::from_ne_bytes(random));
        let path = folder.join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    fn remove(&self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.remove();
    }
}
