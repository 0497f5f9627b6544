//! `tidegate upgrade`: has each running role start a successor from the program on disk, and leave.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::config::{self, ConfigFile, Role};
use crate::control::{self, Request};
use crate::outcome::Outcome;
use crate::output::{note, say};

/// The flags of `tidegate upgrade`.
#[derive(clap::Args)]
#[command(
    after_help = "The new program is the one at the path that the service was started from. If the new process \
                  is not ready within a minute, the old one keeps running.\n\n\
                  Exit codes: 0 upgraded, 1 not upgraded in at least one role, 2 usage error."
)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Upgrade only this role.
    #[arg(long)]
    role: Option<Role>,
}

/// Runs `tidegate upgrade`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (edge, registry) = config::control_sockets(&args.config.path)?;
    // The edge waits for the registry, not the other way round.
    let sockets = [(Role::Registry, registry), (Role::Edge, Some(edge))];
    let mut failed = false;
    for (role, socket) in sockets {
        let (true, Some(socket)) = (args.role.is_none_or(|only| only == role), socket) else {
            continue;
        };
        if let Err(error) = upgrade(role, &socket) {
            note(format_args!("{role}: {error:#}"));
            failed = true;
        }
    }
    Ok(match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn upgrade(role: Role, socket: &Path) -> Result<()> {
    let Some(outcome) = control::ask(socket, Request::Upgrade)? else {
        bail!("not running: nothing listens at {}", socket.display());
    };
    match &outcome {
        Outcome::Upgraded { .. } => say(format_args!("{role}: {outcome}")),
        Outcome::Refused { problems } => {
            problems
                .iter()
                .for_each(|problem| note(format_args!("{role}: {problem}")));
            bail!("{outcome}")
        }
        Outcome::InForce(_) => bail!("it gave the answer to something else"),
    }
}
