//! Processes that are stopped by their pid, whatever becomes of the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{eventually_within, pause};

/// A running program, its output kept in a file.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`, both its outputs appended to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let name = Path::new(command.get_program())
            .file_name()
            .unwrap_or_else(|| OsStr::new("?"))
            .to_string_lossy()
            .into_owned();
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("open the log");
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("share the log"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self {
            name,
            child,
            log: log.to_owned(),
            status: None,
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_pid(self.pid(), signal);
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if self.exited().is_none() {
            self.signal(Signal::KILL);
            self.wait(Duration::from_secs(30));
        }
    }

    /// SIGTERM, and waits until it is gone.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        if self.exited().is_none() {
            self.signal(Signal::TERM);
        }
        self.wait(Duration::from_secs(60))
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        eventually_within(limit, &format!("the end of {name}"), || self.exited())
    }

    /// How it ended, if it did.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("wait for a child");
        }
        self.status
    }

    /// Everything it has printed so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited().is_none() {
            let family = descendants(self.pid());
            self.signal(Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(10);
            while self.exited().is_none() && Instant::now() < deadline {
                pause(Duration::from_millis(10));
            }
            if self.exited().is_none() {
                for pid in family {
                    signal_pid(pid, Signal::KILL);
                }
                self.kill();
            }
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            show(&format!(
                "--- the last lines of {} ({})",
                self.name,
                self.log.display()
            ));
            for line in tail.iter().rev() {
                show(&format!("    {line}"));
            }
        }
    }
}

/// Adds a line to what the test runner shows of a test that failed.
#[expect(
    clippy::print_stderr,
    reason = "captured by the test runner, and shown in its place"
)]
fn show(line: &str) {
    eprintln!("{line}");
}

fn signal_pid(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended in this moment; the wait that follows tells.
        let _: Result<(), _> = kill_process(pid, signal);
    }
}

/// The high-water mark of a process's resident memory.
pub(crate) fn memory_peak_bytes(pid: i32) -> u64 {
    memory_figure(pid, "VmHWM:")
}

/// The resident memory of a process.
pub(crate) fn memory_bytes(pid: i32) -> u64 {
    memory_figure(pid, "VmRSS:")
}

fn memory_figure(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read /proc");
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .and_then(|value| value.trim().parse::<u64>().ok());
    kilobytes.expect("a figure in /proc") * 1024
}

/// How many file descriptors a process has open.
pub(crate) fn open_files(pid: i32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("read /proc");
    files.count()
}

/// The children of a process, and theirs.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").expect("read /proc").flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else {
            continue;
        };
        // The name, in parentheses, may hold anything; the state and the parent follow it.
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse::<i32>().ok()) {
            parents.push((child, parent));
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(child, _)| *child),
        );
        next += 1;
    }
    family.remove(0);
    family
}
