//! The `[registry]` table of the config, and each `[[registry.instance]]` in it.

use std::path::PathBuf;
use std::time::Duration;

use settings::{Kind, Section};

use crate::registry::STORED_SIZE_MAX;

/// What sites call the registry that `[registry]` itself describes.
const NAME: &str = "registry";

/// The path of a Unix socket must fit into `sockaddr_un`.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// The spec asks for manifests of 4 MiB at least.
const MANIFEST_SIZE_MIN: u64 = 4 << 20;

/// What a registry needs to know, proven to be usable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// `instance.name`: what it is called where there are several; the one that `[registry]` itself
    /// describes has no name of its own.
    pub instance: Option<String>,
    /// The table that describes it, such as `registry.instance[0]`.
    pub key: String,
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
    /// `max_uploads`: how many uploads may be open; 0 is no limit.
    pub max_uploads: usize,
    /// `max_uploads_per_repository`: how many of them in one repository.
    pub max_uploads_per_repository: usize,
    /// `max_uploads_per_principal`: how many of them of one user or, without a login, one address.
    pub max_uploads_per_principal: usize,
    /// `sparse_images`: whether an image can be pushed without some of its layers.
    pub sparse_images: bool,
    /// `storage.filesystem.root`: the folder that holds `docker/registry/v2`.
    pub root: PathBuf,
    /// `storage.filesystem.direct_io`: whether large blobs are written past the page cache.
    pub direct_io: bool,
}

impl Config {
    /// Returns a config with every default.
    pub fn new(listen: PathBuf, root: PathBuf) -> Self {
        Self {
            instance: None,
            key: "registry".to_owned(),
            listen,
            socket_mode: 0o660,
            allow_users: Vec::new(),
            drain_timeout: Duration::from_secs(5 * 60),
            upload_expiry: Duration::from_secs(7 * 24 * 60 * 60),
            delete: true,
            max_manifest_size: MANIFEST_SIZE_MIN,
            max_uploads: 10_000,
            max_uploads_per_repository: 1000,
            max_uploads_per_principal: 500,
            sparse_images: false,
            root,
            direct_io: true,
        }
    }

    /// Reads the table: the registry that it describes and, after it, each `[[registry.instance]]`,
    /// which has the place that it says and everything else as written for itself or, where it is
    /// not, for the first.
    ///
    /// One with a problem, which is noted in the section's document, is among them: who asks for it
    /// by name does not miss it. The table `log` is for whoever sets up logging to read.
    pub fn read_all(section: &mut Section) -> Vec<Self> {
        let mut first = Self::new(PathBuf::new(), PathBuf::new());
        first.read_place(section);
        first.read_keys(section);
        let mut all = vec![first.clone()];
        for mut section in section.tables("instance") {
            let mut instance = Self {
                instance: Some(read_name(&mut section, &all)),
                key: section.name().to_owned(),
                ..first.clone()
            };
            instance.read_place(&mut section);
            instance.read_keys(&mut section);
            instance.check_apart(&section, &all);
            all.push(instance);
        }
        all
    }

    /// Returns what sites call it.
    pub fn name(&self) -> &str {
        self.instance.as_deref().unwrap_or(NAME)
    }

    /// Reads where it answers and where it stores; both stay empty where they cannot be read.
    fn read_place(&mut self, section: &mut Section) {
        self.listen = read_listen(section).unwrap_or_default();
        self.root = PathBuf::new();
        self.read_storage(section);
    }

    fn read_storage(&mut self, section: &mut Section) -> Option<()> {
        let mut storage = read_table(section, "storage", "is missing")?;
        let others = OTHER_DRIVERS.iter().filter(|driver| storage.has(driver));
        let others: Vec<&str> = others.copied().collect();
        for driver in &others {
            storage.refuse(driver, ONLY_FILES);
        }
        if !others.is_empty() && !storage.has("filesystem") {
            return None;
        }
        if storage.kind("filesystem") == Some(Kind::String) {
            let root: String = storage.optional("filesystem")?;
            storage.problem("filesystem", format!("write it as {{ root = {root:?} }}"));
            return None;
        }
        let mut filesystem = read_table(&mut storage, "filesystem", FILESYSTEM_MISSING)?;
        filesystem.elsewhere(ROOT_ELSEWHERE, "root");
        if !filesystem.has("root") && !filesystem.has(ROOT_ELSEWHERE) {
            filesystem.problem(
                "root",
                "is missing: the folder that holds docker/registry/v2",
            );
        }
        if let Some(direct_io) = filesystem.optional("direct_io") {
            self.direct_io = direct_io;
        }
        self.root = filesystem.path("root")?;
        Some(())
    }

