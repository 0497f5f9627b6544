//! The files that lines are written to.
//!
//! Whoever may write to the folder of a log can put something else in the place of the file: a link to
//! a file of the process's own user, which the process would append to, or a FIFO that it would wait
//! for. So a log file is opened without following a link, and looked at before a line is written.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Access, Mode, OFlags, access, open as open_at};
use rustix::io::Errno;
use rustix::process::geteuid;
use settings::Purpose;

use crate::files;

/// The mode of a new file, before the process's umask.
const MODE: Mode = Mode::from_raw_mode(0o640);

/// Root's id.
const ROOT: u32 = 0;

/// Why a path is none to log to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("is a folder")]
    Folder,
    #[error(
        "is owned by user {0}, neither by the user that writes it nor by root, \
         so somebody else decides who reads it and what stays in it"
    )]
    Foreign(u32),
    #[error("has {0} hard links: it is a file elsewhere, too")]
    HardLinks(u64),
    #[error(
        "is a symbolic link: name the file itself (/dev/stdout, /dev/stderr and /dev/null may be named)"
    )]
    SymbolicLink,
    #[error("is {0} and no regular file (/dev/stdout, /dev/stderr and /dev/null may be named)")]
    Special(&'static str),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Opens a log file, and makes it if it is not there.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    // Whatever the path names: no link is followed, no FIFO's reader waited for, and no terminal
    // becomes this process's.
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match open_at(path, flags | careful, MODE) {
        Ok(descriptor) => File::from(descriptor),
        Err(Errno::LOOP) => return Err(Error::SymbolicLink),
        Err(Errno::NXIO) => return Err(Error::Special("a FIFO or a socket")),
        Err(Errno::ISDIR) => return Err(Error::Folder),
        Err(error) => return Err(io::Error::from(error).into()),
    };
    judge(&file.metadata()?, Some(geteuid().as_raw()))?;
    Ok(file)
}

/// Says whether a log file could be opened, without making it.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let writable = match fs::symlink_metadata(path) {
        Ok(found) => {
            // Root checks for others, and does not know for whom.
            let writer = geteuid();
            judge(&found, (!writer.is_root()).then_some(writer.as_raw()))?;
            access(path, Access::WRITE_OK)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            access(files::directory(path), Access::WRITE_OK)
        }
        Err(error) => return Err(error.into()),
    };
    Ok(writable.map_err(io::Error::from)?)
}

/// Says what to do about a log file that this process's user may not write or make, if that is what
/// `error` says.
pub(super) fn denied(path: &Path, error: &Error) -> Option<String> {
    let Error::System(error) = error else {
        return None;
    };
    if error.kind() != io::ErrorKind::PermissionDenied {
        return None;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            settings::denied(files::directory(path), Purpose::Write)
        }
        Ok(_) | Err(_) => settings::denied(path, Purpose::Write),
    }
}

/// Says what is wrong with a file that `writer` wants to write to; `None` is somebody.
fn judge(found: &Metadata, writer: Option<u32>) -> Result<(), Error> {
    let kind = found.file_type();
    if kind.is_symlink() {
        return Err(Error::SymbolicLink);
    } else if kind.is_dir() {
        return Err(Error::Folder);
    } else if kind.is_fifo() {
        return Err(Error::Special("a FIFO"));
    } else if kind.is_socket() {
        return Err(Error::Special("a socket"));
    } else if kind.is_char_device() || kind.is_block_device() {
        return Err(Error::Special("a device"));
    }
    let owner = found.uid();
    if owner != ROOT && writer.is_some_and(|writer| writer != owner) {
        return Err(Error::Foreign(owner));
    }
    if found.nlink() > 1 {
        return Err(Error::HardLinks(found.nlink()));
    }
    Ok(())
}

/// Says who else may put something in the place of a log file, if anyone may.
pub(super) fn exposure(path: &Path) -> Option<String> {
    let folder = files::directory(path);
    let found = fs::metadata(folder).ok()?;
    let (mode, owner, own) = (found.permissions().mode(), found.uid(), geteuid());
    // Root may be somebody who only checks.
    let is_foreign = owner != ROOT && owner != own.as_raw() && !own.is_root();
    let who = if mode & 0o002 != 0 {
        "everyone".to_owned()
    } else if mode & 0o020 != 0 {
        format!("group {}", found.gid())
    } else if is_foreign {
        format!("user {owner}")
    } else {
        return None;
    };
    let folder = folder.display();
    Some(format!(
        "{}: {who} may write to {folder} and put something else in the place of the log, which then \
         is not opened; a folder of its own, which nobody else may write to, keeps it safe",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::{CWD, FileType, mknodat};
    use tempfile::TempDir;

    use super::*;

    fn refusal(path: &Path) -> String {
        let checked = check(path).unwrap_err().to_string();
        let opened = open(path).unwrap_err().to_string();
        // A FIFO that nobody reads cannot be opened, and looks like a socket then.
        let same = checked
            .bytes()
            .zip(opened.bytes())
            .take_while(|(a, b)| a == b);
        assert!(same.count() >= 6, "{checked}; {opened}");
        checked
    }

    #[test]
    fn a_file_is_made_and_appended_to() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("log");
        check(&path).unwrap();
        assert!(!path.exists());
        for _ in 0..2 {
            io::Write::write_all(&mut open(&path).unwrap(), b"line\n").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"line\nline\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
    }

    #[test]
    fn whatever_is_no_regular_file_is_refused_and_never_waited_for() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("absent"), at("dangling")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, 0o666.into(), 0).unwrap();
        fs::create_dir(at("folder")).unwrap();
        for (name, why) in [
            ("link", "symbolic link"),
            ("dangling", "symbolic link"),
            ("fifo", "a FIFO"),
            ("folder", "a folder"),
        ] {
            let said = refusal(&at(name));
            assert!(said.contains(why), "{name}: {said}");
        }
        assert!(!at("absent").exists());
        assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
        let said = refusal(Path::new("/dev/zero"));
        assert!(said.contains("a device"), "{said}");
    }

    #[test]
    fn a_file_of_two_names_is_refused() {
        let folder = TempDir::new().unwrap();
        let (victim, path) = (folder.path().join("victim"), folder.path().join("log"));
        fs::write(&victim, "precious").unwrap();
        fs::hard_link(&victim, &path).unwrap();
        assert!(refusal(&path).contains("2 hard links"));
        fs::remove_file(&victim).unwrap();
        open(&path).unwrap();
    }

    #[test]
    fn the_owner_is_whoever_writes_or_root() {
        let found = fs::metadata("/proc/self").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = file.as_file().metadata().unwrap();
        assert!(matches!(judge(&found, None), Err(Error::Folder)));
        judge(&file, Some(file.uid())).unwrap();
        judge(&file, None).unwrap();
        let foreign = judge(&file, Some(file.uid() + 1));
        // To tests that run as root, all files are root's.
        assert_eq!(foreign.is_err(), file.uid() != ROOT);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_told() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("log");
        let exposed = |mode| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            exposure(&path)
        };
        assert_eq!(exposed(0o750), None);
        assert!(exposed(0o1770).unwrap().contains("group "));
        assert!(exposed(0o1777).unwrap().contains("everyone"));
    }
}
