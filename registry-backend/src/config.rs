//! The `[registry]` table of the config.

use std::path::{Path, PathBuf};
use std::time::Duration;

use settings::Section;

use crate::registry::STORED_SIZE_MAX;

/// The path of a Unix socket must fit into `sockaddr_un`.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// The spec asks for manifests of 4 MiB at least.
const MANIFEST_SIZE_MIN: u64 = 4 << 20;

/// What the registry needs to know, proven to be usable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// `listen`: the socket to answer on.
    pub listen: PathBuf,
    /// `socket_mode`: the permissions of the socket's file.
    pub socket_mode: u32,
    /// `allow_users`: names or numbers of the users who may connect, besides root and the
    /// registry's own.
    pub allow_users: Vec<String>,
    /// `drain_timeout`: how long requests under way may take at the end.
    pub drain_timeout: Duration,
    /// `upload_expiry`: how long an upload may rest before it is removed.
    pub upload_expiry: Duration,
    /// `delete`: whether blobs, manifests and tags can be deleted.
    pub delete: bool,
    /// `max_manifest_size`: the largest manifest that can be pushed.
    pub max_manifest_size: u64,
    /// `sparse_images`: whether an image can be pushed without some of its layers.
    pub sparse_images: bool,
    /// `storage.filesystem.root`: the folder that holds `docker/registry/v2`.
    pub root: PathBuf,
}

impl Config {
    /// Returns a config with every default.
    pub fn new(listen: PathBuf, root: PathBuf) -> Self {
        Self {
            listen,
            socket_mode: 0o660,
            allow_users: Vec::new(),
            drain_timeout: Duration::from_secs(5 * 60),
            upload_expiry: Duration::from_secs(7 * 24 * 60 * 60),
            delete: true,
            max_manifest_size: MANIFEST_SIZE_MIN,
            sparse_images: true,
            root,
        }
    }

    /// Reads the table; `None` when a problem was noted that leaves no config to run with.
    ///
    /// The table `log` in it is for whoever sets up logging to read.
    pub fn read(section: &mut Section) -> Option<Self> {
        let listen = read_listen(section);
        let root = read_root(section);
        let mut config = Self::new(
            listen.clone().unwrap_or_default(),
            root.clone().unwrap_or_default(),
        );
        if let Some(mode) = section.optional::<String>("socket_mode") {
            match u32::from_str_radix(&mode, 8) {
                Ok(mode) if mode <= 0o777 => config.socket_mode = mode,
                _ => section.problem("socket_mode", "must be octal permissions such as \"0660\""),
            }
        }
        if let Some(users) = section.optional("allow_users") {
            config.allow_users = users;
        }
        if let Some(timeout) = section.duration("drain_timeout") {
            config.drain_timeout = timeout;
        }
        if let Some(expiry) = section.duration("upload_expiry") {
            if expiry.is_zero() {
                section.problem("upload_expiry", "must be more than 0");
            }
            config.upload_expiry = expiry;
        }
        if let Some(delete) = section.optional("delete") {
            config.delete = delete;
        }
        if let Some(size) = section.size("max_manifest_size") {
            if size < MANIFEST_SIZE_MIN {
                section.problem(
                    "max_manifest_size",
                    "must be 4MiB at least, as the spec asks",
                );
            }
            if size > STORED_SIZE_MAX {
                section.problem(
                    "max_manifest_size",
                    format!(
                        "must be {}MiB at most: the registry reads no larger ones",
                        STORED_SIZE_MAX >> 20
                    ),
                );
            }
            config.max_manifest_size = size;
        }
        if let Some(sparse) = section.optional("sparse_images") {
            config.sparse_images = sparse;
        }
        (listen.is_some() && root.is_some() && !section.failed()).then_some(config)
    }
}

fn read_listen(section: &mut Section) -> Option<PathBuf> {
    let listen: String = section.required("listen")?;
    let Some(path) = listen.strip_prefix("unix:") else {
        section.problem("listen", "must be a Unix socket, written as \"unix:/path\"");
        return None;
    };
    if !Path::new(path).is_absolute() {
        section.problem("listen", "the path after \"unix:\" must be absolute");
        return None;
    }
    if path.len() > SOCKET_PATH_LEN_MAX {
        let problem =
            format!("the path of a Unix socket can have {SOCKET_PATH_LEN_MAX} bytes at most");
        section.problem("listen", problem);
        return None;
    }
    Some(path.into())
}

const FILESYSTEM_MISSING: &str = "is missing: write it as { root = \"/var/lib/registry\" }";

