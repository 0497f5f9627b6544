//! Tidegate under test: both roles as processes of their own, on ports and a tree of their own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Client, Pair, Process, eventually, free_port};

pub(crate) const USER: &str = "docker";
pub(crate) const PASSWORD: &str = "correct horse battery";

/// The program under test.
pub(crate) fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    // What the machine has in its environment is not part of the test.
    for (name, _) in std::env::vars() {
        let is_of_systemd = name == "NOTIFY_SOCKET" || name == "JOURNAL_STREAM";
        if name.starts_with("TIDEGATE_") || name == "RUST_LOG" || is_of_systemd {
            command.env_remove(name);
        }
    }
    command
}

/// What a test wants otherwise than usual; each text is pasted into the config.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    /// Top-level keys.
    pub(crate) top: String,
    /// More keys of the registry's `[[site]]`.
    pub(crate) site: String,
    /// More keys of its `[site.auth]`.
    pub(crate) auth: String,
    /// More tables: sites, upstreams, limits, log.
    pub(crate) tables: String,
    /// More keys of `[registry]`.
    pub(crate) registry: String,
    /// Where the registry keeps its tree, if not in the rig's folder.
    pub(crate) root: Option<PathBuf>,
    /// Everything is written through the page cache, as where a file system takes no direct writes.
    pub(crate) buffered: bool,
    /// The htpasswd file, if not the usual one of one user.
    pub(crate) htpasswd: Option<String>,
    /// The roles run with `--supervise`.
    pub(crate) supervised: bool,
    /// No `[site.auth]` at all.
    pub(crate) open: bool,
}

impl Setup {
    /// Starts both roles and waits until requests come through.
    pub(crate) fn start(self) -> Rig {
        let mut rig = self.prepare();
        rig.start_registry();
        rig.start_edge();
        rig.wait_until_ready();
        rig
    }

    /// Writes everything and starts nothing.
    pub(crate) fn prepare(self) -> Rig {
        let folder = TempDir::with_prefix("rig").expect("a folder");
        let root = self
            .root
            .clone()
            .unwrap_or_else(|| folder.path().join("registry"));
        let names = ["localhost", "registry.test"];
        let certificate = Pair::create(folder.path(), "cert", &names);
        let hashed = bcrypt::hash(PASSWORD, 4).expect("hash a password");
        let htpasswd = self
            .htpasswd
            .clone()
            .unwrap_or_else(|| format!("{USER}:{hashed}\n"));
        fs::write(folder.path().join("htpasswd"), htpasswd).expect("write htpasswd");
        let rig = Rig {
            https: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
            folder,
            root,
            certificate,
            supervised: self.supervised,
            edge: None,
            registry: None,
        };
        rig.write_config(&self);
        rig
    }
}

/// A running Tidegate.
pub(crate) struct Rig {
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    /// The registry's tree, which holds `docker/registry/v2`.
    pub(crate) root: PathBuf,
    pub(crate) certificate: Pair,
    supervised: bool,
    // The edge goes first, as in life.
    edge: Option<Process>,
    registry: Option<Process>,
    folder: TempDir,
}

impl Rig {
    /// The usual one.
    pub(crate) fn start() -> Self {
        Setup::default().start()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("edge.toml")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("registry.sock")
    }

    /// `docker/registry/v2` in the registry's tree.
    pub(crate) fn tree(&self) -> PathBuf {
        self.root.join("docker/registry/v2")
    }

    /// The registry's name for real clients: `localhost:port`.
    pub(crate) fn name(&self) -> String {
        format!("localhost:{}", self.https.port())
    }

    /// A Go client with its own folder for credentials, trusting the edge's certificate.
    pub(crate) fn go_client(&self, program: &str) -> Command {
        let home = self.path("home");
        fs::create_dir_all(&home).expect("create a folder");
        let mut command = Command::new(program);
        command
            .current_dir(&home)
            .env("SSL_CERT_FILE", &self.certificate.cert)
            .env("HOME", &home)
            .env("DOCKER_CONFIG", &home)
            .env("REGCTL_CONFIG", home.join("regctl.json"));
        command
    }

    /// A client with the right credentials.
    pub(crate) fn client(&self) -> Client {
        self.anonymous().as_user(USER, PASSWORD)
    }

    pub(crate) fn anonymous(&self) -> Client {
        Client::tls(self.https, &self.name(), &self.certificate.cert)
    }

    /// A client of the plain listener.
    pub(crate) fn plain(&self) -> Client {
        Client::plain(self.http, &format!("localhost:{}", self.http.port()))
    }

