//! `tidegate check`: whether a config is good, and all that is wrong with it if not.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::config::{self, ConfigFile, Role};
use crate::examination::Examination;
use crate::eyes::{self, Eyes, Given};
use crate::output::{note, say};

/// The flags of `tidegate check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// The config file, instead of --config.
    file: Option<PathBuf>,
    /// Check for this role only: the files of the other role, which its user may not read, are skipped.
    ///
    /// Lines of htpasswd and group files that cannot be used are still reported, but do not change the exit
    /// code.
    #[arg(long)]
    role: Option<Role>,
    #[command(flatten)]
    users: Given,
    /// Become this user, look, and write what was found as JSON.
    #[arg(long, hide = true, value_name = "UID:GID:USER", value_parser = eyes::parse)]
    r#become: Option<Eyes>,
}

/// Runs `tidegate check`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let path = args.file.as_ref().unwrap_or(&args.config.path);
    if let Some(eyes) = &args.r#become {
        eyes.take()?;
        return say(Examination::make(path, args.role).to_json());
    }
    let found = examine(args, path)?;
    for warning in &found.warnings {
        note(format_args!("warning: {warning}"));
    }
    for error in &found.errors {
        note(format_args!("error: {error}"));
    }
    if !found.problems.is_empty() {
        return Err(found.problems.into());
    }
    let errors = found.errors.len();
    // A role is asked about to see whether it can be started, and it can.
    ensure!(
        errors == 0 || args.role.is_some(),
        "the config itself is good, but there is something wrong with what it names: see the {errors} \
         errors above"
    );
    say(format_args!("{}: ok", path.display()))
}

/// Looks with the eyes of each role's user, where that is another one.
fn examine(args: &Args, path: &Path) -> Result<Examination> {
    let roles = match args.role {
        Some(role) => vec![role],
        None if config::allowed_users(path).is_ok_and(|users| users.is_none()) => vec![Role::Edge],
        None => vec![Role::Edge, Role::Registry],
    };
    let eyes = roles.into_iter().map(|role| {
        let eyes = args.users.eyes(role, path)?;
        Ok((role, eyes))
    });
    let eyes: Vec<(Role, Option<Eyes>)> = eyes.collect::<Result<_>>()?;
    if eyes.iter().all(|(_, eyes)| eyes.is_none()) {
        return Ok(Examination::make(path, args.role));
    }
    let mut found = Examination::default();
    for (role, eyes) in eyes {
        let seen = eyes.map(|eyes| eyes.examine(path, role)).transpose()?;
        let seen = seen.flatten();
        found.add(seen.unwrap_or_else(|| Examination::make(path, Some(role))));
    }
    Ok(found)
}
