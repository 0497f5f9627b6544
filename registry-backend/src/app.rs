//! What every request shares; built once.

use std::error::Error as StdError;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::config::Config;
use crate::registry::Registry;
use crate::storage::{self, Claim, Filesystem};
use crate::users;

/// How long a process that still has the tree may take to end: one that was killed may have to wait for
/// the disk first.
const CLAIM_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 10 });

/// A registry, ready to serve.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) registry: Arc<Registry>,
    settings: RwLock<Arc<Settings>>,
    /// It finishes its requests and then ends.
    draining: AtomicBool,
}

/// What a reload can change.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The config as read.
    pub(crate) config: Config,
    /// Who may connect: root, this process's own user, and those of the config.
    pub(crate) allowed_uids: Vec<u32>,
}

/// Why the registry cannot start, go on or change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("listen on {}", path.display())]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One of several registries cannot be used.
    #[error("registry {name:?}")]
    Instance {
        /// What it is called.
        name: String,
        /// Why.
        source: Box<Self>,
    },
    /// A registry's tree and that of another are one below the other.
    #[error("registry storage in {}: lies below that of another, {}", root.display(), other.display())]
    Nested {
        /// The storage's root.
        root: PathBuf,
        /// That of the other.
        other: PathBuf,
    },
    /// Someone answers on the socket already.
    #[error("listen on {}: another process is answering there", path.display())]
    SocketInUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// Another process has the storage.
    #[error("registry storage in {}: another registry is using this tree", root.display())]
    StorageInUse {
        /// The storage's root.
        root: PathBuf,
    },
    /// The storage cannot be used.
    #[error("registry storage in {}", root.display())]
    Storage {
        /// The storage's root.
        root: PathBuf,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl App {
    /// Opens the storage, which is made where it does not exist, and keeps other registries off it; by one
    /// of the folders that a predecessor has `handed` over, if it is that of the root.
    ///
    /// # Errors
    /// [`Error::Storage`] when it can be neither read nor written, and [`Error::StorageInUse`] when
    /// another process writes to it, which may be one that still finishes its requests.
    pub(crate) fn open(config: Config, handed: &[File]) -> Result<Arc<Self>, Error> {
        let root = &config.root;
        let failed = |source: storage::Error| Error::Storage {
            root: root.clone(),
            source: source.into(),
        };
        let driver = Filesystem::open(root, config.direct_io).map_err(failed)?;
        let Some(claim) = Claim::take(root, handed, CLAIM_PATIENCE).map_err(failed)? else {
            return Err(Error::StorageInUse { root: root.clone() });
        };
        let registry = Registry::new(Box::new(driver)).holding(claim);
        Ok(Self::new(config, registry))
    }

    pub(crate) fn new(config: Config, registry: Registry) -> Arc<Self> {
        Arc::new(Self {
            registry: Arc::new(registry.named(config.instance.as_deref())),
            settings: RwLock::new(Arc::new(Settings::new(config))),
            draining: AtomicBool::new(false),
        })
    }

    /// Goes on with another config, but for the keys that need a restart, which are named. Requests under
    /// way finish with what they began with.
    pub(crate) fn change(&self, mut config: Config) -> Vec<String> {
        let old = &self.settings().config;
        let keys = [
            ("listen", config.listen != old.listen),
            ("socket_mode", config.socket_mode != old.socket_mode),
            ("storage.filesystem.root", config.root != old.root),
            (
                "storage.filesystem.direct_io",
                config.direct_io != old.direct_io,
            ),
        ];
        let keys = keys
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(key, _)| format!("{}.{key}", config.key))
            .collect();
        config.listen.clone_from(&old.listen);
        config.socket_mode = old.socket_mode;
        config.root.clone_from(&old.root);
        config.direct_io = old.direct_io;
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(Settings::new(config));
        keys
    }

    /// Says that it finishes its requests and then ends.
    pub(crate) fn begin_to_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Settings {
    fn new(config: Config) -> Self {
        let mut allowed_uids = vec![0, rustix::process::geteuid().as_raw()];
        for user in &config.allow_users {
            match users::id(user) {
                Some(uid) => allowed_uids.push(uid),
                None => tracing::error!(user, "no such user here: registry.allow_users skips it"),
            }
        }
        Self {
            config,
            allowed_uids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_one_registry_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path().join("sock"), folder.path().join("root"));
        let first = App::open(config.clone(), &[]).unwrap();
        let error = App::open(config.clone(), &[]).unwrap_err();
        let root = config.root.display();
        assert_eq!(
            error.to_string(),
            format!("registry storage in {root}: another registry is using this tree")
        );
        // Work on storage may outlive the rest.
        let work = Arc::clone(&first.registry);
        drop(first);
        assert!(App::open(config.clone(), &[]).is_err());
        drop(work);
        App::open(config, &[]).unwrap();
    }

    #[test]
    fn a_reload_changes_limits_but_not_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path().join("sock"), folder.path().join("root"));
        let app = App::open(config.clone(), &[]).unwrap();
        let mut changed = config.clone();
        changed.delete = false;
        assert!(app.change(changed).is_empty());
        assert!(!app.settings().config.delete);
        let mut moved = config.clone();
        moved.root = folder.path().join("other");
        moved.listen = folder.path().join("other.sock");
        assert_eq!(
            app.change(moved),
            ["registry.listen", "registry.storage.filesystem.root"]
        );
        let settings = app.settings();
        assert!(settings.config.delete, "all else is in force");
        assert_eq!(settings.config.root, config.root);
        assert_eq!(settings.config.listen, config.listen);
    }
}
