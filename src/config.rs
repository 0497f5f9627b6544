//! The config file as a whole: every table goes to the one who knows its keys.

use std::fmt;
use std::path::{Path, PathBuf};

use proxy::RegistryPeer;
use proxy::state_dir::StateDir;
use settings::{Document, Problems, Section};

use crate::logging::Log;

/// Where the config is if nobody says so.
const DEFAULT_PATH: &str = "/etc/tidegate/edge.toml";

/// Where the environment may say that it is.
const PATH_VARIABLE: &str = "TIDEGATE_CONFIG";

/// Returns which config is meant where no flag says so.
pub(crate) fn default_path() -> PathBuf {
    let given = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty());
    given.map_or_else(|| PathBuf::from(DEFAULT_PATH), PathBuf::from)
}

/// The flag that names the config, for every verb that reads one.
#[derive(clap::Args)]
pub(crate) struct ConfigFile {
    /// The config file.
    #[arg(
        long = "config",
        value_name = "CONFIG",
        env = PATH_VARIABLE,
        default_value = DEFAULT_PATH
    )]
    pub(crate) path: PathBuf,
}

/// One of the two processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Role {
    /// The process that faces the network.
    Edge,
    /// The process that stores the images.
    Registry,
}

impl Role {
    /// The role's name, which is also its verb.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Registry => "registry",
        }
    }

    /// The socket on which it is asked to reload, where the config names none: the one that its unit
    /// makes room for.
    fn control_socket(self) -> &'static str {
        match self {
            Self::Edge => "/run/tidegate-edge/control.sock",
            Self::Registry => "/run/tidegate/control.sock",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A config file, proven.
pub(crate) struct Config {
    pub(crate) log: Log,
    /// Where the edge is asked to reload.
    pub(crate) control_socket: PathBuf,
    pub(crate) edge: proxy::Config,
    pub(crate) registry: Option<Registry>,
}

impl Config {
    /// Returns the registries that sites can have as their upstream, as they are written.
    pub(crate) fn registries(&self) -> Vec<RegistryPeer> {
        self.registry
            .as_ref()
            .map_or_else(Vec::new, Registry::peers)
    }

    /// Returns what is not wrong with the log files of this role, or of both, and not good either.
    pub(crate) fn log_warnings(&self, role: Option<Role>) -> Vec<String> {
        let edge = (role != Some(Role::Registry)).then_some(&self.log);
        let registry = (role != Some(Role::Edge)).then_some(self.registry.as_ref());
        let registry = registry.flatten().map(|registry| &registry.log);
        edge.into_iter()
            .flat_map(Log::warnings)
            .chain(registry.into_iter().flat_map(|log| {
                let of_registry = |warning| format!("registry.{warning}");
                log.warnings().into_iter().map(of_registry)
            }))
            .collect()
    }
}

/// What the role of the registry takes from the file.
pub(crate) struct Registry {
    pub(crate) log: Log,
    /// Where this role is asked to reload.
    pub(crate) control_socket: PathBuf,
    /// That of each registry, the one of `[registry]` itself first.
    pub(crate) configs: Vec<registry_backend::Config>,
}

impl Registry {
    fn peers(&self) -> Vec<RegistryPeer> {
        let peer = |config: &registry_backend::Config| RegistryPeer {
            name: config.name().to_owned(),
            socket: config.listen.clone(),
        };
        self.configs.iter().map(peer).collect()
    }
}

/// Reads and checks the whole file, for one role or for both.
///
/// Every key is checked for either role. The files that keys name are checked for the role that
/// uses them: the registry's user may not even look at a private key.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read(path: &Path, role: Option<Role>) -> Result<Config, Problems> {
    read_with(path, role, proxy::Config::read, |_, _| {})
}

/// As [`read`]; `look` sees `[registry]`, if it is read for the role that uses it, and the section that
/// problems of it are noted in, whatever else is wrong with the file.
///
/// # Errors
/// Everything that is wrong with it, what `look` has noted included.
pub(crate) fn read_and_look(
    path: &Path,
    role: Option<Role>,
    look: impl FnOnce(&Section, &Registry),
) -> Result<Config, Problems> {
    read_with(path, role, proxy::Config::read, look)
}

