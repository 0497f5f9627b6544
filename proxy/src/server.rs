//! An edge from its sockets to its drain.
//!
//! Pingora's own `Server` is not used: it minds signals, pid files and upgrade sockets, ends the
//! process on errors, and its grace period is a sleep that protects no transfer. Sockets, accept
//! loops and runtime are ours; what is needed of it is the proxy.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{
    Instant, MissedTickBehavior, interval, interval_at, sleep, sleep_until, timeout,
};

use crate::acme::{self, Answers};
use crate::auth::token::vault::Vault;
use crate::auth::{Hashing, skipped};
use crate::config::{Config, Limits};
use crate::edge::health::Health;
use crate::edge::{EdgeProxy, Wires};
use crate::error::Error;
use crate::fetch;
use crate::in_flight::InFlight;
use crate::limits::transfers::Transfers;
use crate::listener::{self, Bound, Connections, SETTLE};
use crate::reload::{self, Fixed};
use crate::state::{Current, State};
use crate::state_dir::StateDir;
use crate::telemetry::metrics::{Metrics, Sources};
use crate::telemetry::refused;
use crate::tls::TicketKeys;

/// How often the files that say who may come in are looked at.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// How often a drain says what it still waits for.
const DRAIN_NEWS_EVERY: Duration = Duration::from_secs(10);

/// How long connections may take to end once nothing is under way on them: HTTP/2 may still have the
/// end of a reply to send, and a client that is gone never says so.
const GOODBYE: Duration = Duration::from_secs(10);

/// How long the threads may take to end after that.
const THREADS_END: Duration = Duration::from_secs(2);

/// Connections kept open to upstreams, for all of them together.
const UPSTREAM_POOL: usize = 512;

/// An edge whose sockets are bound.
pub struct Edge {
    shared: Arc<Shared>,
    bound: Vec<Bound>,
    /// Where figures are told.
    metrics: Option<TcpListener>,
    connections: Connections,
    limits: Limits,
    runtime: Runtime,
}

/// A hand on an edge, running or not yet.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// How an edge ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drained {
    /// How many requests were cut because the time to drain was over.
    pub abandoned: usize,
}

struct Shared {
    current: Arc<Current>,
    vault: Arc<Vault>,
    answers: Answers,
    /// The keys of session tickets where the config names none: sessions outlive a reload.
    tickets: Arc<TicketKeys>,
    fixed: Fixed,
    addresses: Vec<SocketAddr>,
    /// The first of them that speaks TLS.
    https: Option<SocketAddr>,
    /// True once the edge is to stop.
    stop: watch::Sender<bool>,
    requests: Arc<InFlight>,
    connections: Arc<InFlight>,
}

impl Edge {
    /// Binds the sockets that `config` names and makes ready to serve. Those that a predecessor has `handed`
    /// over go on, and what has come to them is served; what `config` does not name is closed. An
    /// address that is in use is waited for with `patience`.
    ///
    /// # Errors
    /// [`Error::Bind`] names the address that cannot be listened at; the others say what else
    /// stands in the way.
    pub fn bind(
        config: Config,
        mut handed: Vec<TcpListener>,
        patience: Duration,
    ) -> Result<Self, Error> {
        let bound = listener::bind(&config.listeners, &mut handed, patience)?;
        let metrics = config.metrics.as_ref();
        let metrics =
            metrics.map(|metrics| listener::bind_at(metrics.address, &mut handed, patience));
        let metrics = metrics.transpose()?.map(|(socket, _address)| socket);
        let workers = config.workers.get();
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("edge")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        tell_concerns(&config);
        let (fixed, limits) = (Fixed::of(&config), config.limits);
        let vault = Arc::new(Vault::new(&config.state_dir));
        if config.hands_out_tokens() {
            vault.prepare()?;
        }
        let answers = Answers::default();
        let tickets = Arc::new(TicketKeys::make()?);
        let state = State::build(config, &vault, &answers, &tickets, None)?;
        let current = Arc::new(Current::new(state));
        let shared = Arc::new(Shared {
            current: Arc::clone(&current),
            vault,
            answers,
            tickets,
            fixed,
            addresses: bound.iter().map(|bound| bound.address).collect(),
            https: bound
                .iter()
                .find(|bound| bound.listener.tls)
                .map(|bound| bound.address),
            stop: watch::Sender::new(false),
            requests: InFlight::new(),
            connections: InFlight::new(),
        });
        let transfers = Arc::new(Transfers::new(shared.fixed.shares()));
        let proxy = EdgeProxy {
            current: Arc::clone(&current),
            hashing: Arc::new(Hashing::new(workers)),
            attempts: Arc::default(),
            ledger: Arc::default(),
            requests: Arc::clone(&shared.requests),
            health: shared.health(),
            wires: Wires::default(),
            transfers: Arc::clone(&transfers),
            https_port: shared.https.map_or(443, |address| address.port()),
        };
        let conf = ServerConf {
            threads: workers,
            upstream_keepalive_pool_size: UPSTREAM_POOL,
            ..ServerConf::default()
        };
        let mut proxy = http_proxy(&Arc::new(conf), proxy);
        listener::tune(&mut proxy, &limits);
        let open = Arc::clone(&shared.connections);
        let connections = Connections::new(proxy, current, open, transfers);
        Ok(Self {
            shared,
            bound,
            metrics,
            connections,
            limits,
            runtime,
        })
    }

