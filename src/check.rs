//! `tidegate check`: whether a config is good, and all that is wrong with it if not.

use std::path::PathBuf;

use anyhow::Result;

use crate::config::{self, Role};
use crate::output::say;

/// The flags of `tidegate check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The config file.
    #[arg(
        long,
        env = "TIDEGATE_CONFIG",
        default_value = "/etc/tidegate/edge.toml"
    )]
    config: PathBuf,
    /// Check what this role alone needs, as its own user; the other's files may be unreadable.
    #[arg(long)]
    role: Option<Role>,
}

/// Runs `tidegate check`.
pub(crate) fn run(args: &Args) -> Result<()> {
    config::read(&args.config, args.role)?;
    say(format_args!("{}: ok", args.config.display()))
}
