//! `tidegate certs`: the certificates of a config, and until when they hold.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, ensure};
use humantime::format_rfc3339_seconds;
use proxy::acme::{self, Record, Storage};
use proxy::tls::Description;
use serde_json::json;
use settings::{Document, Kind};

use crate::config::ConfigFile;
use crate::output::{note, say};

const DAY_SECS: u64 = 24 * 60 * 60;

/// The flags of `tidegate certs`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON: an array with one object per certificate.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What else there is to do with certificates.
#[derive(clap::Subcommand)]
enum Command {
    /// Import certbot's certificates for the sites with `certificate = "acme"`.
    Import(Import),
}

/// The flags of `tidegate certs import`.
#[derive(clap::Args)]
struct Import {
    #[command(flatten)]
    config: ConfigFile,
    /// Certbot's folder.
    #[arg(default_value = "/etc/letsencrypt")]
    from: PathBuf,
}

/// A certificate that sites of the config name.
struct Certificate {
    named: Named,
    /// Of one that is looked after there may be none yet.
    description: Option<Description>,
    record: Record,
}

/// What the config says of a certificate.
#[derive(Debug, Eq, PartialEq)]
struct Named {
    file: PathBuf,
    hosts: Vec<String>,
    /// The name under which it is looked after, if it is.
    managed: Option<String>,
}

/// Runs `tidegate certs`.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(Command::Import(args)) = &args.command {
        return import(args);
    }
    let now = SystemTime::now();
    let (named, storage) = named(&args.config.path)?;
    let count = named.len();
    let read = |named| read(named, &storage);
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
    for certificate in &certificates {
        certificate.warn(now);
    }
    let unreadable = count - certificates.len();
    ensure!(
        unreadable == 0,
        "{unreadable} of {count} certificates cannot be read"
    );
    let expired = certificates
        .iter()
        .filter(|certificate| certificate.expired(now));
    let expired = expired.count();
    ensure!(
        expired == 0,
        "{expired} of {count} certificates have expired"
    );
    Ok(())
}

fn import(args: &Import) -> Result<()> {
    let (named, storage) = named(&args.config.path)?;
    // Certbot has one for each host, whatever its key.
    let first = |named: &&Named| named.managed.as_ref() == Some(&Storage::site(&named.hosts));
    let managed = named.iter().filter(first);
    let mut count = 0;
    for named in managed {
        let host = named.hosts.first().map_or("", String::as_str);
        // Certbot leaves out the star in the name of a folder.
        let folder = args.from.join("live");
        let folder = folder.join(host.strip_prefix("*.").unwrap_or(host));
        let (cert, key) = (folder.join("fullchain.pem"), folder.join("privkey.pem"));
        let kept = acme::import(&storage, &named.hosts, &cert, &key)?;
        say(format_args!("{}: from {}", kept.display(), cert.display()))?;
        count += 1;
    }
    ensure!(count > 0, "there is no site whose certificate is \"acme\"");
    Ok(())
}

/// The certificates of the config with the hosts they are for; a file may serve many sites.
fn named(config: &Path) -> Result<(Vec<Named>, Storage)> {
    let mut document = Document::read(config)?;
    let mut root = document.root();
    let storage = Storage::new(proxy::read_state_dir(&mut root));
    let key_types = proxy::read_key_types(&mut root);
    let mut list: Vec<Named> = Vec::new();
    for mut site in root.tables("site") {
        let hosts: Vec<String> = site.optional("hosts").unwrap_or_default();
        let tables = match site.kind("certificate") {
            Some(Kind::String) => {
                let first = hosts.first().map_or("", String::as_str);
                let names = Storage::names(first, &key_types).into_iter();
                list.extend(names.map(|(name, _)| Named {
                    file: storage.live(&name).0,
                    hosts: hosts.clone(),
                    managed: Some(name),
                }));
                continue;
            }
            Some(Kind::Array) => site.tables("certificate"),
            _ => site.table("certificate").into_iter().collect(),
        };
        for file in tables
            .into_iter()
            .filter_map(|mut table| table.path("cert_file"))
        {
            match list.iter_mut().find(|known| known.file == file) {
                Some(known) => known.hosts.extend(hosts.clone()),
                None => list.push(Named {
                    file,
                    hosts: hosts.clone(),
                    managed: None,
                }),
            }
        }
    }
    Ok((list, storage))
}