    pub(crate) fn edge(&mut self) -> &mut Process {
        self.edge.as_mut().expect("the edge was started")
    }

    pub(crate) fn registry(&mut self) -> &mut Process {
        self.registry.as_mut().expect("the registry was started")
    }

    pub(crate) fn start_edge(&mut self) {
        let log = self.path("edge.log");
        self.edge = Some(self.start_role("edge", &log));
    }

    /// Starts an edge that can be upgraded.
    pub(crate) fn start_supervised_edge(&mut self) {
        let mut command = tidegate();
        command.args(["edge", "--supervise", "--config"]);
        let log = self.path("edge.log");
        self.edge = Some(Process::start(command.arg(self.config()), &log));
    }

    pub(crate) fn start_registry(&mut self) {
        let log = self.path("registry.log");
        self.registry = Some(self.start_role("registry", &log));
    }

    fn start_role(&self, role: &str, log: &Path) -> Process {
        let mut command = tidegate();
        command
            .arg(role)
            .args(self.supervised.then_some("--supervise"));
        Process::start(command.arg("--config").arg(self.config()), log)
    }

    /// `kill -9` of the registry, and a new one on the same tree.
    pub(crate) fn crash_registry(&mut self) {
        self.registry().kill();
        self.start_registry();
        self.wait_until_ready();
    }

    /// `kill -9` of the edge, and a new one.
    pub(crate) fn crash_edge(&mut self) {
        self.edge().kill();
        self.start_edge();
        self.wait_until_ready();
    }

    /// SIGHUP to the edge; the caller waits for what it expects of it.
    pub(crate) fn reload_edge(&mut self) {
        self.edge().signal(Signal::HUP);
    }

    /// The pids of both roles.
    pub(crate) fn pids(&self) -> Vec<i32> {
        [&self.edge, &self.registry]
            .into_iter()
            .flatten()
            .map(Process::pid)
            .collect()
    }

    /// The lines of the edge's log, which was set up as JSON, that hold all of `parts`.
    pub(crate) fn edge_lines(&self, parts: &[&str]) -> Vec<String> {
        let log = self.edge_log();
        let lines = log.lines().map(str::to_owned);
        lines
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .collect()
    }

    /// Everything the edge has logged.
    pub(crate) fn edge_log(&self) -> String {
        fs::read_to_string(self.path("edge.log")).unwrap_or_default()
    }

    pub(crate) fn registry_log(&self) -> String {
        fs::read_to_string(self.path("registry.log")).unwrap_or_default()
    }

    /// Waits until a request comes back from the registry through the edge.
    pub(crate) fn wait_until_ready(&mut self) {
        eventually("Tidegate to answer", || {
            for role in [&mut self.edge, &mut self.registry].into_iter().flatten() {
                let ended = role.exited();
                assert!(
                    ended.is_none(),
                    "a role ended with {ended:?}:\n{}",
                    role.log()
                );
            }
            let reply = self.client().request("GET", "/v2/").try_send().ok()?;
            (reply.status == 200).then_some(())
        });
    }

    /// Writes the config anew, for a start or a reload to read.
    pub(crate) fn write_config(&self, setup: &Setup) {
        let auth = format!(
            "[site.auth]\nrealm = \"Registry\"\nhtpasswd_file = \"htpasswd\"\n{}",
            setup.auth
        );
        let text = format!(
            r#"control_socket = "edge.control"
{top}
[[listener]]
address = "{http}"

[[listener]]
address = "{https}"
tls = true

[[listener]]
address = "[::1]:{port}"
tls = true

[[site]]
hosts = ["localhost", "127.0.0.1", "registry.test"]
certificate = {{ cert_file = "{cert}", key_file = "{key}" }}
upstream = "registry"
{site}
{auth}
{tables}
[registry]
listen = "unix:{socket}"
control_socket = "registry.control"
{registry}
[registry.storage]
filesystem = {{ root = "{root}", direct_io = {direct_io} }}
"#,
            top = setup.top,
            http = self.http,
            https = self.https,
            port = self.https.port(),
            cert = self.certificate.cert.display(),
            key = self.certificate.key.display(),
            site = setup.site,
            auth = if setup.open { "" } else { &auth },
            tables = setup.tables,
            socket = self.socket().display(),
            registry = setup.registry,
            root = self.root.display(),
            direct_io = !setup.buffered,
        );
        fs::write(self.config(), text).expect("write the config");
    }
}
