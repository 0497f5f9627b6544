//! The config file as both roles see it: every table goes to the one who knows its keys.

use std::fmt;
use std::path::Path;

use settings::{Document, Problems, Section};

use crate::logging::Log;

/// One of the two processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Role {
    /// What faces the network.
    Edge,
    /// What stores the images.
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
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A whole config file, proven.
pub(crate) struct Config {
    pub(crate) log: Log,
    pub(crate) edge: proxy::Config,
    pub(crate) registry: Option<Registry>,
}

/// What the registry takes from the file.
pub(crate) struct Registry {
    pub(crate) log: Log,
    pub(crate) config: registry_backend::Config,
}

/// Reads and checks the whole file, and what it names as far as `role` needs it.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read(path: &Path, role: Option<Role>) -> Result<Config, Problems> {
    let mut document = Document::read(path)?;
    let config = read_root(&mut document.root(), role);
    document.finish()?;
    config.ok_or_else(Problems::default)
}

fn read_root(root: &mut Section, role: Option<Role>) -> Option<Config> {
    let log = root
        .table("log")
        .map(|mut table| Log::read(&mut table, role != Some(Role::Registry)));
    let log = log.unwrap_or_default();
    let registry = root.table("registry").and_then(|mut table| {
        let mut own = table.table("log");
        let log = Log::read_registry(own.as_mut(), &log, role != Some(Role::Edge));
        let config = registry_backend::Config::read(&mut table)?;
        Some(Registry { log, config })
    });
    let edge = proxy::Config::read(root, None)?;
    Some(Config {
        log,
        edge,
        registry,
    })
}
