//! What can be said of a registry before it starts, by who may do what on this machine.

use std::path::Path;
use std::{fs, io};

use settings::{Purpose, current_user, denied, suggestion};

use crate::config::Config;
use crate::storage::layout;
use crate::users;

/// The folder that the systemd unit makes before it starts the registry.
const MADE_BY_UNIT: &str = "/var/lib/registry";

/// Where a unit makes further folders, with `StateDirectory=`.
const UNIT_FOLDERS: &str = "/var/lib";

/// Why the storage is not ready for this process's user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unready {
    /// It is not there yet, which may be meant.
    Absent(String),
    /// It cannot be used.
    Unusable(String),
}

impl Config {
    /// Returns the names among `allow_users` of which there is no user on this machine, each with its
    /// index and what there is to say of it.
    pub fn unknown_users(&self) -> Vec<(usize, String)> {
        let users = self.allow_users.iter().enumerate();
        let unknown = users.filter(|(_, user)| users::id(user).is_none());
        unknown
            .map(|(index, user)| {
                let near = suggestion(users::like(user).as_deref());
                let message =
                    format!("{user:?}: there is no such user, so it cannot be let in{near}");
                (index, message)
            })
            .collect()
    }

    /// Returns why this process's user could not store anything, or what is odd about where it would;
    /// makes nothing.
    pub fn unready(&self) -> Option<Unready> {
        let root = self.root.as_path();
        match fs::metadata(root) {
            Ok(found) if !found.is_dir() => Some(Unready::Unusable(format!(
                "{}: is not a folder",
                root.display()
            ))),
            Ok(_) => {
                let below = layout::trunk().map(|folder| folder.below(root));
                let mut folders = std::iter::once(root.to_owned()).chain(below);
                let denied = folders.find_map(|folder| denied(&folder, Purpose::Write));
                denied.map(Unready::Unusable)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => absent(root),
            Err(error) => Some(Unready::Unusable(
                denied(root, Purpose::Write)
                    .unwrap_or_else(|| format!("{}: {error}", root.display())),
            )),
        }
    }
}

/// Says of a folder that is not there whether it could be made.
fn absent(root: &Path) -> Option<Unready> {
    if root == Path::new(MADE_BY_UNIT) {
        return None;
    }
    let shown = root.display();
    let nearest = root.ancestors().skip(1).find(|folder| folder.is_dir())?;
    if denied(nearest, Purpose::Write).is_none() {
        return Some(Unready::Absent(format!(
            "{shown}: is not there yet, and is made at the start; if a disk is to be mounted there, it is not"
        )));
    }
    let (user, folder) = (current_user(), nearest.display());
    let message = format!(
        "{shown}: is not there, and user {user} may not make it in {folder}: \
         install -d -o {user} -m 700 {shown}"
    );
    Some(if nearest == Path::new(UNIT_FOLDERS) {
        Unready::Absent(format!("{message} (or StateDirectory= in the unit)"))
    } else {
        Unready::Unusable(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_that_is_not_there_may_be_meant_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let unready = |root: &Path| Config::new("/r".into(), root.to_owned()).unready();
        assert_eq!(unready(folder.path()), None);
        let Some(Unready::Absent(told)) = unready(&folder.path().join("a/b")) else {
            panic!("it is not there");
        };
        assert!(told.contains("a/b: is not there yet"), "{told}");
        assert_eq!(unready(Path::new(MADE_BY_UNIT)), None, "the unit makes it");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let Some(Unready::Unusable(told)) = unready(&file) else {
            panic!("it is a file");
        };
        assert!(told.ends_with("file: is not a folder"), "{told}");
    }

    #[test]
    fn users_that_are_not_here_are_named_with_those_that_are_like_them() {
        let mut config = Config::new("/r".into(), "/data".into());
        config.allow_users = ["root", "nobdoy", "4711"].map(str::to_owned).to_vec();
        let told =
            "\"nobdoy\": there is no such user, so it cannot be let in, did you mean \"nobody\"?";
        assert_eq!(config.unknown_users(), [(1, told.to_owned())]);
    }
}
