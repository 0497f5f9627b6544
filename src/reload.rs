//! `tidegate reload`: has the running roles reload their config, and prints the outcome.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::config::{self, ConfigFile, Role};
use crate::control::{self, Request};
use crate::outcome::{Outcome, Reloaded};
use crate::output::{complain, say};

/// The exit code when all is in force but for keys that need a restart.
const NEEDS_RESTART: u8 = 3;

/// The flags of `tidegate reload`.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 everything was applied, 1 nothing was changed in at least one role, \
                        3 applied except for keys that need a restart, 2 usage error."
)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Reload only this role.
    #[arg(long)]
    role: Option<Role>,
}

/// Runs `tidegate reload`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (edge, registry) = config::control_sockets(&args.config.path)?;
    let sockets = [(Role::Edge, Some(edge)), (Role::Registry, registry)];
    let (mut refused, mut waits) = (false, false);
    for (role, socket) in sockets {
        let (true, Some(socket)) = (args.role.is_none_or(|only| only == role), socket) else {
            continue;
        };
        match ask(role, &socket) {
            Ok(waiting) => waits |= waiting,
            Err(error) => {
                complain(format_args!("{role}: {error:#}"));
                refused = true;
            }
        }
    }
    Ok(match (refused, waits) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(NEEDS_RESTART),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// Asks a role; returns whether keys of its config need a restart.
fn ask(role: Role, socket: &Path) -> Result<bool> {
    let Some(outcome) = control::ask(socket, Request::Reload)? else {
        bail!("not running: nothing listens at {}", socket.display());
    };
    match &outcome {
        Outcome::InForce(Reloaded { waiting, skipped }) => {
            for line in skipped {
                complain(format_args!("{role}: error: {line}: the line is left out"));
            }
            say(format_args!("{role}: {outcome}"))?;
            Ok(!waiting.is_empty())
        }
        Outcome::Upgraded { .. } => bail!("it gave the answer to something else"),
        Outcome::Refused { problems } => {
            problems.iter().for_each(complain);
            bail!("{outcome}")
        }
    }
}