fn read(named: Named, storage: &Storage) -> Option<Certificate> {
    let managed = named.managed.as_deref();
    let record = managed.map(|site| storage.record(site));
    let description = match Description::read(&named.file) {
        Ok(description) => Some(description),
        Err(_) if managed.is_some() && !named.file.exists() => None,
        Err(error) => {
            note(error);
            return None;
        }
    };
    Some(Certificate {
        named,
        description,
        record: record.and_then(Result::ok).unwrap_or_default(),
    })
}

impl Certificate {
    fn source(&self) -> &'static str {
        match self.named.managed {
            Some(_) => "acme",
            None => "file",
        }
    }

    fn expired(&self, now: SystemTime) -> bool {
        let description = self.description.as_ref();
        description.is_some_and(|described| described.expired(now))
    }

    /// Warns of one whose time is over soon; those that are looked after are renewed in time.
    fn warn(&self, now: SystemTime) {
        let description = self.description.as_ref();
        let description = description.filter(|_| self.named.managed.is_none());
        if let Some(left) = description.and_then(|described| described.ends_soon(now)) {
            let file = self.named.file.display();
            note(format_args!(
                "warning: {file}: expires {left}: replace it, clients will refuse it then"
            ));
        }
    }

    fn text(&self, now: SystemTime) -> String {
        let mut lines = vec![
            self.named.file.display().to_string(),
            format!("  sites    {}", self.named.hosts.join(", ")),
        ];
        match &self.description {
            Some(described) => lines.extend([
                format!("  names    {}", described.names.join(", ")),
                format!("  key      {}", described.key),
                format!("  expires  {}", when(described.not_after, now)),
                format!(
                    "  issuer   {}{}",
                    described.issuer,
                    if described.self_signed {
                        " (self-signed)"
                    } else {
                        ""
                    }
                ),
            ]),
            None => lines.push("  none yet: a self-signed placeholder is shown".to_owned()),
        }
        lines.push(match &self.record.issued {
            Some(issue) => format!("  source   {}, {}", self.source(), issue.directory),
            None => format!("  source   {}", self.source()),
        });
        if let Some(next) = self.record.next {
            lines.push(format!("  next     {}", when(next, now)));
        }
        if let Some(failure) = &self.record.failure {
            let times = failure.count;
            lines.push(format!(
                "  failed   {} ({times} in a row)",
                failure.summary()
            ));
            lines.push(format!("  advice   {}", failure.advice()));
        }
        lines.join("\n")
    }

    fn json(&self, now: SystemTime) -> serde_json::Value {
        let Named {
            file,
            hosts,
            managed,
        } = &self.named;
        let source = self.source();
        let mut fields = vec![
            ("cert_file", json!(file)),
            ("sites", json!(hosts)),
            ("source", json!(source)),
        ];
        if let Some(described) = &self.description {
            let left = described.not_after.duration_since(now);
            let expires = format_rfc3339_seconds(described.not_after).to_string();
            fields.extend([
                ("names", json!(described.names)),
                ("key", json!(described.key)),
                ("expires", json!(expires)),
                (
                    "days_left",
                    json!(left.map_or(0, |left| left.as_secs() / DAY_SECS)),
                ),
                ("expired", json!(described.expired(now))),
                ("issuer", json!(described.issuer)),
                ("self_signed", json!(described.self_signed)),
            ]);
        }
        if managed.is_some() {
            fields.push(("order", json!(self.record)));
        }
        let named = |(name, value): (&str, _)| (name.to_owned(), value);
        serde_json::Value::Object(fields.into_iter().map(named).collect())
    }
}

/// A time, and how long it is until then.
fn when(time: SystemTime, now: SystemTime) -> String {
    format!("{}, {}", format_rfc3339_seconds(time), left(time, now))
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
        let expected = Named {
            file: folder.path().join("c.pem"),
            hosts: vec!["a".to_owned(), "b".to_owned()],
            managed: None,
        };
        assert_eq!(named(&config).unwrap().0, [expected]);
    }
}
