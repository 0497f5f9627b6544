//! What both roles have in common: their flags, and how they reload.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{
    Resource, Rlimit, Signal, getpid, getppid, getrlimit, kill_process,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::disable_transparent_huge_pages;
use settings::Problems;

use crate::config::{self, ConfigFile, Role};
use crate::control::Asker;
use crate::descriptors::Descriptors;
use crate::notify;
use crate::outcome::{Outcome, Reloaded};
use crate::output::{self, one_line};

/// The flags of a role.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// Run the role in a child process, which `tidegate upgrade` can replace without closing a socket.
    ///
    /// SIGUSR1 ends only this supervisor; the child finishes its requests and then ends.
    #[arg(long)]
    pub(crate) supervise: bool,
    /// The process that started this one; if it dies, this one ends too.
    #[arg(long, hide = true, value_name = "PID")]
    supervisor: Option<i32>,
}

impl Args {
    /// Returns whether a supervisor runs this role, as `tidegate up` does.
    pub(crate) fn is_supervised(&self) -> bool {
        self.supervisor.is_some()
    }

    /// Makes the kernel stop this process when the one that started it dies.
    pub(crate) fn die_with_supervisor(&self) -> Result<()> {
        let Some(supervisor) = self.supervisor else {
            return Ok(());
        };
        set_parent_process_death_signal(Some(Signal::USR1)).context("watch the supervisor")?;
        // It may have died before the line above; then another process is the parent by now.
        let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
        ensure!(parent == Some(supervisor), "the supervisor is gone");
        Ok(())
    }
}

impl Args {
    /// Takes what the process before this one has left. To be called before anything is opened.
    pub(crate) fn inherited(&self) -> Result<Descriptors> {
        Descriptors::inherited(self.supervisor)
    }

    /// Has the supervisor start a successor, for `asker`, who hears the outcome from there.
    pub(crate) fn ask_for_successor(&self, asker: Asker) {
        let asked = match self.supervisor {
            Some(_) => notify::ask_for_successor(asker.as_fd()).map_err(|error| error.to_string()),
            None => Err(
                "it was not started by `tidegate up` or with --supervise: restart it".to_owned(),
            ),
        };
        if let Err(problem) = asked {
            asker.answer(&Outcome::Refused {
                problems: vec![problem],
            });
        }
    }
}

/// The exit code of a role whose config is bad (`EX_CONFIG` of `sysexits.h`): to start it again makes
/// nothing better.
const BAD_CONFIG: u8 = 78;

/// Ends a role, and says why it failed if it did.
pub(crate) fn exit_code(ended: Result<()>, config: &Path) -> ExitCode {
    let Err(error) = ended else {
        return ExitCode::SUCCESS;
    };
    output::report(&error);
    let problems = error.downcast_ref::<Problems>();
    // What `systemctl status` shows.
    notify::failed(&problems.map_or_else(|| one_line(&error), ToString::to_string));
    // What is wrong with another file may be right in a moment: a mount comes late, and of a certificate
    // and its key one is replaced first.
    match problems {
        Some(_) if config::is_badly_written(config) => ExitCode::from(BAD_CONFIG),
        _ => ExitCode::FAILURE,
    }
}

/// How much longer than its drain a process may take to end.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Ends the process if it does not by itself, once it has drained for as long as it may: nobody else would,
/// beside a successor.
pub(crate) fn end_after(drain: Duration) {
    let Some(deadline) = Instant::now().checked_add(drain.saturating_add(END_WITHIN)) else {
        return;
    };
    let watch = move || {
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        output::report(&anyhow!(
            "it did not end by itself when its requests were finished or cut"
        ));
        kill_process(getpid(), Signal::KILL).ok();
    };
    // Without the thread, all is as it is without a fault.
    thread::Builder::new()
        .name("end".to_owned())
        .spawn(watch)
        .ok();
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

/// Reloads, by `change`, and reports the outcome to the service manager and the log.
pub(crate) fn reload(
    role: Role,
    status: &str,
    https: Option<SocketAddr>,
    change: impl FnOnce() -> Result<Reloaded>,
) -> Outcome {
    notify::reloading();
    let outcome = match change() {
        Ok(reloaded) => Outcome::InForce(reloaded),
        Err(error) => Outcome::Refused {
            problems: match error.downcast_ref::<Problems>() {
                Some(problems) => problems.iter().map(ToString::to_string).collect(),
                None => vec![one_line(&error)],
            },
        },
    };
    match &outcome {
        Outcome::InForce(reloaded) => instruments::note_reload(true, reloaded.waiting.len()),
        Outcome::Refused { .. } | Outcome::Upgraded { .. } => instruments::note_reload(false, 0),
    }
    match &outcome {
        Outcome::InForce(Reloaded { waiting, .. }) if waiting.is_empty() => {
            tracing::info!(%role, "{outcome}");
        }
        Outcome::InForce(_) | Outcome::Upgraded { .. } => tracing::warn!(%role, "{outcome}"),
        Outcome::Refused { problems } => {
            for problem in problems {
                tracing::error!("{problem}");
            }
            tracing::error!(%role, "{outcome}");
        }
    }
    notify::ready(status, https);
    outcome
}
