//! `tidegate certs`: the certificates of a config.

use anyhow::Result;

/// The flags.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<()> {
    Ok(())
}
