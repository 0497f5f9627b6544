//! The folder of what the edge writes itself: keys that it makes, credentials that it hands out.
//!
//! It is the edge's alone (0700, its files 0600). A file appears whole or not at all: written
//! beside its name, synced, and only then named. Who works on the folder as root, as the command
//! line may, leaves everything to the folder's owner.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// The folder, which need not be there yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Names the folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the folder `name` in it, made if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn make(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.0.join(name);
        make_folder(&folder)?;
        Ok(folder)
    }

    /// Returns whether it is not there yet and the systemd unit makes it.
    pub(crate) fn is_made_by_unit(&self) -> bool {
        self.0 == Path::new("/var/lib/tidegate") && !self.0.exists()
    }

    /// Says why this user could not keep anything in it; makes nothing.
    pub fn check(&self) -> io::Result<()> {
        // What is not there will be made in the nearest folder that is.
        let mut folder = self.0.as_path();
        loop {
            match fs::metadata(folder) {
                Ok(found) if !found.is_dir() => {
                    return Err(io::Error::from(io::ErrorKind::NotADirectory));
                }
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            folder = match folder.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
        }
        // A file without a name shows it, whatever lists and modes say, and leaves nothing behind.
        tempfile::tempfile_in(folder).map(drop)
    }
}

/// Writes a file in the place of the one that has the name.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = stage(path, bytes)?;
    staged.persist(path).map_err(|error| error.error)?;
    sync(parent(path))
}

/// Writes a file under a name that no file has; [`io::ErrorKind::AlreadyExists`] if one does.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = stage(path, bytes)?;
    staged
        .persist_noclobber(path)
        .map_err(|error| error.error)?;
    sync(parent(path))
}

/// Removes a file; returns whether there was one.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync(parent(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the names of the files in a folder that end in `suffix`, without it and in order; none
/// where there is no folder.
pub(crate) fn names(folder: &Path, suffix: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        // What begins with a dot is not finished.
        let name = name.to_str().and_then(|name| name.strip_suffix(suffix));
        names.extend(
            name.filter(|name| !name.starts_with('.'))
                .map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}

/// Reads a file; what is longer than `len_max` is no file of ours.
pub(crate) fn read(path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(len_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > len_max {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

/// Returns the names and the contents of the files in a folder that end in `suffix`.
pub(crate) fn read_all(
    folder: &Path,
    suffix: &str,
    len_max: u64,
) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for name in names(folder, suffix)? {
        match read(&folder.join(format!("{name}{suffix}")), len_max) {
            Ok(bytes) => files.push((name, bytes)),
            // Removed in this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                tracing::warn!(folder = %folder.display(), name, "too long, passed over");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = parent(folder);
    make_folder(above)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    // Never through a link: whoever owns the folder above could have put one there meanwhile.
    let (own, above_owner) = (fs::symlink_metadata(folder)?, fs::metadata(above)?);
    if own.uid() == 0 && above_owner.uid() != 0 {
        lchown(folder, Some(above_owner.uid()), Some(above_owner.gid()))?;
    }
    sync(above)
}

fn stage(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let folder = parent(path);
    let mut staged = Builder::new()
        .prefix(".")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    staged.write_all(bytes)?;
    let (own, owner) = (staged.as_file().metadata()?, fs::metadata(folder)?);
    if own.uid() != owner.uid() {
        fchown(staged.as_file(), Some(owner.uid()), Some(owner.gid()))?;
    }
    staged.as_file().sync_all()?;
    Ok(staged)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_kept_is_for_the_edge_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path().join("a/state"));
        assert!(state.check().is_ok());
        assert!(!state.path().exists(), "a check makes nothing");
        let tokens = state.make("tokens").unwrap();
        let file = tokens.join("x.json");
        replace(&file, b"1").unwrap();
        replace(&file, b"2").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"2");
        assert_eq!((mode(state.path()), mode(&tokens)), (0o700, 0o700));
        assert_eq!(mode(&file), 0o600);
        let again = create(&file, b"3").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(&tokens).unwrap().count(), 1);
        assert!(remove(&file).unwrap());
        assert!(!remove(&file).unwrap());
    }

    #[test]
    fn only_finished_files_of_the_kind_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.json", "b"),
            ("a.json", "a"),
            (".c.json", "c"),
            ("d.txt", "d"),
            ("e.json", "too long"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let files = read_all(folder.path(), ".json", 4).unwrap();
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, bytes)| (name.as_str(), &bytes[..]))
            .collect();
        assert_eq!(files, [("a", &b"a"[..]), ("b", b"b")]);
        let none = read_all(&folder.path().join("none"), ".json", 4).unwrap();
        assert_eq!(none, []);
    }

    #[test]
    fn a_folder_that_cannot_be_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(StateDir::new(&file).check().is_err());
        assert!(StateDir::new(file.join("below")).check().is_err());
    }
}
