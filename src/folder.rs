//! The folder of `tidegate up`: what lies where in it.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::files::create_directory;

/// The kernel takes no longer path for a socket.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The longest name of a socket that lies in the run directory.
const LONGEST_SOCKET_NAME: &str = "registry.1000.notify";

/// The folder, by its absolute path.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Names the folder; it need not exist.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        std::path::absolute(path)
            .map(Self)
            .with_context(|| path.display().to_string())
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The config that both roles run with.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("edge.toml")
    }

    /// The site's certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.0.join("tls/cert.pem")
    }

    /// Its private key.
    pub(crate) fn key(&self) -> PathBuf {
        self.0.join("tls/key.pem")
    }

    /// Who may log in.
    pub(crate) fn htpasswd(&self) -> PathBuf {
        self.0.join("auth/htpasswd")
    }

    /// The first user's password, for people to read.
    pub(crate) fn password(&self) -> PathBuf {
        self.0.join("auth/password")
    }

    /// Makes the folders that the files and the images go to.
    pub(crate) fn create(&self) -> Result<()> {
        create_directory(&self.0, 0o755)?;
        create_directory(&self.0.join("tls"), 0o755)?;
        create_directory(&self.0.join("auth"), 0o700)?;
        create_directory(&self.0.join("registry"), 0o750)
    }

    /// Makes and returns the folder of the sockets: `run`, unless that path is too long for one.
    ///
    /// Then it is one in `/tmp`, named after this folder's own identity and of no one else's.
    pub(crate) fn run_directory(&self) -> Result<PathBuf> {
        let run = self.0.join("run");
        if run.join(LONGEST_SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            create_directory(&run, 0o700)?;
            return Ok(run);
        }
        let owner = rustix::process::geteuid().as_raw();
        let own = fs::metadata(&self.0).with_context(|| self.0.display().to_string())?;
        let run = PathBuf::from(format!(
            "/tmp/tidegate-{owner}-{:x}-{:x}",
            own.dev(),
            own.ino()
        ));
        match DirBuilder::new().mode(0o700).create(&run) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => fs::symlink_metadata(&run),
        }
        .with_context(|| format!("create {}", run.display()))
        .and_then(|found| {
            let private = found.is_dir() && found.uid() == owner && found.mode() & 0o077 == 0;
            ensure!(
                private,
                "{}: is not a private folder of this user",
                run.display()
            );
            Ok(run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_lie_in_the_folder_unless_their_path_would_be_too_long() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path()).unwrap();
        assert_eq!(
            folder.run_directory().unwrap(),
            temporary.path().join("run")
        );

        let deep = temporary.path().join("x".repeat(100));
        fs::create_dir(&deep).unwrap();
        let folder = Folder::new(&deep).unwrap();
        let run = folder.run_directory().unwrap();
        assert!(
            run.starts_with("/tmp") && !run.starts_with(&deep),
            "{}",
            run.display()
        );
        assert_eq!(
            folder.run_directory().unwrap(),
            run,
            "it is the same one each time"
        );
        fs::remove_dir(run).unwrap();
    }
}
