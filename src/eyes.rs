//! With whose eyes a config is looked at.
//!
//! Root may read and write everything, and so sees nothing of what keeps a role from starting: a key
//! that the edge's user may not read, a folder that the registry's may not write to. So what root
//! checks is looked at by a process that becomes the role's user first, with that user's groups, as
//! the systemd unit does it.

use std::ffi::CString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Gid, Group, Uid, User, geteuid, initgroups, setgid, setuid};

use crate::config::{self, Role};
use crate::examination::Examination;

/// Whom the unit of the registry runs as.
pub(crate) const REGISTRY_USER: &str = "tidegate-registry";

/// The group that it runs with, and not with the user's own.
const REGISTRY_GROUP: &str = "tidegate";

/// Whom the unit of the edge runs as.
const EDGE_USER: &str = "tidegate-edge";

/// Where the units have their config.
const UNITS_FOLDER: &str = "/etc/tidegate";

/// Where the unit of the edge has its `state_dir`, as systemd tells it.
const EDGE_STATE: (&str, &str) = ("STATE_DIRECTORY", "/var/lib/tidegate");

/// Whose eyes to take, where the user says so.
#[derive(clap::Args)]
pub(crate) struct Given {
    /// The user that the edge runs as [default: what the unit and `allow_users` say].
    #[arg(long, value_name = "USER")]
    edge_user: Option<String>,
    /// The user that the registry runs as [default: what the unit says].
    #[arg(long, value_name = "USER")]
    registry_user: Option<String>,
}

/// A user to look as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Eyes {
    user: String,
    uid: Uid,
    gid: Gid,
    /// Nobody has said that it is this user who runs with the config.
    is_guess: bool,
}

impl Given {
    /// Returns whose eyes to take for a role; `None` is to look as this process's user.
    ///
    /// Only root can look as somebody else. It does so for the roles of the units; where the config
    /// names nobody in `registry.allow_users`, both roles run as one user, as those of `tidegate up`,
    /// and who that is nobody can tell.
    ///
    /// # Errors
    /// When the user that is given is not there, or not to be had.
    pub(crate) fn eyes(&self, role: Role, path: &Path) -> Result<Option<Eyes>> {
        let given = match role {
            Role::Edge => &self.edge_user,
            Role::Registry => &self.registry_user,
        };
        if let Some(name) = given {
            let flag = format!("--{role}-user");
            ensure!(
                geteuid().is_root(),
                "{flag}: only root can look as another user"
            );
            let user = find(name)?.with_context(|| format!("{flag}: there is no user {name:?}"))?;
            return Ok(Some(Eyes::of(user)?).filter(|eyes| !eyes.uid.is_root()));
        }
        if !geteuid().is_root() {
            return Ok(None);
        }
        // What is no config is told by whoever reads all of it.
        let Ok(allowed) = config::allowed_users(path) else {
            return Ok(None);
        };
        let user = match (role, allowed) {
            (Role::Edge, None) => find(EDGE_USER)?,
            (Role::Edge, Some(allowed)) => edge_among(&allowed)?,
            (Role::Registry, Some(allowed)) if !allowed.is_empty() => find(REGISTRY_USER)?,
            (Role::Registry, _) => None,
        };
        let eyes = user.map(Eyes::of).transpose()?;
        Ok(eyes.map(|eyes| Eyes {
            is_guess: !path.starts_with(UNITS_FOLDER),
            ..eyes
        }))
    }
}

/// Returns the edge's user: that of the unit, or else the first of those that may connect.
fn edge_among(allowed: &[String]) -> Result<Option<User>> {
    if allowed.iter().any(|name| name == EDGE_USER)
        && let Some(user) = find(EDGE_USER)?
    {
        return Ok(Some(user));
    }
    for name in allowed {
        if let Some(user) = find(name)?.filter(|user| !user.uid.is_root()) {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// Returns the user of a name or a number.
fn find(name: &str) -> Result<Option<User>> {
    match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    }
    .with_context(|| format!("look up user {name:?}"))
}

impl Eyes {
    fn of(user: User) -> Result<Self> {
        let group = match user.name.as_str() {
            REGISTRY_USER => Group::from_name(REGISTRY_GROUP)
                .with_context(|| format!("look up group {REGISTRY_GROUP:?}"))?,
            _ => None,
        };
        Ok(Self {
            gid: group.map_or(user.gid, |group| group.gid),
            uid: user.uid,
            user: user.name,
            is_guess: false,
        })
    }

    /// Looks at a config for a role, in another process; `None` when it is nothing to this user, who may
    /// not even read it: then the role cannot be one that runs with it.
    ///
    /// # Errors
    /// When there is no such process, or it cannot become the user.
    pub(crate) fn examine(&self, path: &Path, role: Role) -> Result<Option<Examination>> {
        let failed = || format!("look as user {}", self.user);
        let program = std::env::current_exe().with_context(failed)?;
        // The user may not be let into the folder that this process is in.
        let absolute = std::path::absolute(path).with_context(failed)?;
        let mut command = Command::new(program);
        command
            .args(["check", "--role", role.name()])
            .arg(format!("--become={}:{}:{}", self.uid, self.gid, self.user))
            .arg("--config")
            .arg(&absolute)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        let (variable, folder) = EDGE_STATE;
        if self.user == EDGE_USER && std::env::var_os(variable).is_none() {
            command.env(variable, folder);
        }
        let output = command.output().with_context(failed)?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("{}: {}", failed(), output.status);
        }
        let found = Examination::from_json(&text, path).with_context(failed)?;
        let is_for_others = self.is_guess && found.is_closed;
        Ok((!is_for_others).then(|| found.about(&absolute, path)))
    }

    /// Becomes the user, with all of its groups and for good.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn take(&self) -> Result<()> {
        let become_user = || -> Result<()> {
            let name = CString::new(self.user.as_str())?;
            initgroups(&name, self.gid)?;
            setgid(self.gid)?;
            Ok(setuid(self.uid)?)
        };
        become_user().with_context(|| format!("become user {}", self.user))
    }
}

/// Reads what [`Eyes::examine`] gives to its process.
pub(crate) fn parse(text: &str) -> Result<Eyes, String> {
    let mut parts = text.splitn(3, ':');
    let mut number = || parts.next()?.parse().ok();
    let (uid, gid) = (number(), number());
    match (uid, gid, parts.next()) {
        (Some(uid), Some(gid), Some(user)) => Ok(Eyes {
            user: user.to_owned(),
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            is_guess: false,
        }),
        _ => Err("must be UID:GID:USER".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_number_and_root_is_nobody_to_look_as() {
        let root = find("root").unwrap().unwrap();
        assert!(root.uid.is_root());
        assert_eq!(
            find("0").unwrap().map(|user| user.name).as_deref(),
            Some("root")
        );
        assert!(find("no-such-user").unwrap().is_none());
        let among = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            edge_among(&names).unwrap().map(|user| user.name)
        };
        assert_eq!(
            among(&["root", "no-such-user", "nobody"]).as_deref(),
            Some("nobody")
        );
        assert_eq!(among(&["root"]), None);
        assert_eq!(among(&[]), None);
    }

    #[test]
    fn what_is_given_to_the_process_is_read_there() {
        let eyes = parse("65534:7:nobody").unwrap();
        assert_eq!((eyes.uid.as_raw(), eyes.gid.as_raw()), (65534, 7));
        assert_eq!(eyes.user, "nobody");
        assert!(parse("nobody").is_err());
        assert!(parse("1:x:nobody").is_err());
    }
}
