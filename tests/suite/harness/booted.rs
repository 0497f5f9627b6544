//! A Debian that systemd has booted: this machine's programs, with a root of their own, in a container.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{Output, Process, descendants, eventually_within, run, try_run};

/// A running container; it shares this machine's network.
pub(crate) struct Booted {
    folder: TempDir,
    container: Process,
}

impl Booted {
    /// Boots one with Tidegate's units installed; or says why that cannot be here.
    pub(crate) fn start() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can boot a container".to_owned());
        }
        let folder = TempDir::with_prefix("booted").expect("a folder");
        let root = folder.path().join("root");
        lay_out(&root);
        install(&root);
        let mut command = Command::new("systemd-nspawn");
        command
            .args(["--quiet", "--boot", "--register=no", "--keep-unit"])
            .args(["--bind-ro=/usr", "--private-users=no"])
            .arg(format!("--machine=tidegate-{}", std::process::id()))
            .arg("--directory")
            .arg(&root)
            // Nothing of this machine's own services.
            .args(["--", "systemd.unit=basic.target"])
            .arg("systemd.mask=systemd-firstboot.service");
        let container = Process::start(&mut command, &folder.path().join("boot.log"));
        let mut booted = Self { folder, container };
        let mut ended = None;
        eventually_within(Duration::from_secs(60), "systemd to boot", || {
            ended = booted.container.exited();
            let state = booted.leader().map(|_| booted.run(&["is-system-running"]));
            let running = state.is_some_and(|state| state.stdout.starts_with("running"));
            (ended.is_some() || running).then_some(())
        });
        match ended {
            Some(status) => Err(format!("{status}: {}", booted.container.log())),
            None => Ok(booted),
        }
    }

    /// The container's root.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Runs `systemctl`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let arguments: Vec<&str> = [&["systemctl"], arguments].concat();
        self.enter(&arguments)
    }

    /// Runs a program in the container.
    pub(crate) fn enter(&self, arguments: &[&str]) -> Output {
        let leader = self.leader().expect("systemd runs");
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &leader.to_string()])
            .args(["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--"])
            .args(arguments)
            .env("PATH", "/opt/bin:/usr/sbin:/usr/bin")
            .env_remove("NOTIFY_SOCKET");
        try_run(&mut command)
    }

    /// What the journal has of a unit.
    pub(crate) fn journal(&self, unit: &str) -> String {
        let read = self.enter(&["journalctl", "--no-pager", "--output=cat", "--unit", unit]);
        read.stdout
    }

    /// The process that is the first one in there.
    fn leader(&self) -> Option<i32> {
        let family = descendants(self.container.pid());
        family.into_iter().find(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == "systemd")
        })
    }
}

/// Makes what a root needs to be booted from this machine's `/usr`.
fn lay_out(root: &Path) {
    for name in [
        "etc", "var", "root", "usr", "tmp", "run", "proc", "sys", "dev",
    ] {
        fs::create_dir_all(root.join(name)).expect("create a folder");
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("link into /usr");
    }
    let files = [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        ),
        ("group", "root:x:0:\nnogroup:x:65534:\n"),
        ("machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        ("os-release", "ID=debian\n"),
    ];
    for (name, text) in files {
        fs::write(root.join("etc").join(name), text).expect("write into /etc");
    }
}

fn install(root: &Path) {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["install", "PREFIX=/opt", "SYSTEMD_DIR=/etc"])
        .arg(format!("DESTDIR={}", root.display()))
        .arg(format!("BINARY={}", env!("CARGO_BIN_EXE_tidegate")));
    run(&mut make);
}
