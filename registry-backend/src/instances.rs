//! The registries of one process: each has a socket, a tree, settings and jobs of its own, and none
//! of them knows that there are others.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::{App, Error};
use crate::config::Config;
use crate::http;

/// What a predecessor has handed over, so that neither its sockets nor its trees are anybody else's
/// meanwhile. What the config has no use for is closed.
#[derive(Debug, Default)]
pub struct Handed {
    /// Sockets that listen.
    pub sockets: Vec<UnixListener>,
    /// The folders of the roots, open, and with them the locks on them.
    pub roots: Vec<File>,
}

/// Every registry of the config, ready to serve.
#[derive(Debug)]
pub struct Instances(Vec<Arc<App>>);

impl Instances {
    /// Opens the storage of each, which is made where it does not exist, and keeps other registries
    /// off it. One that cannot be used keeps all from starting: half of what was asked for would
    /// look like a registry that has lost its images.
    ///
    /// # Errors
    /// [`Error::Storage`] when a tree can be neither read nor written, [`Error::StorageInUse`] when
    /// another process writes to it, which may be one that still finishes its requests, and
    /// [`Error::Nested`] when it is another registry's also.
    pub fn open(configs: Vec<Config>, handed: &Handed) -> Result<Self, Error> {
        let mut opened = Self(Vec::new());
        let mut roots: Vec<PathBuf> = Vec::new();
        for config in configs {
            let (name, root) = (config.instance.clone(), config.root.clone());
            let app = App::open(config, &handed.roots).and_then(|app| {
                apart(&root, &mut roots)?;
                Ok(app)
            });
            opened.0.push(app.map_err(|error| of(name, error))?);
        }
        Ok(opened)
    }

    /// Makes the socket of each, replacing those that a dead process left behind, or takes it from what a
    /// predecessor has handed over.
    ///
    /// # Errors
    /// [`Error::SocketInUse`] when someone answers there, and [`Error::Listen`] otherwise.
    pub fn bind(&self, handed: Handed) -> Result<Vec<UnixListener>, Error> {
        let mut sockets = handed.sockets;
        let bind = |app: &Arc<App>| {
            let name = app.registry.name().map(str::to_owned);
            http::bind(app, &mut sockets).map_err(|error| of(name, error))
        };
        self.0.iter().map(bind).collect()
    }

    /// Returns each root, and its open folder, by which a successor claims it.
    pub fn roots(&self) -> impl Iterator<Item = (PathBuf, BorrowedFd<'_>)> {
        let root = |app: &Arc<App>| app.settings().config.root.clone();
        let apps = self.0.iter();
        apps.filter_map(move |app| Some((root(app), app.registry.claim()?)))
    }

    /// Serves requests on the sockets that [`Instances::bind`] made until `shutdown`; then finishes
    /// those under way, for as long as configured.
    ///
    /// # Errors
    /// [`Error::Listen`] when a listener cannot be used.
    pub async fn serve(
        &self,
        listeners: Vec<UnixListener>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let (stop, stopped) = watch::channel(false);
        let mut servers = JoinSet::new();
        for (app, listener) in self.0.iter().zip(listeners) {
            let mut stopped = stopped.clone();
            servers.spawn(http::serve(listener, Arc::clone(app), async move {
                // An error says that nobody is left to stop it, which is to stop it.
                drop(stopped.wait_for(|stopped| *stopped).await);
            }));
        }
        let mut shutdown = pin!(shutdown);
        loop {
            let ended = tokio::select! {
                ended = servers.join_next() => ended,
                () = &mut shutdown, if !*stop.borrow() => {
                    stop.send_replace(true);
                    continue;
                }
            };
            match ended {
                Some(Ok(outcome)) => outcome?,
                Some(Err(error)) => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
                None => return Ok(()),
            }
        }
    }

    /// Returns how long the end may take.
    pub fn drain_timeout(&self) -> Duration {
        let timeouts = self.0.iter().map(|app| app.settings().config.drain_timeout);
        timeouts.max().unwrap_or_default()
    }

    /// Goes on with another config, but for the keys that need a restart, which are named. Requests under
    /// way finish with what they began with.
    pub fn reload(&self, configs: Vec<Config>) -> Vec<String> {
        let mut keys = Vec::new();
        // One that is new, or gone from the file, waits for a restart.
        let mut others = configs.len() != self.0.len();
        for config in configs {
            let mut apps = self.0.iter();
            match apps.find(|app| app.registry.name() == config.instance.as_deref()) {
                Some(app) => keys.extend(app.change(config)),
                None => others = true,
            }
        }
        keys.extend(others.then(|| "registry.instance".to_owned()));
        keys
    }
}

