//! Debian's `docker-registry`: the program whose place Tidegate takes, and whose tree it shares.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Client, Process, eventually, free_port};

/// A running `docker-registry`, without TLS or credentials.
pub(crate) struct DockerRegistry {
    address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl DockerRegistry {
    /// Starts it on a tree, which may be empty or another program's.
    pub(crate) fn on(root: &Path) -> Self {
        Self::with(root, "")
    }

    /// [`Self::on`], with more of its config.
    pub(crate) fn with(root: &Path, more: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: {address}\n{more}",
            root.display()
        );
        fs::write(&config, text).expect("write a config");
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none");
        let process = Process::start(&mut command, &folder.path().join("log"));
        let peer = Self {
            address,
            process,
            _folder: folder,
        };
        eventually("docker-registry to answer", || {
            let reply = peer.client().request("GET", "/v2/").try_send().ok()?;
            (reply.status == 200).then_some(())
        });
        peer
    }

    pub(crate) fn client(&self) -> Client {
        Client::plain(self.address, &self.address.to_string())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it; what it wrote stays.
    pub(crate) fn stop(mut self) {
        self.process.terminate();
    }
}
