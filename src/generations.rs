//! The processes of one role: the one that serves, a successor that starts beside it, and those before
//! it, which finish what they have begun.

use std::collections::VecDeque;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::config::Role;
use crate::control::Asker;
use crate::descriptors::Descriptors;
use crate::notify::{Notice, Readiness, Ready};
use crate::outcome::Outcome;
use crate::output::one_line;
use crate::setup;
use crate::signals::{Request, Signals};

/// How long a successor may take to become ready.
const START_MAX: Duration = Duration::from_secs(60);

/// Has a role finish what is under way and end. The kernel sends it, too, when the supervisor ends, so it may
/// come twice.
const FINISH: Signal = Signal::USR1;

/// How many processes may still finish their requests when another is to start.
const LEAVING_MAX: usize = 3;

/// How much a successor may say before it is ready: a socket in each message, and some more.
const SAID_MAX: usize = 1100;

/// What a role does that its supervisor cares for.
pub(crate) enum Event {
    /// It takes requests, for the first time.
    Ready(Ready),
    /// It has said something, this too.
    Said(Notice),
    /// The last of those before it has ended, too, after it.
    Left,
    /// The process that serves is no more.
    Ended { status: ExitStatus, was_ready: bool },
}

/// The processes of one role.
pub(crate) struct Generations {
    role: Role,
    /// The program, where it was when this one was started: by now it may be another build.
    program: PathBuf,
    config: PathBuf,
    /// Where the sockets are on which they say how they are.
    run: PathBuf,
    /// What outlives each of them.
    kept: Descriptors,
    started: usize,
    /// What is still to be passed on.
    said: VecDeque<Notice>,
    serving: Option<Running>,
    successor: Option<Successor>,
    stopping: bool,
    leaving: JoinSet<()>,
}

/// A process that is to take over.
struct Successor {
    running: Running,
    asker: Asker,
    deadline: Instant,
    /// What it has said, to count once it is ready.
    said: Vec<Notice>,
    /// The config was reloaded by the process that serves, and this one may have read it before.
    reload: bool,
}

impl Generations {
    /// Starts the first process, with what an earlier supervisor has had kept.
    pub(crate) fn start(role: Role, config: &Path, run: &Path, kept: Descriptors) -> Result<Self> {
        let mut generations = Self {
            role,
            program: program()?,
            config: config.to_owned(),
            run: run.to_owned(),
            kept,
            started: 0,
            said: VecDeque::new(),
            serving: None,
            successor: None,
            stopping: false,
            leaving: JoinSet::new(),
        };
        generations.serving = Some(generations.spawn()?);
        Ok(generations)
    }