/// Checks that `root`, whatever links lead to it, is neither below nor above one of `others`, and
/// adds it to them.
fn apart(root: &Path, others: &mut Vec<PathBuf>) -> Result<(), Error> {
    let root = root.canonicalize().map_err(|source| Error::Storage {
        root: root.to_owned(),
        source: source.into(),
    })?;
    let nested = |other: &&PathBuf| root.starts_with(other) || other.starts_with(&root);
    if let Some(other) = others.iter().find(nested) {
        let other = other.clone();
        return Err(Error::Nested { root, other });
    }
    others.push(root);
    Ok(())
}

/// Says whose an error is, where there are several.
fn of(name: Option<String>, error: Error) -> Error {
    match name {
        Some(name) => Error::Instance {
            name,
            source: Box::new(error),
        },
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::sync::oneshot;

    use super::*;

    fn config(folder: &TempDir, instance: Option<&str>) -> Config {
        let at = |kind: &str| {
            folder
                .path()
                .join(format!("{}.{kind}", instance.unwrap_or("first")))
        };
        Config {
            instance: instance.map(str::to_owned),
            ..Config::new(at("sock"), at("root"))
        }
    }

    fn told(error: &Error) -> String {
        let mut told = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            told.push_str(&format!(": {error}"));
            cause = error.source();
        }
        told
    }

    #[test]
    fn one_that_cannot_be_used_is_named_and_keeps_all_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let (first, team) = (config(&folder, None), config(&folder, Some("team")));
        std::fs::write(&team.root, "a file").unwrap();
        let error =
            Instances::open(vec![first.clone(), team.clone()], &Handed::default()).unwrap_err();
        let told = told(&error);
        let expected = format!(
            "registry \"team\": registry storage in {}",
            team.root.display()
        );
        assert!(told.starts_with(&expected), "{told}");
        std::fs::remove_file(&team.root).unwrap();
        drop(Instances::open(vec![first, team], &Handed::default()).unwrap());
    }

    #[test]
    fn no_link_leads_from_one_tree_into_another() {
        let folder = tempfile::tempdir().unwrap();
        let (first, mut team) = (config(&folder, None), config(&folder, Some("team")));
        let open = |team: &Config| {
            Instances::open(vec![first.clone(), team.clone()], &Handed::default()).unwrap_err()
        };
        std::fs::create_dir_all(first.root.join("inside")).unwrap();
        std::os::unix::fs::symlink(first.root.join("inside"), &team.root).unwrap();
        assert!(
            told(&open(&team)).contains("lies below that of another"),
            "{}",
            told(&open(&team))
        );
        std::fs::remove_file(&team.root).unwrap();
        std::os::unix::fs::symlink(&first.root, &team.root).unwrap();
        assert!(told(&open(&team)).contains("another registry is using this tree"));
        team.root = folder.path().join("x/../first.root/inside");
        std::fs::create_dir(folder.path().join("x")).unwrap();
        assert!(told(&open(&team)).contains("lies below that of another"));
    }

    #[test]
    fn a_reload_changes_what_it_can_and_names_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, mut team) = (config(&folder, None), config(&folder, Some("team")));
        let instances =
            Instances::open(vec![first.clone(), team.clone()], &Handed::default()).unwrap();
        let delete = |at: usize| instances.0[at].settings().config.delete;
        let elsewhere = Config {
            root: "/x".into(),
            socket_mode: 0o600,
            ..team.clone()
        };
        for (other, named) in [
            (vec![], vec!["registry.instance"]),
            (
                vec![config(&folder, Some("other"))],
                vec!["registry.instance"],
            ),
            (
                vec![elsewhere],
                vec!["registry.socket_mode", "registry.storage.filesystem.root"],
            ),
        ] {
            first.delete = !first.delete;
            let configs = [vec![first.clone()], other].concat();
            let named: Vec<_> = named.into_iter().map(|key| key.to_owned()).collect();
            let keys = instances.reload(configs);
            assert_eq!(keys.len(), named.len(), "{keys:?}");
            assert!(
                keys.iter()
                    .zip(&named)
                    .all(|(key, named)| { key.rsplit('.').next() == named.rsplit('.').next() })
            );
            assert_eq!(delete(0), first.delete, "all else is in force");
            assert_eq!(instances.0[1].settings().config.root, team.root);
        }
        first.delete = false;
        team.delete = false;
        assert!(instances.reload(vec![team, first]).is_empty());
        assert!(!delete(0) && !delete(1));
    }

    #[tokio::test]
    async fn all_serve_until_all_are_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let configs = vec![config(&folder, None), config(&folder, Some("team"))];
        let sockets: Vec<PathBuf> = configs.iter().map(|config| config.listen.clone()).collect();
        let instances = Instances::open(configs, &Handed::default()).unwrap();
        let listeners = instances.bind(Handed::default()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            instances
                .serve(listeners, async { stopped.await.unwrap() })
                .await
        });
        for socket in &sockets {
            let mut stream = UnixStream::connect(socket).await.unwrap();
            stream
                .write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        }
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        for socket in &sockets {
            assert!(UnixStream::connect(socket).await.is_err());
        }
    }
}