    /// Returns the sockets that listen, for a successor, each with its address.
    pub fn sockets(&self) -> impl Iterator<Item = (BorrowedFd<'_>, SocketAddr)> {
        let bound = self.bound.iter().map(|bound| bound.socket());
        let metrics = self
            .metrics
            .iter()
            .map(|socket| (socket.as_fd(), socket.local_addr()));
        let metrics = metrics.filter_map(|(socket, address)| Some((socket, address.ok()?)));
        bound.chain(metrics)
    }

    /// Returns a hand on this edge.
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Serves on this thread and the workers' until [`Handle::drain`] is called and what was under
    /// way is done.
    ///
    /// # Errors
    /// [`Error::Ended`] when serving ended without being asked to.
    pub fn run(self) -> Result<Drained, Error> {
        let Self {
            shared,
            bound,
            metrics,
            connections,
            limits,
            runtime,
        } = self;
        keep_certificates(&shared)?;
        let drained = runtime.block_on(async {
            let current = Arc::clone(&shared.current);
            let stop = shared.stop.subscribe();
            let serving = listener::serve(bound, connections, current, limits, stop);
            let serving = tokio::spawn(serving);
            if let Some(socket) = metrics {
                tell_metrics(socket, &shared);
            }
            let refreshing = tokio::spawn(refresh(Arc::clone(&shared)));
            let mut stop = shared.stop.subscribe();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                served = serving => {
                    if let Ok(Err(error)) = served {
                        tracing::error!(%error, "the sockets cannot be served");
                    }
                }
            }
            refreshing.abort();
            // Serving ends because it was asked to, too, and may be seen to do so first.
            if *shared.stop.borrow() {
                Ok(shared.drain().await)
            } else {
                Err(Error::Ended)
            }
        });
        runtime.shutdown_timeout(THREADS_END);
        refused::report();
        drained
    }
}

/// Tells the log what of a config that is taken on is not as it should be.
fn tell_concerns(config: &Config) {
    for expired in config.expired_certificates() {
        tracing::error!("{expired}");
    }
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    skipped::report(&config.skipped_lines());
}

impl Handle {
    /// Puts `config` in the place of the one in force, for all that begins from now on; names the keys
    /// that have changed and stay as they are until a restart.
    ///
    /// # Errors
    /// [`reload::Error`] when it cannot be; nothing has changed then.
    pub fn reload(&self, config: Config) -> Result<Vec<&'static str>, reload::Error> {
        let (fixed, wanted) = (&self.shared.fixed, Fixed::of(&config));
        tell_concerns(&config);
        let vault = &self.shared.vault;
        if config.hands_out_tokens() {
            vault.prepare()?;
        }
        let Shared {
            answers, tickets, ..
        } = &*self.shared;
        let current = &self.shared.current;
        let in_force = current.load();
        let mut state = State::build(config, vault, answers, tickets, Some(&in_force))?;
        fixed.fit(&mut state, &wanted, &in_force);
        current.swap(state);
        Ok(fixed.differences(&wanted))
    }

    /// Looks at the files that say who may come in, now and not when it is their turn. It blocks.
    pub fn refresh(&self) {
        look(&self.shared.current.take(), &self.shared.vault);
    }

    /// Returns where what the edge makes itself is kept until it ends, whatever the config says by now.
    pub fn state_dir(&self) -> &StateDir {
        self.shared.fixed.state_dir()
    }

    /// Stops taking connections and ends when what is under way is done, or when the time that the
    /// config gives it is over.
    pub fn drain(&self) {
        self.shared.stop.send_replace(true);
    }

    /// Returns how long a drain may take.
    pub fn drain_timeout(&self) -> Duration {
        self.shared.current.load().drain_timeout
    }

    /// Returns the addresses of the listeners, in the order of the config.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.shared.addresses
    }

    /// Returns the address of the first listener with TLS.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.shared.https
    }
}

