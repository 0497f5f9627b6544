//! Files that appear whole or not at all.
//!
//! Everything this program writes for people to keep (configs, keys, passwords) goes through
//! here: written beside its final name, synced, and only then given that name. A full disk or a
//! crash leaves the old file, or none, and never half of one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock};
use rustix::io::Errno;

/// A file complete on disk under a temporary name, removed again unless it is published.
pub(crate) struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Writes the bytes beside `path`, durably, for [`Staged::create`] or [`Staged::replace`].
    pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<Self> {
        Self::write_as(
            path,
            bytes,
            &Access {
                mode,
                user: None,
                group: None,
            },
        )
    }

    /// Like [`Staged::write`] for a key or for credentials.
    ///
    /// They keep the mode and the owner of the file they replace. A new file is for its owner alone
    /// (0600), unless it lies in a folder of another group, as `/etc/tidegate` is the edge's: then
    /// that group may read it (0640). A link is followed.
    pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<Self> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let access = match fs::metadata(&path) {
            Ok(old) => Access {
                mode: old.mode() & 0o7777,
                user: Some(old.uid()),
                group: Some(old.gid()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = directory(&path);
                let group = fs::metadata(folder)
                    .with_context(|| at("write", &path))?
                    .gid();
                let foreign = group != rustix::process::getegid().as_raw();
                let mode = if foreign { 0o640 } else { 0o600 };
                Access {
                    mode,
                    user: None,
                    group: foreign.then_some(group),
                }
            }
            Err(error) => return Err(error).with_context(|| at("read", &path)),
        };
        Self::write_as(&path, bytes, &access)
    }

    fn write_as(path: &Path, bytes: &[u8], access: &Access) -> Result<Self> {
        let name = path
            .file_name()
            .with_context(|| format!("{}: not a file", path.display()))?;
        let temporary = path.with_file_name(format!(
            ".{}.{}",
            name.to_string_lossy(),
            std::process::id()
        ));
        // A leftover of a process that died under the same id is nobody's file any more.
        fs::remove_file(&temporary)
            .or_else(absent_is_fine)
            .with_context(|| at("write", path))?;
        let staged = Self {
            temporary,
            path: path.to_owned(),
        };
        staged
            .fill(bytes, access)
            .with_context(|| at("write", path))?;
        Ok(staged)
    }

    fn fill(&self, bytes: &[u8], access: &Access) -> io::Result<()> {
        // 0600 until it is complete: a secret is never readable, not even for a moment.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.temporary)?;
        file.write_all(bytes)?;
        if access.user.is_some() || access.group.is_some() {
            fchown(&file, access.user, access.group)?;
        }
        file.set_permissions(Permissions::from_mode(access.mode))?;
        file.sync_all()
    }

    /// Gives the file its name; a file that has the name already is left alone and is an error.
    pub(crate) fn create(self) -> Result<()> {
        let renamed = rustix::fs::renameat_with(
            CWD,
            &self.temporary,
            CWD,
            &self.path,
            RenameFlags::NOREPLACE,
        );
        match renamed {
            // Some file systems do not know the flag; a hard link never replaces either.
            Err(Errno::INVAL | Errno::NOSYS) => fs::hard_link(&self.temporary, &self.path),
            other => other.map_err(io::Error::from),
        }
        .with_context(|| at("create", &self.path))?;
        sync_directory(&self.path)
    }

    /// Gives the file its name, in the place of the file that has it now.
    pub(crate) fn replace(self) -> Result<()> {
        fs::rename(&self.temporary, &self.path).with_context(|| at("replace", &self.path))?;
        sync_directory(&self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Once published the temporary name is gone and this finds nothing.
        fs::remove_file(&self.temporary).ok();
    }
}

/// Who may do what with a file; `None` leaves its user or group as it would be.
struct Access {
    mode: u32,
    user: Option<u32>,
    group: Option<u32>,
}

/// Makes a folder and those above it; one that exists is kept as it is.
pub(crate) fn create_directory(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).with_context(|| at("create", path))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).with_context(|| at("create", path))?;
    sync_directory(path)
}

/// Locks a folder for as long as the result lives, waiting for whoever has it.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let file = File::open(folder).with_context(|| at("open", folder))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| at("lock", folder))?;
    Ok(file)
}

/// Locks a folder if nobody has it.
pub(crate) fn try_lock(folder: &Path) -> Result<Option<File>> {
    let file = File::open(folder).with_context(|| at("open", folder))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| at("lock", folder)),
    }
}

/// Syncs the folder that holds `path`, so that the name itself survives a power cut.
fn sync_directory(path: &Path) -> Result<()> {
    let parent = directory(path);
    File::open(parent)
        .and_then(|folder| folder.sync_all())
        .with_context(|| at("sync", parent))
}

/// Whether the file is there; that nobody may look is an error and not a no.
pub(crate) fn exists(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| at("read", path))
}

/// The folder a path lies in.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn at(verb: &str, path: &Path) -> String {
    format!("{verb} {}", path.display())
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("the file exists").mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("the folder exists")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn created_file_has_its_mode_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        Staged::write(&path, b"secret", 0o600)
            .and_then(Staged::create)
            .expect("it is created");
        assert_eq!(fs::read(&path).expect("readable"), b"secret");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(folder.path()), ["key.pem"]);
    }

    #[test]
    fn create_never_replaces_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("edge.toml");
        fs::write(&path, "mine").expect("written");
        let error = Staged::write(&path, b"new", 0o644).and_then(Staged::create);
        assert!(error.is_err());
        assert_eq!(fs::read(&path).expect("readable"), b"mine");
        assert_eq!(names(folder.path()), ["edge.toml"]);
    }

    #[test]
    fn staged_file_that_is_not_published_disappears() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Staged::write(&folder.path().join("a"), b"x", 0o600).expect("it is staged"));
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn rewritten_credentials_keep_their_mode_and_follow_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("htpasswd");
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("mode set");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        Staged::write_secret(&link, b"new")
            .and_then(Staged::replace)
            .expect("rewritten");
        assert_eq!(fs::read(&path).expect("readable"), b"new");
        assert_eq!(mode(&path), 0o640);
        assert!(
            fs::symlink_metadata(&link)
                .expect("still there")
                .is_symlink()
        );
    }

    #[test]
    fn new_credentials_in_an_own_folder_are_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("htpasswd");
        Staged::write_secret(&path, b"new")
            .and_then(Staged::create)
            .expect("written");
        assert_eq!(mode(&path), 0o600);
    }
}
