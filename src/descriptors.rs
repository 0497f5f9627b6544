//! Sockets and other open files that outlive a process.
//!
//! A role has them kept by its service manager (`FDSTORE=1`, `sd_notify(3)`), be it systemd, `tidegate up`
//! or `--supervise`, which starts the next one with them (`sd_listen_fds(3)`). So a listener is never
//! closed while a role restarts: who connects meanwhile waits for the next process.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context as _, Result};
use command_fds::{CommandFdExt as _, FdMapping};
use rustix::fs::{FileType, fstat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, getsockname, sockopt};
use sd_notify::NotifyState;
use tokio::process::Command;

use crate::notify::Notice;

/// The first of those that a process is started with.
const FIRST: RawFd = 3;

/// How many a process is started with at most.
const COUNT_MAX: RawFd = 1024;

/// How many are kept at most.
const KEPT_MAX: usize = 1024;

/// Open files, each with its name. No two have the same one.
#[derive(Debug, Default)]
pub(crate) struct Descriptors(Vec<(String, OwnedFd)>);

impl Descriptors {
    /// Takes those that this process was started with; `supervisor` may have done so, who cannot say in
    /// advance what the process will be called. To be called once, before anything else is opened.
    ///
    /// # Errors
    /// When they are not what the environment says.
    pub(crate) fn inherited(supervisor: Option<i32>) -> Result<Self> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
        let own = i32::try_from(std::process::id()).ok();
        let meant = number("LISTEN_PID");
        if meant.is_none() || (meant != own && meant != supervisor) {
            return Ok(Self::default());
        }
        let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, COUNT_MAX);
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let taken = (FIRST..FIRST + count).map(|number| {
            let name = names.next().unwrap_or_default().to_owned();
            Ok((name, take(number)?))
        });
        let taken: io::Result<Vec<_>> = taken.collect();
        taken
            .map(Self)
            .context("take the sockets that LISTEN_FDS names")
    }

    /// Has `command` start with them.
    pub(crate) fn give_to(&self, command: &mut Command) -> Result<()> {
        let mappings = self.0.iter().zip(FIRST..).map(|((_, open), child_fd)| {
            let parent_fd = open.try_clone()?;
            Ok(FdMapping {
                parent_fd,
                child_fd,
            })
        });
        let mappings: io::Result<Vec<_>> = mappings.collect();
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        command
            .fd_mappings(mappings.context("duplicate a socket")?)
            .context("hand over the sockets")?
            .env("LISTEN_PID", std::process::id().to_string())
            .env("LISTEN_FDS", self.0.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        Ok(())
    }

    /// Keeps, or no longer keeps, what a role says.
    pub(crate) fn obey(&mut self, notice: &Notice) {
        let name = notice.value("FDNAME").unwrap_or_default().to_owned();
        let is = |key: &str| notice.value(key) == Some("1");
        let (store, remove) = (is("FDSTORE"), is("FDSTOREREMOVE"));
        if store || remove {
            self.0.retain(|(other, _)| *other != name);
        }
        // For want of descriptors, or of places, the next process has to open it anew.
        let open = notice.files.first();
        let open = open.filter(|_| store && self.0.len() < KEPT_MAX);
        self.0
            .extend(open.and_then(|open| Some((name, open.try_clone().ok()?))));
    }

    /// Has the service manager keep `wanted` for the next process, and nothing else any more.
    pub(crate) fn keep(&self, wanted: &[(String, BorrowedFd<'_>)]) {
        let is_kept = |(name, open): &(String, BorrowedFd<'_>)| {
            let mut kept = self.0.iter();
            kept.any(|(other, kept)| other == name && is_same(kept.as_fd(), *open))
        };
        let (goes_on, new): (Vec<_>, Vec<_>) = wanted.iter().partition(|wanted| is_kept(wanted));
        for (name, _) in &self.0 {
            if !goes_on.iter().any(|(other, _)| other == name) {
                tell(
                    &[NotifyState::FdStoreRemove, NotifyState::FdName(name)],
                    &[],
                );
            }
        }
        for (name, open) in new {
            tell(&[NotifyState::FdStore, NotifyState::FdName(name)], &[*open]);
        }
    }

    /// Closes the listeners, and has the service manager do so, too.
    pub(crate) fn close_listeners(&mut self) {
        self.close(is_listener);
    }

    /// Closes the listeners over TCP that `unwanted` says so of, and has the service manager do so, too;
    /// returns whether there are any.
    pub(crate) fn close_tcp_listeners(&mut self, unwanted: impl Fn(SocketAddr) -> bool) -> bool {
        self.close(|open| {
            let address = getsockname(open)
                .ok()
                .and_then(|it| SocketAddr::try_from(it).ok());
            is_listener(open) && address.is_some_and(&unwanted)
        })
    }

    fn close(&mut self, unwanted: impl Fn(BorrowedFd<'_>) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|(name, open)| {
            let close = unwanted(open.as_fd());
            if close {
                tell(
                    &[NotifyState::FdStoreRemove, NotifyState::FdName(name)],
                    &[],
                );
            }
            !close
        });
        self.0.len() < before
    }

    /// Returns whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Duplicates those that are listeners over TCP.
    ///
    /// # Errors
    /// For want of descriptors.
    pub(crate) fn tcp_listeners(&self) -> Result<Vec<TcpListener>> {
        self.duplicated(|open| {
            let family = sockopt::socket_domain(open);
            is_listener(open) && family.is_ok_and(|family| family != AddressFamily::UNIX)
        })
    }

    /// Duplicates those that are listeners on a path.
    ///
    /// # Errors
    /// For want of descriptors.
    pub(crate) fn unix_listeners(&self) -> Result<Vec<UnixListener>> {
        self.duplicated(|open| {
            let family = sockopt::socket_domain(open);
            is_listener(open) && family.is_ok_and(|family| family == AddressFamily::UNIX)
        })
    }

    /// Duplicates those that are folders.
    ///
    /// # Errors
    /// For want of descriptors.
    pub(crate) fn folders(&self) -> Result<Vec<File>> {
        self.duplicated(|open| {
            fstat(open).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
        })
    }

    fn duplicated<T: From<OwnedFd>>(
        &self,
        fits: impl Fn(BorrowedFd<'_>) -> bool,
    ) -> Result<Vec<T>> {
        let fitting = self.0.iter().filter(|(_, open)| fits(open.as_fd()));
        let duplicated = fitting.map(|(_, open)| open.try_clone().map(T::from));
        let duplicated: io::Result<Vec<T>> = duplicated.collect();
        duplicated.context("duplicate a socket")
    }
}

/// Makes a name of an address or path: the service manager takes few characters.
pub(crate) fn name(role: &str, what: &str) -> String {
    let plain = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() || ".-_[]".contains(letter) => letter,
        _ => '_',
    };
    // Two that look alike differ in this.
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    let hash = hasher.finish();
    let what: String = what.chars().map(plain).take(200).collect();
    format!("{role}-{what}-{hash:016x}")
}

/// Names a socket by its path.
pub(crate) fn name_of_path(role: &str, path: &Path) -> String {
    name(role, &path.to_string_lossy())
}

#[expect(unsafe_code, reason = "descriptors are inherited as numbers")]
fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: whoever started this process opened it for this process, which has opened nothing that could
    // have the number, and takes each once. One that is not open fails in the next line.
    let open = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&open, FdFlags::CLOEXEC)?;
    Ok(open)
}

fn tell(states: &[NotifyState<'_>], open: &[BorrowedFd<'_>]) {
    if let Err(error) = sd_notify::notify_with_fds(states, open) {
        tracing::warn!(%error, "the service manager was not told of a socket");
    }
}

fn is_listener(open: BorrowedFd<'_>) -> bool {
    sockopt::socket_acceptconn(open).unwrap_or(false)
}

fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}