    fn read_keys(&mut self, section: &mut Section) {
        if let Some(mode) = section.optional::<String>("socket_mode") {
            match u32::from_str_radix(&mode, 8) {
                Ok(mode) if mode <= 0o777 => self.socket_mode = mode,
                _ => section.problem("socket_mode", "must be octal permissions such as \"0660\""),
            }
        }
        if let Some(users) = section.optional("allow_users") {
            self.allow_users = users;
        }
        if let Some(timeout) = section.duration("drain_timeout") {
            self.drain_timeout = timeout;
        }
        if let Some(expiry) = section.duration("upload_expiry") {
            if expiry.is_zero() {
                section.problem("upload_expiry", "must be more than 0");
            }
            self.upload_expiry = expiry;
        }
        if let Some(delete) = section.optional("delete") {
            self.delete = delete;
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
            self.max_manifest_size = size;
        }
        for (key, value) in [
            ("max_uploads", &mut self.max_uploads),
            (
                "max_uploads_per_repository",
                &mut self.max_uploads_per_repository,
            ),
            (
                "max_uploads_per_principal",
                &mut self.max_uploads_per_principal,
            ),
        ] {
            if let Some(max) = section.optional(key) {
                *value = max;
            }
        }
        if let Some(sparse) = section.optional("sparse_images") {
            self.sparse_images = sparse;
        }
    }

    /// Checks that nothing of this registry is also another's.
    fn check_apart(&self, section: &Section, others: &[Self]) {
        for other in others {
            let key = &other.key;
            if !self.listen.as_os_str().is_empty() && self.listen == other.listen {
                section.problem("listen", format!("is the socket of {key} already"));
            }
            if self.root.as_os_str().is_empty() || other.root.as_os_str().is_empty() {
                continue;
            }
            if self.root == other.root {
                let problem = format!("is the folder of {key} already");
                section.problem("storage.filesystem.root", problem);
            } else if self.root.starts_with(&other.root) || other.root.starts_with(&self.root) {
                let problem = format!(
                    "one of this folder and that of {key}, {}, lies within the other",
                    other.root.display()
                );
                section.problem("storage.filesystem.root", problem);
            }
        }
    }
}

