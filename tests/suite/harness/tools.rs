//! Programs the suite did not build: run to their end, or missed out loud.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, fmt, io, thread};

/// How a program ended and what it said.
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "exit {:?}\n{}\n{}",
            self.code, self.stdout, self.stderr
        )
    }
}

/// Runs `command` to its end; panics with all it said when it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = try_run(command);
    assert!(output.success, "{command:?}: {output}");
    output.stdout
}

/// Runs `command` to its end, whatever that is.
pub(crate) fn try_run(command: &mut Command) -> Output {
    if let Some(program) = locate(&command.get_program().to_string_lossy()) {
        let mut search = vec![
            program
                .parent()
                .unwrap_or_else(|| Path::new("/"))
                .to_owned(),
        ];
        search.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        if command.get_envs().all(|(name, _)| name != "PATH") {
            command.env("PATH", env::join_paths(search).expect("a path of folders"));
        }
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    Output {
        success: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The first of `programs` that is not installed.
pub(crate) fn missing(programs: &[&'static str]) -> Option<&'static str> {
    programs
        .iter()
        .find(|program| locate(program).is_none())
        .copied()
}

/// Says that this test is left out, and why: past the capture, for `tests/run` to count.
pub(crate) fn skip(why: &str) {
    let name = thread::current().name().unwrap_or("?").to_owned();
    drop(writeln!(io::stderr(), "skipped: {name}: {why}"));
}

/// Held by tests that fill disk, memory or cores, so that only one of them does at a time.
pub(crate) fn heavy() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn locate(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let tools = env::var_os("TIDEGATE_TOOLS")
        .map(PathBuf::from)
        .or_else(|| {
            let cache = env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
            Some(cache.join("tidegate/tools"))
        });
    let path = env::var_os("PATH").unwrap_or_default();
    tools
        .map(|tools| tools.join("bin"))
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}
