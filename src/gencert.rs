//! `tidegate gencert`: a self-signed certificate and its key.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::ArgGroup;
use proxy::tls::self_signed::{self, DAYS, Pair};

use crate::files::{self, Staged};
use crate::output::say;
use crate::setup::host_name;

/// The flags of `tidegate gencert`.
#[derive(clap::Args)]
#[command(group(ArgGroup::new("whom").args(["names", "addresses"]).required(true).multiple(true)))]
pub(crate) struct Args {
    /// A host name for the certificate; may be repeated.
    #[arg(long = "name", value_name = "HOST", value_delimiter = ',', value_parser = host_name)]
    names: Vec<String>,
    /// An IP address for the certificate; may be repeated.
    #[arg(long = "ip", value_name = "IP", value_delimiter = ',')]
    addresses: Vec<IpAddr>,
    /// The folder for cert.pem and key.pem.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out_dir: PathBuf,
    /// The certificate file, instead of cert.pem in that folder.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key file, instead of key.pem in that folder.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Days until it expires; Apple's platforms accept no more than the default.
    #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    /// Overwrite existing files.
    #[arg(long)]
    force: bool,
}

/// Runs `tidegate gencert`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let certificate = args
        .cert
        .clone()
        .unwrap_or_else(|| args.out_dir.join("cert.pem"));
    let key = args
        .key
        .clone()
        .unwrap_or_else(|| args.out_dir.join("key.pem"));
    ensure!(
        certificate != key,
        "{}: the certificate and the key need a file each",
        key.display()
    );
    let pair = self_signed::generate_for_days(&args.names, &args.addresses, args.days)?;
    if args.force {
        let (staged_key, staged_certificate) = stage(&pair, &certificate, &key)?;
        staged_key.replace()?;
        staged_certificate.replace()?;
    } else {
        for path in [&certificate, &key] {
            ensure!(
                !files::exists(path)?,
                "{}: exists; --force replaces it",
                path.display()
            );
        }
        write_pair(&pair, &certificate, &key)?;
    }
    say(format_args!(
        "wrote {}\nwrote {}",
        certificate.display(),
        key.display()
    ))
}

/// Writes a new pair: both files or none.
pub(crate) fn write_pair(pair: &Pair, certificate: &Path, key: &Path) -> Result<()> {
    let (staged_key, staged_certificate) = stage(pair, certificate, key)?;
    staged_key.create()?;
    staged_certificate.create().inspect_err(|_| {
        fs::remove_file(key).ok();
    })
}

/// Brings both files to the disk, so that only their names are still to come.
fn stage(pair: &Pair, certificate: &Path, key: &Path) -> Result<(Staged, Staged)> {
    let key = Staged::write_secret(key, &pair.key_pem)?;
    let certificate = Staged::write(certificate, &pair.cert_pem, 0o644)?;
    Ok((key, certificate))
}
