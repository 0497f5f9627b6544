//! `tidegate edge`: the edge alone, in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use proxy::{Edge, Handle, RegistryPeer};

use crate::config::{self, Role};
use crate::control::Asker;
use crate::logging::{Logs, Prepared};
use crate::outcome::{Outcome, Reloaded};
use crate::role::Args;
use crate::signals::{Request, Signals};
use crate::{descriptors, notify, output, role};

/// How long listeners that are not wanted any more may take to be closed everywhere.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// Runs the edge until a signal stops it.
pub(crate) fn run(args: Args) -> Result<()> {
    let mut inherited = args.inherited()?;
    args.die_with_supervisor()?;
    role::without_huge_pages();
    let config = config::read(&args.config.path, Some(Role::Edge))?;
    let logs = Logs::start(&config.log, args.is_supervised())?;
    let _last_word = logs.last_word();
    role::raise_file_limit();
    let registries = config.registries();
    // One that is gone from the config may be in the way of another.
    let closed = inherited.close_tcp_listeners(|address| !config.edge.listens_at(address));
    let patience = if closed {
        CLOSED_WITHIN
    } else {
        Duration::ZERO
    };
    let edge = Edge::bind(config.edge, inherited.tcp_listeners()?, patience)?;
    let named = |(socket, address): (_, SocketAddr)| {
        (descriptors::name("edge", &address.to_string()), socket)
    };
    inherited.keep(&edge.sockets().map(named).collect::<Vec<_>>());
    obey_signals(Watched {
        registries,
        control_socket: config.control_socket,
        args,
        logs,
        handle: edge.handle(),
        is_successor: !inherited.is_empty(),
    })?;
    drop(inherited);
    edge.run()?;
    tracing::info!("stopped");
    Ok(())
}

/// What the signals act on.
struct Watched {
    /// As the edge was started.
    registries: Vec<RegistryPeer>,
    control_socket: PathBuf,
    args: Args,
    logs: Logs,
    handle: Handle,
    is_successor: bool,
}

/// Starts the thread that acts on signals; when this returns, none is missed any more.
fn obey_signals(watched: Watched) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime of the signals")?;
    let signals = {
        let _context = runtime.enter();
        Signals::listen()?
            .and_supervisor()?
            .and_at(&watched.control_socket, watched.is_successor)
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
        instruments::note_reload(true, 0);
        loop {
            let asker = match signals.next().await {
                Request::Reload(asker) => asker,
                Request::Look(asker) => {
                    self.handle.refresh();
                    asker.answer(&Outcome::InForce(Reloaded::default()));
                    continue;
                }
                Request::Upgrade(asker) => {
                    self.args.ask_for_successor(asker);
                    continue;
                }
                Request::Stop | Request::Finish => break,
            };
            let https = self.handle.https_address();
            let outcome = role::reload(Role::Edge, "serving", https, || self.reload());
            if let Some(asker) = asker {
                asker.answer(&outcome);
            }
        }
        notify::stopping();
        role::end_after(self.handle.drain_timeout());
        self.handle.drain();
        loop {
            match signals.next().await {
                Request::Stop => stop_at_once(),
                Request::Finish => {}
                Request::Reload(asker) => asker.into_iter().for_each(Asker::refuse_while_stopping),
                Request::Look(asker) | Request::Upgrade(asker) => asker.refuse_while_stopping(),
            }
        }
    }

    fn reload(&self) -> Result<Reloaded> {
        let (path, state_dir) = (&self.args.config.path, self.handle.state_dir());
        let config = config::read_again(path, state_dir, &self.registries)?;
        let log = Prepared::open(&config.log)?;
        let skipped = config.edge.skipped_lines();
        let wanted = config.registries();
        let moved = |running: &RegistryPeer| {
            let mut wanted = wanted.iter().filter(|wanted| wanted.name == running.name);
            wanted.any(|wanted| wanted.socket != running.socket)
        };
        let others = [
            (
                config.control_socket != self.control_socket,
                "control_socket",
            ),
            (self.registries.iter().any(moved), "registry.listen"),
        ];
        let others = others
            .into_iter()
            .filter_map(|(differs, key)| differs.then_some(key));
        let keys = self.handle.reload(config.edge)?;
        self.logs.apply(log);
        let waiting = keys.into_iter().chain(others);
        Ok(Reloaded {
            waiting: waiting.map(str::to_owned).collect(),
            skipped,
        })
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
