//! What both roles have in common: their flags, and how they reload.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use rustix::process::{
    Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::disable_transparent_huge_pages;
use settings::Problems;

use crate::config::{ConfigFile, Role};
use crate::notify;
use crate::output::one_line;

/// The flags of a role.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// The process that started this one and without which it is to end.
    #[arg(long, hide = true, value_name = "PID")]
    supervisor: Option<i32>,
}

impl Args {
    /// Makes the kernel stop this process when the one that started it dies.
    pub(crate) fn die_with_supervisor(&self) -> Result<()> {
        let Some(supervisor) = self.supervisor else {
            return Ok(());
        };
        set_parent_process_death_signal(Some(Signal::TERM)).context("watch the supervisor")?;
        // It may have died before the line above; then another process is the parent by now.
        let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
        ensure!(parent == Some(supervisor), "the supervisor is gone");
        Ok(())
    }
}

/// Takes as many open files as the system lets this process have; each transfer needs a few.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays low");
    }
}

/// Does without huge pages, where the system gives them to everyone: of what the allocator has laid
/// out, much stays unused, and would be held all the same.
pub(crate) fn without_huge_pages() {
    // A kernel without them cannot leave them out.
    disable_transparent_huge_pages(true).ok();
}

/// Reloads, tells the service manager so, and logs each problem if the config is bad.
pub(crate) fn reload(
    role: Role,
    status: &str,
    https: Option<SocketAddr>,
    change: impl FnOnce() -> Result<()>,
) {
    notify::reloading();
    match change() {
        Ok(()) => tracing::info!(%role, "config reloaded"),
        Err(error) => {
            match error.downcast_ref::<Problems>() {
                Some(problems) => {
                    problems
                        .iter()
                        .for_each(|problem| tracing::error!("{problem}"));
                }
                None => tracing::error!("{}", one_line(&error)),
            }
            tracing::error!(%role, "nothing was changed: the config in force stays");
        }
    }
    notify::ready(status, https);
}