    /// Waits for what happens next; nothing is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(notice) = self.said.pop_front() {
                return Ok(Event::Said(notice));
            }
            let deadline = self.successor.as_ref().map(|successor| successor.deadline);
            tokio::select! {
                said = next_of(self.serving.as_mut()) => match said? {
                    Said::Notice(notice) => if let Some(event) = self.hear(notice) {
                        return Ok(event);
                    },
                    Said::Ended(status) => {
                        let was_ready = self.serving.take().is_some_and(|running| running.ready);
                        return Ok(Event::Ended { status, was_ready });
                    }
                },
                said = next_of(self.successor.as_mut().map(|successor| &mut successor.running)) => {
                    self.hear_successor(said?)?;
                }
                () = until(deadline) => {
                    self.give_up("it was not ready within a minute");
                }
                _ = self.leaving.join_next(), if !self.leaving.is_empty() => {
                    if self.serving.is_none() && self.leaving.is_empty() {
                        return Ok(Event::Left);
                    }
                }
            }
        }
    }

    /// Sends the process that serves a signal.
    pub(crate) fn send(&self, signal: Signal) -> Result<()> {
        self.serving
            .iter()
            .try_for_each(|running| running.send(signal))
    }

    /// Closes the listeners that are kept: nobody is to wait for the next process, if there is one.
    pub(crate) fn close_listeners(&mut self) {
        self.kept.close_listeners();
    }

    /// Has all of them finish what is under way, and waits for their end; `at_once`, or when a signal wants
    /// it so meanwhile, they are killed. Returns whether the one that served ended well.
    pub(crate) async fn stop(&mut self, signals: &mut Signals, at_once: &mut bool) -> Result<bool> {
        self.stopping = true;
        self.give_up("the service is stopping");
        let mut clean = true;
        match *at_once {
            true => self.kill()?,
            false => self.send(FINISH)?,
        }
        while self.serving.is_some() || !self.leaving.is_empty() {
            tokio::select! {
                event = self.next() => match event? {
                    Event::Ended { status, .. } => clean &= status.success(),
                    Event::Said(notice) => notice.pass_on(),
                    Event::Ready(_) | Event::Left => {}
                },
                request = signals.next() => if matches!(request, Request::Stop) {
                    *at_once = true;
                    self.kill()?;
                },
            }
        }
        Ok(clean)
    }

    fn kill(&mut self) -> Result<()> {
        self.leaving.abort_all();
        self.send(Signal::KILL)
    }

    fn spawn(&mut self) -> Result<Running> {
        self.started += 1;
        let socket = format!("{}.{}.notify", self.role, self.started % 1000);
        Running::start(
            self.role,
            &self.program,
            &self.config,
            &self.run.join(socket),
            &self.kept,
        )
        .with_context(|| format!("start the {}", self.role))
    }

    fn hear(&mut self, mut notice: Notice) -> Option<Event> {
        if let Some(asker) = notice.asks_for_successor() {
            self.begin_successor(asker);
            return None;
        }
        self.kept.obey(&notice);
        if let (Some("1"), Some(successor)) = (notice.value("RELOADING"), &mut self.successor) {
            successor.reload = true;
        }
        let ready = notice.ready();
        self.said.push_back(notice);
        // It says so again after each reload.
        let first = |running: &mut Running| !std::mem::replace(&mut running.ready, true);
        let ready = ready.filter(|_| self.serving.as_mut().is_some_and(first));
        ready.map(Event::Ready)
    }

    fn begin_successor(&mut self, asker: OwnedFd) {
        let Ok(asker) = Asker::from_fd(asker) else {
            return;
        };
        if self.stopping {
            return refuse(asker, "the service is stopping");
        }
        if self.successor.is_some() {
            return refuse(asker, "an upgrade is under way already");
        }
        if self.leaving.len() >= LEAVING_MAX {
            let why = "the processes before this one still finish their requests; try again later";
            return refuse(asker, why);
        }
        match self.spawn() {
            Ok(running) => {
                let deadline = Instant::now() + START_MAX;
                self.successor = Some(Successor {
                    running,
                    asker,
                    deadline,
                    said: Vec::new(),
                    reload: false,
                });
            }
            Err(error) => refuse(asker, &one_line(&error)),
        }
    }

    fn hear_successor(&mut self, said: Said) -> Result<()> {
        let notice = match said {
            Said::Notice(notice) => notice,
            Said::Ended(status) => {
                let successor = self.successor.as_ref();
                let said = successor.map(|successor| successor.running.status.clone());
                let said = said.filter(|said| !said.is_empty());
                let unsaid =
                    || format!("it ended before it was ready ({status}); its log says why");
                self.give_up(&said.unwrap_or_else(unsaid));
                return Ok(());
            }
        };
        let Some(mut successor) = self.successor.take() else {
            return Ok(());
        };
        let ready = notice.ready();
        if let Some(status) = notice.value("STATUS") {
            status.clone_into(&mut successor.running.status);
        }
        if successor.said.len() < SAID_MAX {
            successor.said.push(notice);
        }
        let Some(ready) = ready else {
            self.successor = Some(successor);
            return Ok(());
        };
        for notice in &successor.said {
            self.kept.obey(notice);
        }
        self.said.extend(successor.said);
        if successor.reload {
            successor.running.send(Signal::HUP)?;
        }
        successor.running.ready = true;
        let before = self.serving.replace(successor.running);
        successor.asker.answer(&Outcome::Upgraded {
            version: ready.version,
        });
        if let Some(before) = before {
            before.send(FINISH)?;
            self.leaving.spawn(before.leave());
        }
        Ok(())
    }

    /// Kills a successor that is not ready, if there is one; the process that serves goes on.
    fn give_up(&mut self, why: &str) {
        if let Some(Successor { asker, .. }) = self.successor.take() {
            refuse(asker, why);
        }
    }
}

fn refuse(asker: Asker, why: &str) {
    asker.answer(&Outcome::Refused {
        problems: vec![why.to_owned()],
    });
}

/// Finds the program by the path that it was started by, which may be a link to another build by now.
fn program() -> Result<PathBuf> {
    let named = std::env::args_os().next().map(PathBuf::from);
    match named.filter(|named| named.is_absolute()) {
        Some(named) => Ok(named),
        None => std::env::current_exe().context("find the own executable"),
    }
}

/// The process of a role.
struct Running {
    child: Child,
    readiness: Readiness,
    ready: bool,
    /// What it said last of its state.
    status: String,
}

enum Said {
    Notice(Notice),
    Ended(ExitStatus),
}

impl Running {
    fn start(
        role: Role,
        program: &Path,
        config: &Path,
        socket: &Path,
        kept: &Descriptors,
    ) -> Result<Self> {
        let readiness = Readiness::bind(socket)?;
        let mut command = Command::new(program);
        command
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
            // Ctrl-C on the terminal reaches the supervisor alone, which then stops them in order.
            .process_group(0)
            .kill_on_drop(true);
        kept.give_to(&mut command)?;
        let child = command
            .spawn()
            .with_context(|| program.display().to_string())?;
        Ok(Self {
            child,
            readiness,
            ready: false,
            status: String::new(),
        })
    }

    async fn next(&mut self) -> Result<Said> {
        tokio::select! {
            // What it said before it ended is not lost.
            biased;
            notice = self.readiness.next() => notice.map(Said::Notice),
            status = self.child.wait() => status.map(Said::Ended).context("wait for a role"),
        }
    }

    /// Waits for its end; the process ends with this wait.
    async fn leave(mut self) {
        while let Ok(Said::Notice(_)) = self.next().await {}
    }

    /// Sends a signal, unless the process has ended and only waits to be noticed.
    fn send(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        match id.and_then(Pid::from_raw) {
            Some(id) => kill_process(id, signal).context("signal a role"),
            None => Ok(()),
        }
    }
}

/// Waits for what a process says or does; one that is not there does nothing, ever.
async fn next_of(running: Option<&mut Running>) -> Result<Said> {
    match running {
        Some(running) => running.next().await,
        None => pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
