//! `tidegate check`: whether a config is good, and all that is wrong with it if not.

use anyhow::{Result, ensure};

use crate::config::{self, ConfigFile, Role};
use crate::output::{note, say};

/// The flags of `tidegate check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Check for this role only: the files of the other role, which its user may not read, are skipped.
    ///
    /// ACME certificates that are missing or expired, and lines of htpasswd and group files that cannot be
    /// used, are still reported, but do not change the exit code.
    #[arg(long)]
    role: Option<Role>,
}

/// Runs `tidegate check`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let config = config::read(&args.config.path, args.role)?;
    for warning in config.log_warnings(args.role) {
        note(format_args!("warning: {warning}"));
    }
    for warning in config.edge.warnings() {
        note(format_args!("warning: {warning}"));
    }
    let skipped = config.edge.skipped_lines();
    for line in &skipped {
        note(format_args!("error: {line}: the line is left out"));
    }
    let troubles = config.edge.certificate_troubles();
    for trouble in &troubles {
        note(format_args!("warning: {}", trouble.text));
    }
    let serious = troubles.iter().filter(|trouble| trouble.serious).count();
    // A role is asked about to see whether it can be started: it is what puts this right.
    ensure!(
        serious == 0 || args.role.is_some(),
        "the config is good, but {serious} certificates are not"
    );
    ensure!(
        skipped.is_empty() || args.role.is_some(),
        "the config is good, but {} lines of the files that it names are not",
        skipped.len()
    );
    say(format_args!("{}: ok", args.config.path.display()))
}
