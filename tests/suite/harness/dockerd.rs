//! A Docker engine of the test's own, which sees its own `/etc/hosts` and `certs.d`.
//!
//! Docker takes every registry on 127.0.0.0/8 for an insecure one. In the engine's mount namespace
//! `registry.test` is `::1`, where it checks certificates as it would in the wild.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{Output, Pair, Process, eventually_within, run, try_run};

/// A running `dockerd` with its client.
pub(crate) struct Dockerd {
    folder: TempDir,
    _process: Process,
}

impl Dockerd {
    pub(crate) fn start() -> Self {
        let folder = TempDir::with_prefix("docker").expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("hosts"), "127.0.0.1 localhost\n::1 registry.test\n").expect("write hosts");
        fs::create_dir_all(at("certs.d")).expect("create certs.d");
        fs::create_dir_all(at("client")).expect("create the client's folder");
        fs::create_dir_all("/etc/docker/certs.d").expect("create /etc/docker/certs.d");
        let script = r#"mount --bind "$0/hosts" /etc/hosts &&
            mount --bind "$0/certs.d" /etc/docker/certs.d &&
            exec dockerd --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" \
                --host "unix://$0/docker.sock" --iptables=false --ip6tables=false \
                --bridge=none --storage-driver=vfs"#;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(folder.path());
        let process = Process::start(&mut command, &at("log"));
        let engine = Self {
            folder,
            _process: process,
        };
        eventually_within(Duration::from_secs(90), "the Docker engine", || {
            try_run(engine.docker().arg("version"))
                .success
                .then_some(())
        });
        engine
    }

    /// Trusts `certificate` for a registry, as an administrator would.
    pub(crate) fn trust(&self, registry: &str, certificate: &Path) {
        let folder = self.folder.path().join("certs.d").join(registry);
        fs::create_dir_all(&folder).expect("create certs.d");
        fs::copy(certificate, folder.join("ca.crt")).expect("copy the certificate");
    }

    /// Gives the engine a certificate to show to a registry.
    pub(crate) fn identify(&self, registry: &str, pair: &Pair) {
        let folder = self.folder.path().join("certs.d").join(registry);
        fs::copy(&pair.cert, folder.join("client.cert")).expect("copy the certificate");
        fs::copy(&pair.key, folder.join("client.key")).expect("copy the key");
    }

    /// The client, talking to this engine, with its own store of credentials.
    pub(crate) fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(format!(
                "unix://{}",
                self.folder.path().join("docker.sock").display()
            ))
            .env("DOCKER_CONFIG", self.folder.path().join("client"))
            .env("DOCKER_BUILDKIT", "0");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        run(self.docker().args(arguments))
    }

    pub(crate) fn try_run(&self, arguments: &[&str]) -> Output {
        try_run(self.docker().args(arguments))
    }

    /// A folder for the test's own files, gone with the engine.
    pub(crate) fn scratch(&self) -> PathBuf {
        let folder = self.folder.path().join("scratch");
        fs::create_dir_all(&folder).expect("create a folder");
        folder
    }
}