/// As [`read`], for an edge that runs with this `state_dir` and these registries: what it keeps stays where
/// it is, and so do their sockets, for they change with a restart of theirs.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read_again(
    path: &Path,
    state_dir: &StateDir,
    running: &[RegistryPeer],
) -> Result<Config, Problems> {
    let read_edge = |root: &mut Section, peers: &[RegistryPeer]| {
        let as_they_run = |peer: &RegistryPeer| {
            let running = running.iter().find(|running| running.name == peer.name);
            running.unwrap_or(peer).clone()
        };
        let peers: Vec<RegistryPeer> = peers.iter().map(as_they_run).collect();
        proxy::Config::read_again(root, &peers, state_dir)
    };
    read_with(path, Some(Role::Edge), read_edge, |_, _| {})
}

/// Returns `registry.allow_users` if there is a `[registry]`, whatever else is wrong with the file.
///
/// # Errors
/// When it is not TOML.
pub(crate) fn allowed_users(path: &Path) -> Result<Option<Vec<String>>, Problems> {
    let mut document = Document::read(path)?;
    let registry = document.root().table("registry");
    Ok(registry.map(|mut table| table.optional("allow_users").unwrap_or_default()))
}

/// Returns where the roles are asked to reload, the registry's if the config has one, whatever else is
/// wrong with the file.
///
/// # Errors
/// When it is no TOML.
pub(crate) fn control_sockets(path: &Path) -> Result<(PathBuf, Option<PathBuf>), Problems> {
    let mut document = Document::read(path)?;
    let root = &mut document.root();
    let registry = root.table("registry");
    let registry = registry.map(|mut table| control_socket(&mut table, Role::Registry));
    Ok((control_socket(root, Role::Edge), registry))
}

fn control_socket(section: &mut Section, role: Role) -> PathBuf {
    let written = section.path("control_socket");
    written.unwrap_or_else(|| PathBuf::from(role.control_socket()))
}

/// Returns whether something is wrong with the text of the file itself, whatever else is with the files
/// that it names; not when it cannot be read.
pub(crate) fn is_badly_written(path: &Path) -> bool {
    if std::fs::read(path).is_err() {
        return false;
    }
    let check = || -> Result<(), Problems> {
        let mut document = Document::read(path)?;
        let (files, look) = (Files::LeaveAlone, |_: &Section, _: &Registry| {});
        read_root(&mut document.root(), files, proxy::Config::read, look);
        document.finish()
    };
    check().is_err()
}

/// Whose files are looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Files {
    LeaveAlone,
    Of(Role),
    OfBoth,
}

impl Files {
    fn are_of(self, role: Role) -> bool {
        self == Self::OfBoth || self == Self::Of(role)
    }
}

fn read_with(
    path: &Path,
    role: Option<Role>,
    read_edge: impl FnOnce(&mut Section, &[RegistryPeer]) -> Option<proxy::Config>,
    look: impl FnOnce(&Section, &Registry),
) -> Result<Config, Problems> {
    let mut document = Document::read(path)?;
    let config = {
        let mut root = document.root();
        if role == Some(Role::Registry) && !root.has("registry") {
            root.problem("registry", "is missing");
        }
        let files = role.map_or(Files::OfBoth, Files::Of);
        read_root(&mut root, files, read_edge, look)
        // What nobody has asked `root` for is noted when it is dropped.
    };
    document.finish()?;
    // Without a config there is a problem; were there none, an empty list would still be an error.
    config.ok_or_else(Problems::default)
}

fn read_root(
    root: &mut Section,
    files: Files,
    read_edge: impl FnOnce(&mut Section, &[RegistryPeer]) -> Option<proxy::Config>,
    look: impl FnOnce(&Section, &Registry),
) -> Option<Config> {
    let [for_edge, for_registry] = [Role::Edge, Role::Registry].map(|role| files.are_of(role));
    let log = root
        .table("log")
        .map(|mut table| Log::read(&mut table, for_edge));
    let log = log.unwrap_or_default();
    let registry = root.table("registry").map(|mut table| {
        let mut own = table.table("log");
        let log = Log::read_registry(own.as_mut(), &log, for_registry);
        let control_socket = control_socket(&mut table, Role::Registry);
        let configs = registry_backend::Config::read_all(&mut table);
        Registry {
            log,
            control_socket,
            configs,
        }
    });
    if let Some(registry) = registry.as_ref().filter(|_| for_registry) {
        look(root, registry);
    }
    let control_socket = control_socket(root, Role::Edge);
    let peers = registry.as_ref().map_or_else(Vec::new, Registry::peers);
    let edge = if for_edge {
        read_edge(root, &peers)
    } else {
        proxy::Config::read_keys(root, &peers)
    };
    let mut edge = edge?;
    edge.log_login_names(log.login_names());
    Some(Config {
        log,
        control_socket,
        edge,
        registry,
    })
}