fn read_name(section: &mut Section, others: &[Config]) -> String {
    let Some(name) = section.required::<String>("name") else {
        return String::new();
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name == NAME {
        section.problem(
            "name",
            "is the name of the registry that [registry] itself describes",
        );
    } else if name.is_empty() || !name.chars().all(is_plain) {
        section.problem("name", "must be of letters, digits, '-', '.' and '_'");
    } else if let Some(other) = others.iter().find(|other| other.name() == name) {
        section.problem("name", format!("is the name of {} already", other.key));
    }
    name
}

fn read_listen(section: &mut Section) -> Option<PathBuf> {
    let listen: String = section.required("listen")?;
    let Some(path) = listen.strip_prefix("unix:") else {
        section.problem("listen", "must be a Unix socket, written as \"unix:/path\"");
        return None;
    };
    if path.is_empty() {
        section.problem("listen", "there is no path after \"unix:\"");
        return None;
    }
    let path = section.beside(path);
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_LEN_MAX {
        let problem = format!(
            "the path of a Unix socket can have {SOCKET_PATH_LEN_MAX} bytes at most, and {} has {length}",
            path.display()
        );
        section.problem("listen", problem);
        return None;
    }
    Some(path)
}

/// Where else `registry:2` can store.
const OTHER_DRIVERS: [&str; 8] = [
    "azure", "cos", "gcs", "inmemory", "oss", "s3", "s3aws", "swift",
];

const ONLY_FILES: &str =
    "only the filesystem is supported so far: write filesystem = { root = \"/var/lib/registry\" }";

/// What `registry:2` calls the root.
const ROOT_ELSEWHERE: &str = "rootdirectory";

const FILESYSTEM_MISSING: &str = "is missing: write it as { root = \"/var/lib/registry\" }";

fn read_table(section: &mut Section, key: &str, missing: &str) -> Option<Section> {
    if !section.has(key) {
        section.problem(key, missing);
    }
    section.table(key)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use settings::Document;

    use super::*;

    fn read_all(text: &str) -> Result<Vec<Config>, String> {
        let mut document = Document::parse(Path::new("/etc/t/edge.toml"), text).unwrap();
        let mut root = document.root();
        let mut section = root.table("registry").unwrap();
        let configs = Config::read_all(&mut section);
        drop((section, root));
        match document.finish() {
            Ok(()) => Ok(configs),
            Err(problems) => Err(problems.to_string()),
        }
    }

    fn read(text: &str) -> Result<Config, String> {
        let mut configs = read_all(text)?;
        assert_eq!(configs.len(), 1);
        Ok(configs.remove(0))
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
             max_manifest_size = '8MiB'\nsparse_images = true\n\
             max_uploads = 0\nmax_uploads_per_repository = 7\nmax_uploads_per_principal = 5\n\
             storage.filesystem = { root = '/data', direct_io = false }\n",
        );
        let expected = Config {
            socket_mode: 0o600,
            allow_users: vec!["edge".to_owned(), "7".to_owned()],
            drain_timeout: Duration::from_secs(60),
            upload_expiry: Duration::from_secs(86_400),
            delete: false,
            max_manifest_size: 8 << 20,
            max_uploads: 0,
            max_uploads_per_repository: 7,
            max_uploads_per_principal: 5,
            sparse_images: true,
            direct_io: false,
            ..Config::new("/r".into(), "/data".into())
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn a_relative_socket_lies_beside_the_config() {
        let config = read(
            "[registry]\nlisten = 'unix:run/r.sock'\nstorage.filesystem = { root = 'data' }\n",
        );
        assert_eq!(config.unwrap().listen, Path::new("/etc/t/run/r.sock"));
        let long = format!("[registry]\nlisten = 'unix:{}'\n", "x".repeat(101));
        let problems = read(&long).unwrap_err();
        assert!(
            problems.contains("can have 107 bytes at most, and /etc/t/xxx"),
            "{problems}"
        );
    }

    #[test]
    fn a_problem_is_told_once() {
        for (text, expected) in [
            (
                "",
                "registry.listen: is missing\nregistry.storage: is missing",
            ),
            (
                "listen = 'unix:'\nstorage = 1",
                "there is no path after \"unix:\"",
            ),
            (
                "listen = 'unix:/r'\nstorage = 1",
                "registry.storage: must be a table",
            ),
            (
                "listen = 'unix:/r'\nstorage.filesystem = 1",
                "storage.filesystem: must be a table",
            ),
            (
                "listen = 'unix:/r'\nstorage.filesystem.root = 1",
                "filesystem.root: must be text",
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
                "storage.s3: only the filesystem is supported so far",
            ),
            ("listen = 'unix:/r'\nstorage.s3 = {}", "storage."),
            (
                "listen = 'unix:/r'\nstorage.filesystem = '/data'",
                "storage.filesystem: write it as { root = \"/data\" }",
            ),
            (
                "listen = 'unix:/r'\nstorage.filesystem.rootdirectory = '/data'",
                "filesystem.rootdirectory: unknown key, did you mean \"root\"?",
            ),
            (
                "listen = 'unix:/r'\nstorage.filesystem.rootdirectory = '/data'",
                "root",
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

    const TWO: &str = r#"
[registry]
listen = "unix:/r"
delete = false
upload_expiry = "1h"
storage.filesystem.root = "/data"
[[registry.instance]]
name = "team"
listen = "unix:/t"
delete = true
storage.filesystem.root = "team"
"#;

    #[test]
    fn an_instance_has_its_own_place_and_what_it_does_not_say_from_the_first() {
        let configs = read_all(TWO).unwrap();
        let [first, team] = &configs[..] else {
            panic!()
        };
        assert_eq!((first.name(), team.name()), ("registry", "team"));
        let expected = Config {
            instance: Some("team".to_owned()),
            key: "registry.instance[0]".to_owned(),
            listen: "/t".into(),
            root: "/etc/t/team".into(),
            delete: true,
            ..first.clone()
        };
        assert_eq!(*team, expected);
        assert_eq!(team.upload_expiry, Duration::from_secs(3600));
    }

    #[test]
    fn nothing_of_an_instance_is_anothers() {
        for (line, other, problem) in [
            (
                "name = \"team\"",
                "",
                "7: registry.instance[0].name: is missing",
            ),
            (
                "\"team\"",
                "\"registry\"",
                "8: registry.instance[0].name: is the name of the registry that [registry] itself describes",
            ),
            (
                "\"team\"",
                "\"a b\"",
                "8: registry.instance[0].name: must be of letters, digits, '-', '.' and '_'",
            ),
            (
                "unix:/t",
                "unix:/r",
                "9: registry.instance[0].listen: is the socket of registry already",
            ),
            (
                "\"team\"\n",
                "\"team\"\nlog = {}\n",
                "9: registry.instance[0].log: unknown key",
            ),
            (
                "listen = \"unix:/t\"",
                "",
                "7: registry.instance[0].listen: is missing",
            ),
            (
                "root = \"team\"",
                "root = \"/data\"",
                "11: registry.instance[0].storage.filesystem.root: is the folder of registry already",
            ),
            (
                "root = \"team\"",
                "root = \"/data/team\"",
                "11: registry.instance[0].storage.filesystem.root: one of this folder and that of \
                 registry, /data, lies within the other",
            ),
            (
                "root = \"team\"",
                "root = \"/\"",
                "11: registry.instance[0].storage.filesystem.root: one of this folder and that of \
                 registry, /data, lies within the other",
            ),
        ] {
            let problems = read_all(&TWO.replacen(line, other, 1)).unwrap_err();
            assert_eq!(problems, format!("/etc/t/edge.toml:{problem}"));
        }
        let third = TWO.split_once("[[").unwrap().1;
        let problems = read_all(&format!("{TWO}[[{third}")).unwrap_err();
        insta::assert_snapshot!(problems, @"
        /etc/t/edge.toml:13: registry.instance[1].name: is the name of registry.instance[0] already
        /etc/t/edge.toml:14: registry.instance[1].listen: is the socket of registry.instance[0] already
        /etc/t/edge.toml:16: registry.instance[1].storage.filesystem.root: is the folder of registry.instance[0] already
        ");
    }
}