fn read_root(section: &mut Section) -> Option<PathBuf> {
    let mut storage = read_table(section, "storage", "is missing")?;
    let mut filesystem = read_table(&mut storage, "filesystem", FILESYSTEM_MISSING)?;
    if !filesystem.has("root") {
        filesystem.problem(
            "root",
            "is missing: the folder that holds docker/registry/v2",
        );
    }
    filesystem.path("root")
}

fn read_table(section: &mut Section, key: &str, missing: &str) -> Option<Section> {
    if !section.has(key) {
        section.problem(key, missing);
    }
    section.table(key)
}

#[cfg(test)]
mod tests {
    use settings::Document;

    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let mut document = Document::parse(Path::new("/etc/t/edge.toml"), text).unwrap();
        let mut root = document.root();
        let mut section = root.table("registry").unwrap();
        let config = Config::read(&mut section);
        drop((section, root));
        match document.finish() {
            Ok(()) => Ok(config.unwrap()),
            Err(problems) => {
                assert_eq!(config, None);
                Err(problems.to_string())
            }
        }
    }

    #[test]
    fn what_is_not_written_has_a_default() {
        let config = read(
            "[registry]\nlisten = 'unix:/run/r.sock'\nstorage.filesystem = { root = 'data' }\n",
        );
        let expected = Config::new("/run/r.sock".into(), "/etc/t/data".into());
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn what_is_written_counts() {
        let config = read(
            "[registry]\nlisten = 'unix:/r'\nsocket_mode = '0600'\nallow_users = ['edge', '7']\n\
             drain_timeout = '1m'\nupload_expiry = '24h'\ndelete = false\n\
             max_manifest_size = '8MiB'\nsparse_images = false\n\
             storage.filesystem = { root = '/data' }\n",
        );
        let expected = Config {
            listen: "/r".into(),
            socket_mode: 0o600,
            allow_users: vec!["edge".to_owned(), "7".to_owned()],
            drain_timeout: Duration::from_secs(60),
            upload_expiry: Duration::from_secs(86_400),
            delete: false,
            max_manifest_size: 8 << 20,
            sparse_images: false,
            root: "/data".into(),
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn a_problem_is_told_once() {
        for (text, expected) in [
            (
                "",
                "registry.listen: is missing\nregistry.storage: is missing",
            ),
            (
                "listen = 'unix:r'\nstorage = 1",
                "the path after \"unix:\" must be absolute",
            ),
            (
                "listen = 'unix:/r'\nstorage = 1",
                "registry.storage: invalid type",
            ),
            (
                "listen = 'unix:/r'\nstorage.filesystem = 1",
                "storage.filesystem: invalid type",
            ),
            (
                "listen = 'unix:/r'\nstorage.filesystem.root = 1",
                "filesystem.root: invalid type",
            ),
            (
                "listen = 'unix:/r'\nstorage.filesystem = {}",
                "filesystem.root: is missing",
            ),
            (
                "listen = 'unix:/r'\nstorage.filesystem.root = '/r'\nmax_manifest_size = '17MiB'",
                "registry.max_manifest_size: must be 16MiB at most",
            ),
            (
                "listen = 'unix:/r'\nstorage.s3 = {}",
                "storage.filesystem: is missing",
            ),
        ] {
            let problems = read(&format!("[registry]\n{text}\n")).unwrap_err();
            for line in expected.lines() {
                let told = problems
                    .lines()
                    .filter(|problem| problem.contains(line))
                    .count();
                assert_eq!(told, 1, "{text}: {problems}");
            }
        }
    }

    #[test]
    fn every_problem_is_told() {
        let problems = read(
            "[registry]\nlisten = '127.0.0.1:5000'\nsocket_mode = '999'\nmax_manifest_size = '1MiB'\n\
             upload_expiry = '0s'\n[registry.storage]\n",
        );
        insta::assert_snapshot!(problems.unwrap_err(), @r#"
        /etc/t/edge.toml:2: registry.listen: must be a Unix socket, written as "unix:/path"
        /etc/t/edge.toml:3: registry.socket_mode: must be octal permissions such as "0660"
        /etc/t/edge.toml:4: registry.max_manifest_size: must be 4MiB at least, as the spec asks
        /etc/t/edge.toml:5: registry.upload_expiry: must be more than 0
        /etc/t/edge.toml:6: registry.storage.filesystem: is missing: write it as { root = "/var/lib/registry" }
        "#);
    }
}