impl Shared {
    fn health(&self) -> Health {
        Health {
            current: Arc::clone(&self.current),
            stop: self.stop.subscribe(),
        }
    }

    async fn drain(&self) -> Drained {
        let limit = self.current.load().drain_timeout;
        let under_way = self.requests.count();
        tracing::info!(
            under_way,
            ?limit,
            "draining: no new connections, waiting for requests under way"
        );
        // Not all that was sent has been read yet, and who is in a handshake is not counted yet.
        sleep(SETTLE).await;
        let deadline = Instant::now() + limit;
        let mut news = interval_at(Instant::now() + DRAIN_NEWS_EVERY, DRAIN_NEWS_EVERY);
        let abandoned = loop {
            tokio::select! {
                () = self.requests.none_left() => break 0,
                () = sleep_until(deadline) => break self.requests.count(),
                _ = news.tick() => {
                    tracing::info!(under_way = self.requests.count(), "still draining");
                }
            }
        };
        if abandoned > 0 {
            tracing::warn!(abandoned, "the time to drain is over, requests are cut");
        } else if timeout(GOODBYE, self.connections.none_left())
            .await
            .is_err()
        {
            let open = self.connections.count();
            tracing::debug!(open, "closing connections that nothing is under way on");
        }
        Drained { abandoned }
    }
}

/// Starts the thread that looks after certificates; it ends with the edge.
fn keep_certificates(shared: &Arc<Shared>) -> Result<(), Error> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::Runtime)?;
    let (current, answers) = (Arc::clone(&shared.current), shared.answers.clone());
    let stop = shared.stop.subscribe();
    let plan = move || current.load().plan.clone();
    thread::Builder::new()
        .name("acme".to_owned())
        .spawn(move || runtime.block_on(acme::keep(answers, plan, stop)))
        .map(drop)
        .map_err(Error::Runtime)
}

/// Answers who asks for metrics and health, to the end of the drain and with it.
fn tell_metrics(socket: TcpListener, shared: &Shared) {
    let metrics = Metrics::new(Sources {
        current: Arc::clone(&shared.current),
        requests: Arc::clone(&shared.requests),
        connections: Arc::clone(&shared.connections),
        stop: shared.stop.subscribe(),
    });
    let known = listener::metrics::Known {
        current: Arc::clone(&shared.current),
        health: shared.health(),
        metrics: Arc::new(metrics),
    };
    match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => {
            drop(tokio::spawn(listener::metrics::tell(socket, known)));
        }
        Err(error) => tracing::error!(%error, "no metrics can be told"),
    }
}

/// Looks at the files that say who may come in, for ever.
async fn refresh(shared: Arc<Shared>) {
    let mut turn = interval(REFRESH_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let (state, vault) = (shared.current.take(), Arc::clone(&shared.vault));
        for fetched in vault.to_fetch() {
            tokio::spawn(fetch::refresh(fetched));
        }
        // Reading a file may block, as on a network mount.
        let look = move || look(&state, &vault);
        if tokio::task::spawn_blocking(look).await.is_err() {
            tracing::error!("looking at the files of users and tokens panicked");
        }
    }
}

/// Takes on what has changed in the files that say who may come in.
fn look(state: &State, vault: &Vault) {
    state.sites.iter().for_each(|site| site.refresh());
    state.refresh_certificates();
    vault.refresh();
}
