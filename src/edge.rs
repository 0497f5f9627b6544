//! `tidegate edge`: the edge alone, in the foreground.

use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, anyhow};
use proxy::{Edge, Handle};

use crate::config::{self, Role};
use crate::logging::{Logs, Prepared};
use crate::outcome::Outcome;
use crate::role::Args;
use crate::signals::{Request, Signals};
use crate::{notify, output, role};

/// Runs the edge until a signal stops it.
pub(crate) fn run(args: Args) -> Result<()> {
    args.die_with_supervisor()?;
    role::without_huge_pages();
    let config = config::read(&args.config.path, Some(Role::Edge))?;
    let logs = Logs::start(&config.log)?;
    let _last_word = logs.last_word();
    role::raise_file_limit();
    let edge = Edge::bind(config.edge)?;
    obey_signals(Watched {
        control_socket: config.control_socket,
        args,
        logs,
        handle: edge.handle(),
    })?;
    edge.run()?;
    tracing::info!("stopped");
    Ok(())
}

/// What the signals act on.
struct Watched {
    control_socket: PathBuf,
    args: Args,
    logs: Logs,
    handle: Handle,
}

/// Starts the thread that acts on signals; when this returns, none is missed any more.
fn obey_signals(watched: Watched) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime of the signals")?;
    let signals = {
        let _context = runtime.enter();
        Signals::listen()?.and_at(&watched.control_socket)
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(watched.obey(signals)))
        .context("start the thread of the signals")?;
    Ok(())
}

impl Watched {
    async fn obey(self, mut signals: Signals) {
        notify::ready("serving", self.handle.https_address());
        tracing::info!("ready");
        self.handle.note_reload(true, 0);
        while let Request::Reload(asker) = signals.next().await {
            let https = self.handle.https_address();
            let outcome = role::reload(Role::Edge, "serving", https, || self.reload());
            match &outcome {
                Outcome::InForce { waiting } => self.handle.note_reload(true, waiting.len()),
                Outcome::Refused { .. } => self.handle.note_reload(false, 0),
            }
            if let Some(asker) = asker {
                asker.answer(&outcome);
            }
        }
        notify::stopping();
        self.handle.drain();
        while let Request::Reload(_) = signals.next().await {}
        stop_at_once();
    }

    fn reload(&self) -> Result<Vec<String>> {
        let config = config::read_again(&self.args.config.path, self.handle.state_dir())?;
        let log = Prepared::open(&config.log)?;
        let keys = self.handle.reload(config.edge)?;
        self.logs.apply(log);
        let moved = config.control_socket != self.control_socket;
        let keys = keys.into_iter().chain(moved.then_some("control_socket"));
        Ok(keys.map(str::to_owned).collect())
    }
}

/// Ends the process amid its transfers, as a second request to stop asks for.
#[expect(
    clippy::exit,
    reason = "the edge runs on threads that only the process's end can stop"
)]
fn stop_at_once() {
    output::report(&anyhow!("stopped before all transfers were finished"));
    std::process::exit(1);
}
