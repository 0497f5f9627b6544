//! The password that `tidegate setup` keeps beside an htpasswd file, for people to read: it is true, or it
//! is not there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::files::{self, Staged};
use crate::htpasswd;
use crate::output::note;
use crate::password::Password;

/// The file, and what stands in it.
pub(crate) struct KeptPassword {
    path: PathBuf,
    password: Password,
}

impl KeptPassword {
    /// Finds the one beside `htpasswd` that lets `user` in at this moment. A file that does not, is
    /// somebody else's.
    pub(crate) fn of(htpasswd: &Path, user: &str) -> Option<Self> {
        let path = files::directory(htpasswd).join("password");
        let password = Password::read_file(&path).ok()?;
        let holds = htpasswd::lets_in(htpasswd, user, &password).unwrap_or_default();
        (htpasswd.file_name()? == "htpasswd" && holds).then_some(Self { path, password })
    }

    /// Makes it true after the user was given another password, or removed. What was made at random takes
    /// its place; what somebody has thought of is written down nowhere.
    pub(crate) fn follow(
        self,
        htpasswd: &Path,
        user: &str,
        random: Option<&Password>,
    ) -> Result<()> {
        if htpasswd::lets_in(htpasswd, user, &self.password)? {
            return Ok(());
        }
        let path = self.path.display();
        if let Some(password) = random {
            let text = format!("{}\n", password.reveal());
            return Staged::write(&self.path, text.as_bytes(), 0o600)?.replace();
        }
        fs::remove_file(&self.path).with_context(|| format!("remove {path}"))?;
        note(format_args!(
            "removed {path}, which held the password before"
        ));
        Ok(())
    }
}

/// Returns who of an htpasswd file is let in by the password that is kept in `path`, of those that come
/// first: each costs the time of a login.
pub(crate) fn whose(path: &Path, htpasswd: &Path) -> Option<String> {
    const TRIED_MAX: usize = 5;
    let password = Password::read_file(path).ok()?;
    let text = fs::read_to_string(htpasswd).ok()?;
    let mut users = htpasswd::users(&text).take(TRIED_MAX);
    let user = users.find(|user| htpasswd::lets_in(htpasswd, user, &password).unwrap_or_default());
    user.map(str::to_owned)
}
