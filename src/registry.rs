//! `tidegate registry`: the registry alone, in the foreground.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use registry_backend::{Handed, Instances, blocking_threads};
use tokio::sync::oneshot;

use crate::config::{self, Registry, Role};
use crate::control::Asker;
use crate::descriptors::{self, Descriptors};
use crate::logging::{Logs, Prepared};
use crate::outcome::{Outcome, Reloaded};
use crate::role::Args;
use crate::signals::{Request, Signals};
use crate::{notify, role};

/// How long work on storage may take that nobody waits for any more.
const THREADS_END: Duration = Duration::from_secs(10);

/// Runs the registry until a signal stops it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let inherited = args.inherited()?;
    args.die_with_supervisor()?;
    role::without_huge_pages();
    let registry = read(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .max_blocking_threads(blocking_threads(registry.configs.len()))
        .enable_all()
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(serve(args, registry, inherited));
    runtime.shutdown_timeout(THREADS_END);
    served
}

/// Returns how many threads answer requests: half as many as the machine runs at once. What hashes,
/// writes or waits for the disk has threads of its own, and among more of these here each request
/// would be handed from one to another.
fn workers() -> usize {
    thread::available_parallelism().map_or(1, |threads| threads.get().div_ceil(2))
}

async fn serve(args: &Args, registry: Registry, inherited: Descriptors) -> Result<()> {
    let mut signals = Signals::listen()?.and_supervisor()?;
    let control_socket = registry.control_socket.clone();
    let logs = Logs::start(&registry.log, args.is_supervised())?;
    let _last_word = logs.last_word();
    role::raise_file_limit();
    let handed = Handed {
        sockets: inherited.unix_listeners()?,
        roots: inherited.folders()?,
    };
    let instances = Instances::open(registry.configs, &handed)?;
    let listeners = instances.bind(handed)?;
    inherited.keep(&open_files(&instances, &listeners));
    signals = signals.and_at(&control_socket, !inherited.is_empty());
    drop(inherited);

    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let mut server = pin!(instances.serve(listeners, async {
        stopped.await.ok();
    }));
    notify::ready("serving", None);
    tracing::info!("ready");
    instruments::note_reload(true, 0);
    loop {
        let request = tokio::select! {
            outcome = &mut server => {
                outcome?;
                tracing::info!("stopped");
                return Ok(());
            }
            request = signals.next() => request,
        };
        let Some(sender) = stop.take() else {
            match request {
                Request::Stop => bail!("stopped before all requests were finished"),
                Request::Finish => {}
                Request::Reload(asker) => asker.into_iter().for_each(Asker::refuse_while_stopping),
                Request::Look(asker) | Request::Upgrade(asker) => asker.refuse_while_stopping(),
            }
            continue;
        };
        match request {
            Request::Reload(asker) => {
                let outcome = role::reload(Role::Registry, "serving", None, || {
                    reload(args, &logs, &instances, &control_socket)
                });
                if let Some(asker) = asker {
                    asker.answer(&outcome);
                }
            }
            // It has no users.
            Request::Look(asker) => asker.answer(&Outcome::InForce(Reloaded::default())),
            Request::Upgrade(asker) => args.ask_for_successor(asker),
            Request::Stop | Request::Finish => {
                notify::stopping();
                role::end_after(instances.drain_timeout());
                sender.send(()).ok();
                continue;
            }
        }
        stop = Some(sender);
    }
}

/// What a successor is to have: the sockets, and the roots with the locks on them.
fn open_files<'a>(
    instances: &'a Instances,
    listeners: &'a [UnixListener],
) -> Vec<(String, BorrowedFd<'a>)> {
    let sockets = listeners.iter().filter_map(|listener| {
        let address = listener.local_addr().ok()?;
        let name = descriptors::name_of_path("registry", address.as_pathname()?);
        Some((name, listener.as_fd()))
    });
    let roots = instances
        .roots()
        .map(|(root, folder)| (descriptors::name_of_path("root", &root), folder));
    sockets.chain(roots).collect()
}

fn read(args: &Args) -> Result<Registry> {
    let config = config::read(&args.config.path, Some(Role::Registry))?;
    config.registry.context("the config has no [registry]")
}

fn reload(
    args: &Args,
    logs: &Logs,
    instances: &Instances,
    control_socket: &Path,
) -> Result<Reloaded> {
    let registry = read(args)?;
    let log = Prepared::open(&registry.log)?;
    let mut waiting = instances.reload(registry.configs);
    logs.apply(log);
    let moved = registry.control_socket != control_socket;
    waiting.extend(moved.then(|| "registry.control_socket".to_owned()));
    Ok(Reloaded {
        waiting,
        skipped: Vec::new(),
    })
}
