//! What the user of this process may do with a file, and what to do where that is not enough.

use std::path::{Path, PathBuf, absolute};

use nix::unistd::{Group, User, getegid, geteuid};
use rustix::fs::{Access, access};
use rustix::io::Errno;

/// What a file or folder is there for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// A file is read.
    Read,
    /// A program is run.
    Run,
    /// Files are made and changed in a folder, or a file is written to.
    Write,
}

/// Says why this process's user may not use `path` for its purpose, and what to do about it; `None` when
/// it may, or when there is no such path.
pub fn denied(path: &Path, purpose: Purpose) -> Option<String> {
    let is_folder = path.is_dir();
    let wanted = match purpose {
        Purpose::Read => Access::READ_OK,
        Purpose::Run => Access::EXEC_OK,
        Purpose::Write if is_folder => Access::WRITE_OK | Access::EXEC_OK,
        Purpose::Write => Access::WRITE_OK,
    };
    let shown = path.display();
    match access(path, wanted) {
        Err(Errno::ROFS) => return Some(format!("{shown}: is on a read-only file system")),
        Err(Errno::ACCESS) => {}
        _ => return None,
    }
    let user = current_user();
    if let Some(folder) = closed_folder(path) {
        let folder = folder.display();
        return Some(format!(
            "{shown}: user {user} may not enter the folder {folder}: open that to the user, or keep the \
             file elsewhere, such as in /etc/tidegate"
        ));
    }
    let group = group();
    Some(match purpose {
        Purpose::Read => format!(
            "{shown}: user {user} may not read it; to let its group: chgrp {group} {shown} && chmod g+r {shown}"
        ),
        Purpose::Run => {
            format!("{shown}: user {user} may not run it; to let everyone: chmod a+rx {shown}")
        }
        Purpose::Write if is_folder => format!(
            "{shown}: user {user} may not write to this folder; to give it to the user: chown -R {user} {shown}"
        ),
        Purpose::Write => format!(
            "{shown}: user {user} may not write to it; to give it to the user: chown {user} {shown}"
        ),
    })
}

/// Returns the first folder on the way to `path` that this process's user may not enter.
fn closed_folder(path: &Path) -> Option<PathBuf> {
    let path = absolute(path).ok()?;
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    let is_closed = |folder: &&Path| access(*folder, Access::EXEC_OK) == Err(Errno::ACCESS);
    folders.into_iter().find(is_closed).map(Path::to_owned)
}

/// Returns the name of this process's user, or its number where it has none.
pub fn current_user() -> String {
    let id = geteuid();
    let user = User::from_uid(id).ok().flatten();
    user.map_or_else(|| id.to_string(), |user| user.name)
}

/// Returns the name of this process's group, or its number where it has none.
fn group() -> String {
    let id = getegid();
    let group = Group::from_gid(id).ok().flatten();
    group.map_or_else(|| id.to_string(), |group| group.name)
}
