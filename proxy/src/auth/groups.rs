//! Apache's group file: which users are in which group.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use arc_swap::{ArcSwap, Guard};

use super::{Origin, User, skipped};
use crate::watch::Watch;

/// What stands before the name of a certificate's principal, as in rules.
const CERTIFICATE: &str = "cert:";

/// The members of each group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Members(HashMap<Box<str>, HashSet<Box<str>>>);

/// A group file that is picked up when it changes; without a file there is no group.
#[derive(Debug)]
pub(crate) struct Groups {
    file: Option<PathBuf>,
    members: ArcSwap<Members>,
    /// The numbers of the lines that say nothing and are left out.
    skipped: ArcSwap<Vec<usize>>,
    /// A rule denies something to a group: a file with lines that are left out would let its members in.
    denies: bool,
    watch: Watch,
}

/// Why a group file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(crate) struct GroupError {
    path: PathBuf,
    source: io::Error,
}

impl Members {
    /// Reads the text of a file; returns also the numbers of lines that say nothing and are left out.
    pub(crate) fn parse(text: &str) -> (Self, Vec<usize>) {
        let mut groups: HashMap<Box<str>, HashSet<Box<str>>> = HashMap::new();
        let mut skipped = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (group, users) = line.split_once(':').unwrap_or_default();
            let group = group.trim();
            if group.is_empty() || group.contains(char::is_whitespace) {
                skipped.push(number + 1);
                continue;
            }
            // A group may stand on several lines: Apache's are limited in length.
            let members = groups.entry(group.into()).or_default();
            members.extend(users.split_whitespace().map(Into::into));
        }
        (Self(groups), skipped)
    }

    /// Returns the names of the groups.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// Returns whether `user` is in `group`.
    pub(crate) fn has(&self, group: &str, user: &User) -> bool {
        let Some(members) = self.0.get(group) else {
            return false;
        };
        match user.origin {
            Origin::Password => members.contains(&user.name),
            Origin::Certificate => {
                let name = format!("{CERTIFICATE}{}", user.name);
                members.contains(name.as_str())
            }
            Origin::Issuer | Origin::Robot => false,
        }
    }
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            file: None,
            members: ArcSwap::from_pointee(Members::default()),
            skipped: ArcSwap::default(),
            denies: false,
            watch: Watch::default(),
        }
    }
}

impl Groups {
    /// Reads the file for the first time.
    pub(crate) fn load(file: PathBuf) -> Result<Self, GroupError> {
        let watch = Watch::over([&*file]);
        let (members, skipped) = read(&file)?;
        Ok(Self {
            file: Some(file),
            members: ArcSwap::from_pointee(members),
            skipped: ArcSwap::from_pointee(skipped),
            denies: false,
            watch,
        })
    }

    /// Returns the file, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the members of this moment.
    pub(crate) fn members(&self) -> Guard<Arc<Members>> {
        self.members.load()
    }

    /// Says that a rule denies something to a group; returns what is wrong with the file then.
    pub(crate) fn deny(&mut self) -> Vec<String> {
        self.denies = true;
        self.skipped()
    }

    /// Returns the lines of the file that cannot be used and are left out, each as a sentence.
    pub(crate) fn skipped(&self) -> Vec<String> {
        let file = self
            .file
            .as_deref()
            .unwrap_or_else(|| Path::new(""))
            .display();
        let sentence = |line| format!("{file}: line {line}: is not of the form `group: user user`");
        self.skipped.load().iter().map(sentence).collect()
    }

    /// Reads the file again if it looks changed; a file that cannot be read changes nothing and is
    /// told once.
    pub(crate) fn refresh(&self) {
        let Some(file) = &self.file else {
            return;
        };
        match self.watch.look([&**file], || read(file), |_| true) {
            None => {}
            Some(Ok((_, lines))) if self.denies && !lines.is_empty() => tracing::error!(
                file = %file.display(),
                ?lines,
                "group file changed and has lines that are not of the form `group: user user`; as a rule \
                 denies something to a group, the groups stay as they were"
            ),
            Some(Ok((members, lines))) => {
                tracing::info!(file = %file.display(), "group file changed, read again");
                self.members.store(Arc::new(members));
                self.skipped.store(Arc::new(lines));
                skipped::report(&self.skipped());
            }
            Some(Err(error)) => tracing::error!(
                %error,
                "group file changed and cannot be used, the groups stay as they were"
            ),
        }
    }
}

fn read(path: &Path) -> Result<(Members, Vec<usize>), GroupError> {
    let text = fs::read(path).map_err(|source| GroupError {
        path: path.to_owned(),
        source,
    })?;
    Ok(Members::parse(&String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_as_apache_writes_them() {
        let members = Members::parse("# who\n\ndev: alice bob\n dev :carol\nci: cert:runner\n");
        let (members, skipped) = members;
        assert!(skipped.is_empty());
        for (group, name, origin, expected) in [
            ("dev", "alice", Origin::Password, true),
            ("dev", "carol", Origin::Password, true),
            ("dev", "alice", Origin::Certificate, false),
            ("ci", "runner", Origin::Certificate, true),
            ("ci", "runner", Origin::Password, false),
            ("ci", "cert:runner", Origin::Robot, false),
            ("ops", "alice", Origin::Password, false),
        ] {
            let user = User::new(name, origin);
            assert_eq!(members.has(group, &user), expected, "{group} {name}");
        }
        for (text, line) in [("dev alice", 1), ("a: b\n: c", 2), ("a b: c", 1)] {
            assert_eq!(Members::parse(text).1, [line], "{text}");
        }
    }

    #[test]
    fn a_changed_file_is_picked_up_without_its_broken_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("groups");
        fs::write(&file, "dev: alice\n").unwrap();
        let groups = Groups::load(file.clone()).unwrap();
        let (alice, bob) = (
            User::new("alice", Origin::Password),
            User::new("bob", Origin::Password),
        );
        assert!(groups.members().has("dev", &alice));
        fs::write(&file, "dev: bob bob\n").unwrap();
        groups.refresh();
        assert!(!groups.members().has("dev", &alice));
        assert!(groups.skipped().is_empty());
        fs::write(&file, "broken\nops: bob\n").unwrap();
        groups.refresh();
        assert!(!groups.members().has("dev", &bob) && groups.members().has("ops", &bob));
        let skipped = groups.skipped();
        assert!(
            skipped.len() == 1 && skipped[0].contains("line 1"),
            "{skipped:?}"
        );
        fs::remove_file(&file).unwrap();
        groups.refresh();
        assert!(groups.members().has("ops", &bob), "it may come back");
    }

    #[test]
    fn a_broken_line_lets_nobody_in_who_was_denied() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("groups");
        fs::write(&file, "outside: eve\n").unwrap();
        let mut groups = Groups::load(file.clone()).unwrap();
        assert!(groups.deny().is_empty());
        let eve = User::new("eve", Origin::Password);
        fs::write(&file, "outside eve\ndev: bob\n").unwrap();
        groups.refresh();
        assert!(groups.members().has("outside", &eve));
        fs::write(&file, "outside: eve mallory\n").unwrap();
        groups.refresh();
        let mallory = User::new("mallory", Origin::Password);
        assert!(groups.members().has("outside", &mallory));
        fs::write(&file, "outside eve\n").unwrap();
        assert_eq!(Groups::load(file).unwrap().deny().len(), 1);
    }
}
