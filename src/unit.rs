//! What the systemd units run around a stop.
//!
//! systemd starts a unit again only when its main process has ended. At a restart that must not wait for
//! transfers: the supervisor alone ends, and the role goes on beside its successor until its requests are
//! finished (`KillMode=process`). At a stop both are waited for. Only the job says which of the two it is.

use std::fs;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// How often a process is looked for that is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long the supervisor may take to end.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// How long earlier processes may take to end at a stop: a little less than `TimeoutStopSec=`.
const OTHERS_MAX: Duration = Duration::from_secs(320);

/// What systemd is about to do, or has done.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// For `ExecStop=`: at a restart, end the supervisor and leave the role to finish.
    Stopping { unit: String },
    /// For `ExecStopPost=`: at a stop, wait for earlier processes of the role, and kill those that do not end.
    Stopped { unit: String },
}

/// Runs a command of the units.
pub(crate) fn run(command: &Command) -> Result<()> {
    let (Command::Stopping { unit } | Command::Stopped { unit }) = command;
    let listed = jobs()?;
    match (command, job_of(&listed, unit)) {
        (Command::Stopping { .. }, Some("restart")) => leave(),
        (Command::Stopped { .. }, Some("stop")) => wait_for_others(),
        _ => Ok(()),
    }
}

/// Returns the list of what systemd is about to do.
fn jobs() -> Result<String> {
    let listed = process::Command::new("systemctl")
        .args([
            "list-jobs",
            "--full",
            "--no-legend",
            "--plain",
            "--no-pager",
        ])
        .output()
        .context("ask systemd for its jobs")?;
    Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
}

/// Reads the kind of a unit's job from a list: its number, the unit, the kind, its state.
fn job_of<'a>(listed: &'a str, unit: &str) -> Option<&'a str> {
    listed.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some(unit)).then(|| words.next()).flatten()
    })
}

fn leave() -> Result<()> {
    let main = std::env::var("MAINPID").ok();
    let main = main.and_then(|main| main.parse().ok());
    let main = main.and_then(Pid::from_raw);
    let main = main.context("MAINPID names no process")?;
    // A role without a supervisor, such as one of an earlier version, would be ended by the signal.
    if !catches(main, Signal::USR1)? {
        return Ok(());
    }
    kill_process(main, Signal::USR1).context("tell the supervisor to leave")?;
    let deadline = Instant::now() + LEAVE_MAX;
    while test_kill_process(main).is_ok() && Instant::now() < deadline {
        thread::park_timeout(LOOK_EVERY);
    }
    Ok(())
}

/// Returns whether a process has a handler for a signal.
fn catches(process: Pid, signal: Signal) -> Result<bool> {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = fs::read_to_string(&path).context(path)?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|caught| u64::from_str_radix(caught.trim(), 16).ok());
    let bit = 1_u64 << (signal.as_raw() - 1);
    Ok(caught.is_some_and(|caught| caught & bit != 0))
}

/// Waits until no process of the unit is left but this one.
fn wait_for_others() -> Result<()> {
    let own = process::id().to_string();
    let Some(members) = members_file()? else {
        return Ok(());
    };
    let deadline = Instant::now() + OTHERS_MAX;
    loop {
        let members = fs::read_to_string(&members).with_context(|| members.clone())?;
        let mut others = members.lines().filter(|member| *member != own).peekable();
        if others.peek().is_none() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let others = others.filter_map(|other| Pid::from_raw(other.parse().ok()?));
            for other in others {
                kill_process(other, Signal::KILL).ok();
            }
        }
        thread::park_timeout(LOOK_EVERY);
    }
}

/// Finds the file that lists the processes of this one's control group.
fn members_file() -> Result<Option<String>> {
    let groups = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let group = |prefix: &str| groups.lines().find_map(|line| line.split_once(prefix));
    let files = [
        (group("0::"), "/sys/fs/cgroup"),
        (group("name=systemd:"), "/sys/fs/cgroup/systemd"),
    ];
    let files = files.into_iter().filter_map(|(group, mount)| {
        let (_, group) = group.filter(|(_, group)| *group != "/")?;
        Some(format!("{mount}{group}/cgroup.procs"))
    });
    let mut files = files.filter(|file| fs::metadata(file).is_ok());
    Ok(files.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_of_a_unit_is_found_among_others() {
        let listed = "134 tidegate-edge.service    restart running\n\
                      135 tidegate-registry.service stop    waiting\n";
        assert_eq!(job_of(listed, "tidegate-edge.service"), Some("restart"));
        assert_eq!(job_of(listed, "tidegate-registry.service"), Some("stop"));
        assert_eq!(job_of(listed, "tidegate"), None);
        assert_eq!(job_of("", "tidegate-edge.service"), None);
    }
}
