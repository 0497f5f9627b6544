//! `tidegate certs`: the certificates of a config, and until when they hold.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, ensure};
use proxy::tls::Description;
use serde_json::json;
use settings::Document;

use crate::config::ConfigFile;
use crate::output::{note, say};

const DAY_SECS: u64 = 24 * 60 * 60;

/// The flags of `tidegate certs`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON: an array with an object for each certificate.
    #[arg(long)]
    json: bool,
}

/// A certificate that sites of the config name.
struct Certificate {
    file: PathBuf,
    hosts: Vec<String>,
    description: Description,
}

/// Runs `tidegate certs`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let now = SystemTime::now();
    let named = named(&args.config.path)?;
    let count = named.len();
    let certificates: Vec<Certificate> = named.into_iter().filter_map(read).collect();
    if args.json {
        let list: Vec<_> = certificates
            .iter()
            .map(|certificate| certificate.json(now))
            .collect();
        say(serde_json::Value::from(list))?;
    } else {
        certificates
            .iter()
            .try_for_each(|certificate| say(certificate.text(now)))?;
    }
    let unreadable = count - certificates.len();
    ensure!(
        unreadable == 0,
        "{unreadable} of {count} certificates cannot be read"
    );
    Ok(())
}

/// The certificate files of the config with the hosts they are for; a file may serve many sites.
fn named(config: &Path) -> Result<Vec<(PathBuf, Vec<String>)>> {
    let mut document = Document::read(config)?;
    let mut named: Vec<(PathBuf, Vec<String>)> = Vec::new();
    for mut site in document.root().tables("site") {
        let hosts: Vec<String> = site.optional("hosts").unwrap_or_default();
        let certificate = site.table("certificate");
        let Some(file) = certificate.and_then(|mut table| table.path("cert_file")) else {
            continue;
        };
        match named.iter_mut().find(|(known, _)| *known == file) {
            Some((_, known)) => known.extend(hosts),
            None => named.push((file, hosts)),
        }
    }
    Ok(named)
}

fn read((file, hosts): (PathBuf, Vec<String>)) -> Option<Certificate> {
    match Description::read(&file) {
        Ok(description) => Some(Certificate {
            file,
            hosts,
            description,
        }),
        Err(error) => {
            note(error);
            None
        }
    }
}

impl Certificate {
    fn text(&self, now: SystemTime) -> String {
        let Description {
            names,
            issuer,
            not_after,
            self_signed,
        } = &self.description;
        format!(
            "{}\n  sites    {}\n  names    {}\n  expires  {}, {}\n  issuer   {issuer}{}\n  source   file",
            self.file.display(),
            self.hosts.join(", "),
            names.join(", "),
            humantime::format_rfc3339_seconds(*not_after),
            left(*not_after, now),
            if *self_signed { " (self-signed)" } else { "" },
        )
    }

    fn json(&self, now: SystemTime) -> serde_json::Value {
        let Description {
            names,
            issuer,
            not_after,
            self_signed,
        } = &self.description;
        json!({
            "cert_file": self.file,
            "sites": self.hosts,
            "names": names,
            "expires": humantime::format_rfc3339_seconds(*not_after).to_string(),
            "days_left": not_after.duration_since(now).map_or(0, |left| left.as_secs() / DAY_SECS),
            "issuer": issuer,
            "self_signed": self_signed,
            "source": "file",
        })
    }
}

/// How long it is until `end`, in words.
fn left(end: SystemTime, now: SystemTime) -> String {
    match end.duration_since(now) {
        Ok(left) => format!("in {} days", left.as_secs() / DAY_SECS),
        Err(past) => format!("{} days ago", past.duration().as_secs() / DAY_SECS),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_left_is_told_in_days() {
        let now = SystemTime::now();
        let days = |days| Duration::from_secs(days * DAY_SECS);
        assert_eq!(left(now + days(30), now), "in 30 days");
        assert_eq!(left(now - days(2), now), "2 days ago");
    }

    #[test]
    fn certificate_of_several_sites_is_listed_once() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("edge.toml");
        let site = |host| {
            format!("[[site]]\nhosts = ['{host}']\ncertificate = {{ cert_file = 'c.pem' }}\n")
        };
        std::fs::write(
            &config,
            site("a") + &site("b") + "[[site]]\nhosts = ['c']\n",
        )
        .unwrap();
        let expected = vec![(
            folder.path().join("c.pem"),
            vec!["a".to_owned(), "b".to_owned()],
        )];
        assert_eq!(named(&config).unwrap(), expected);
    }
}
