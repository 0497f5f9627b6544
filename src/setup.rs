//! `tidegate setup`: the folder that `tidegate up` runs from.
//!
//! A file that exists is never touched. Each new one appears whole or not at all, so a set-up that
//! was interrupted goes on where it stopped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use proxy::tls::self_signed;
use serde_json::json;

use crate::config::Role;
use crate::files::{self, Staged};
use crate::folder::Folder;
use crate::given::{self, Given};
use crate::output::{complain, note, say, shell_word};
use crate::password::Password;
use crate::{gencert, htpasswd};

/// The variable that may give the password; no flag does, for other users see those.
pub(crate) const PASSWORD_VARIABLE: &str = "TIDEGATE_PASSWORD";

const USER: &str = "docker";
const HTTPS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// The flags of `tidegate setup` and `tidegate up`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder for everything: config, certificate, users and images.
    #[arg(long, env = "TIDEGATE_DIR", default_value = "tidegate-data")]
    dir: PathBuf,
    /// Address and port for HTTPS, such as 0.0.0.0:8443 [default: 127.0.0.1:8443].
    #[arg(long, env = "TIDEGATE_HTTPS", value_name = "ADDRESS", value_parser = socket_address)]
    https: Option<SocketAddr>,
    /// Address and port for plain HTTP, which is redirected to HTTPS [default: 127.0.0.1:8080].
    #[arg(long, env = "TIDEGATE_HTTP", value_name = "ADDRESS", value_parser = socket_address)]
    http: Option<SocketAddr>,
    /// A host name that clients will use; may be repeated [default: localhost].
    #[arg(long = "name", env = "TIDEGATE_NAME", value_name = "HOST", value_delimiter = ',',
          value_parser = host_name)]
    names: Vec<String>,
    /// An IP address that clients will use; may be repeated [default: `127.0.0.1` and `::1`].
    #[arg(
        long = "ip",
        env = "TIDEGATE_IP",
        value_name = "IP",
        value_delimiter = ','
    )]
    addresses: Vec<IpAddr>,
    /// The name of the first user [default: docker].
    #[arg(long, env = "TIDEGATE_USERNAME", value_name = "USER")]
    username: Option<String>,
    /// A file whose first line is that user's password; or set `TIDEGATE_PASSWORD`.
    ///
    /// Without either, a random passphrase is generated.
    #[arg(long, env = "TIDEGATE_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Args {
    fn https(&self) -> SocketAddr {
        self.https.unwrap_or(HTTPS)
    }

    fn username(&self) -> &str {
        self.username.as_deref().unwrap_or(USER)
    }

    /// The names and addresses of the site; those of this machine where none was given.
    fn hosts(&self) -> (Vec<String>, Vec<IpAddr>) {
        if !self.names.is_empty() || !self.addresses.is_empty() {
            return (self.names.clone(), self.addresses.clone());
        }
        let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let listens = self.https().ip();
        if !listens.is_unspecified() && !addresses.contains(&listens) {
            addresses.push(listens);
        }
        (vec!["localhost".to_owned()], addresses)
    }

    /// The password that was given, from the file or else the environment.
    fn password(&self) -> Result<Option<Password>> {
        if let Some(path) = &self.password_file {
            return Password::read_file(path).map(Some);
        }
        match std::env::var(PASSWORD_VARIABLE) {
            Ok(text) => Password::new(text).map(Some).context(PASSWORD_VARIABLE),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(error) => Err(error).context(PASSWORD_VARIABLE),
        }
    }
}

/// Takes an address with a port, or says how one is written.
fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_unparsed| {
        let port = text.rsplit(':').next().and_then(|port| port.parse().ok());
        let port: u16 = port.unwrap_or(8443);
        format!(
            "is not a valid address with a port, such as 127.0.0.1:{port} for this machine alone, or \
             0.0.0.0:{port} for whoever reaches it"
        )
    })
}

/// Takes a DNS name, or says why it is none.
pub(crate) fn host_name(text: &str) -> Result<String, String> {
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Err("is an address: give it with --ip".to_owned());
    }
    let bare = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if bare.len() > 253 || !bare.split('.').all(label) {
        return Err(
            "is not a valid host name (letters, digits, \"-\" and \".\"; no port)".to_owned(),
        );
    }
    Ok(text.to_ascii_lowercase())
}

/// Runs `tidegate setup`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let report = write(args)?;
    for (path, outcome) in &report.files {
        let verb = if *outcome == Outcome::Wrote {
            "wrote"
        } else {
            "kept"
        };
        say(format_args!("{verb} {}", path.display()))?;
    }
    say(format_args!(
        "start it with: tidegate up --dir {}",
        shell_word(&args.dir)
    ))
}

/// Sets up what is missing, for `tidegate up`, and says so only if something was.
pub(crate) fn prepare(args: &Args) -> Result<Folder> {
    let report = write(args)?;
    if report
        .files
        .iter()
        .any(|(_, outcome)| *outcome == Outcome::Wrote)
    {
        note(format_args!("set up {}", report.folder.path().display()));
    }
    Ok(report.folder)
}

struct Report {
    folder: Folder,
    files: Vec<(PathBuf, Outcome)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Kept,
    Wrote,
}

/// Writes what is missing; everything given is judged before the first file.
fn write(args: &Args) -> Result<Report> {
    htpasswd::check_user(args.username())?;
    let given = args.password()?;
    let (http, https) = (args.http.unwrap_or(HTTP), args.https());
    ensure!(
        http != https || http.port() == 0,
        "--http and --https are both {http}"
    );

    let folder = Folder::new(&args.dir)?;
    refuse_what_would_be_ignored(&folder, args, given.as_ref())?;
    folder.create()?;
    let _lock = files::lock(folder.path())?;
    let run = folder.run_directory()?;

    let (names, addresses) = args.hosts();
    let mut files = Vec::new();
    let pair = write_pair(&folder, &names, &addresses)?;
    files.extend([(folder.certificate(), pair), (folder.key(), pair)]);
    files.extend(write_users(&folder, args, given)?);
    let listeners = [(http, false), (https, true)];
    let text = config_text(listeners, &hosts(&names, &addresses), folder.path(), &run)?;
    files.push((folder.config(), write_config(&folder, &text)?));
    Ok(Report { folder, files })
}

fn write_pair(folder: &Folder, names: &[String], addresses: &[IpAddr]) -> Result<Outcome> {
    let (certificate, key) = (folder.certificate(), folder.key());
    match (files::exists(&certificate)?, files::exists(&key)?) {
        (true, true) => return Ok(Outcome::Kept),
        (false, false) => {}
        (there, _) => {
            let (there, gone) = if there {
                (certificate, key)
            } else {
                (key, certificate)
            };
            bail!(
                "{} is there but {} is not: bring it back, or remove the first for a new pair",
                there.display(),
                gone.display()
            );
        }
    }
    let pair = self_signed::generate(names, addresses)?;
    gencert::write_pair(&pair, &certificate, &key)?;
    Ok(Outcome::Wrote)
}

/// Writes the password and the htpasswd file that goes with it.
fn write_users(
    folder: &Folder,
    args: &Args,
    given: Option<Password>,
) -> Result<Vec<(PathBuf, Outcome)>> {
    let (htpasswd, file, user) = (folder.htpasswd(), folder.password(), args.username());
    let kept = files::exists(&file)?;
    if files::exists(&htpasswd)? {
        let password = kept.then_some((file, Outcome::Kept));
        return Ok(password
            .into_iter()
            .chain([(htpasswd, Outcome::Kept)])
            .collect());
    }
    // The password first: the htpasswd file can be made from it, but not the other way round.
    let password = match given {
        _ if kept => Password::read_file(&file)?,
        Some(password) => password,
        None => Password::random()?,
    };
    if !kept {
        Staged::write(&file, format!("{}\n", password.reveal()).as_bytes(), 0o600)?.create()?;
    }
    let entry = htpasswd::entry(user, &password)?;
    Staged::write(&htpasswd, entry.as_bytes(), 0o600)?.create()?;
    let outcome = if kept { Outcome::Kept } else { Outcome::Wrote };
    Ok(vec![(file, outcome), (htpasswd, Outcome::Wrote)])
}

/// Refuses flags that would change nothing, for what they are about is there already and says otherwise:
/// nobody is to think that it counts.
fn refuse_what_would_be_ignored(
    folder: &Folder,
    args: &Args,
    given: Option<&Password>,
) -> Result<()> {
    let (config, htpasswd, user) = (folder.config(), folder.htpasswd(), args.username());
    let mut ignored = Vec::new();
    if files::exists(&config)? {
        let given = Given {
            http: args.http,
            https: args.https,
            hosts: &hosts(&args.names, &args.addresses),
        };
        ignored = given::differences(&config, &given)?;
    }
    if files::exists(&htpasswd)? && !is_as_given(&htpasswd, args, given)? {
        ignored.push(format!(
            "{user} cannot log in as given: tidegate htpasswd add {} {user}",
            shell_word(&htpasswd)
        ));
    }
    ignored.iter().for_each(complain);
    ensure!(
        ignored.is_empty(),
        "{} is set up already, and what is there is never touched",
        folder.path().display()
    );
    Ok(())
}

/// Whether an htpasswd file that is kept agrees with the user and the password that were given.
fn is_as_given(htpasswd: &Path, args: &Args, given: Option<&Password>) -> Result<bool> {
    match (given, &args.username) {
        (Some(password), _) => htpasswd::lets_in(htpasswd, args.username(), password),
        (None, Some(user)) => htpasswd::knows(htpasswd, user),
        (None, None) => Ok(true),
    }
}

fn write_config(folder: &Folder, text: &str) -> Result<Outcome> {
    let path = folder.config();
    if files::exists(&path)? {
        return Ok(Outcome::Kept);
    }
    Staged::write(&path, text.as_bytes(), 0o644)?.create()?;
    Ok(Outcome::Wrote)
}

/// The hosts of the site, as a client writes them.
fn hosts(names: &[String], addresses: &[IpAddr]) -> Vec<String> {
    let addresses = addresses.iter().map(|address| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    });
    names.iter().cloned().chain(addresses).collect()
}

/// Writes a listener, and for 127.0.0.1 the same on `::1`, where there is IPv6: `localhost` is both.
fn listener_text((address, tls): (SocketAddr, bool)) -> String {
    let also = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
    let is_there = || TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let is_local = address.ip() == Ipv4Addr::LOCALHOST && address.port() != 0;
    let also = (is_local && is_there()).then_some(also);
    let listeners = [address].into_iter().chain(also).map(|address| {
        let rest = match tls {
            true => "\ntls = true",
            false => "                 # plain HTTP: redirects to TLS, nothing else",
        };
        format!("[[listener]]\naddress = \"{address}\"{rest}\n")
    });
    listeners.collect::<Vec<_>>().join("\n")
}

fn config_text(
    listeners: [(SocketAddr, bool); 2],
    hosts: &[String],
    folder: &Path,
    run: &Path,
) -> Result<String> {
    let listeners = listeners.map(listener_text).join("\n");
    // In the folder itself it is named as all else there is, so that the folder can be moved.
    let run = run.strip_prefix(folder).unwrap_or(run);
    let run = run
        .to_str()
        .with_context(|| format!("{}: not UTF-8", run.display()))?;
    // A text as JSON writes it is one of TOML too.
    let listen = json!(format!("unix:{run}/registry.sock"));
    let controls = [Role::Edge, Role::Registry];
    let [edge_control, registry_control] =
        controls.map(|role| json!(format!("{run}/{role}.control")));
    let hosts: Vec<String> = hosts.iter().map(|host| json!(host).to_string()).collect();
    let hosts = hosts.join(", ");
    Ok(format!(
        r#"# Written once by `tidegate setup`; it is yours to edit. conf/edge.toml in the sources (after
# `make install`: /usr/local/share/doc/tidegate/edge.toml) explains every key there is.
# Paths are relative to the folder of this file. `tidegate check --config FILE` says whether all is
# well; `tidegate reload --config FILE` has the roles that run apply a change.

control_socket = {edge_control}

{listeners}
[[site]]
hosts = [{hosts}]
certificate = {{ cert_file = "tls/cert.pem", key_file = "tls/key.pem" }}
upstream = "registry"

[site.auth]
realm = "Tidegate"
htpasswd_file = "auth/htpasswd"           # users: tidegate htpasswd add FILE USER

[registry]
listen = {listen}
control_socket = {registry_control}

[registry.storage]
filesystem = {{ root = "registry" }}        # holds docker/registry/v2/…
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_names_and_no_addresses() {
        assert_eq!(
            host_name("Registry.Example.COM"),
            Ok("registry.example.com".to_owned())
        );
        assert_eq!(host_name("*.example.com"), Ok("*.example.com".to_owned()));
        for bad in [
            "", "10.0.0.1", "[::1]", "::1", "a b", "a..b", "-a", "host:443", "a/b", "*",
        ] {
            assert!(host_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_without_a_host_or_a_port_is_told_how_it_is_written() {
        assert_eq!(socket_address("[::]:1"), Ok("[::]:1".parse().unwrap()));
        for (text, example) in [
            (":9000", "127.0.0.1:9000"),
            ("9000", "127.0.0.1:9000"),
            ("localhost:9000", "0.0.0.0:9000"),
            ("127.0.0.1", "127.0.0.1:8443"),
        ] {
            let told = socket_address(text).unwrap_err();
            assert!(told.contains(example), "{text}: {told}");
        }
    }

    #[test]
    fn hosts_are_written_as_clients_write_them() {
        let addresses = ["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(
            hosts(&["a.b".to_owned()], &addresses),
            ["a.b", "10.0.0.1", "[::1]"]
        );
    }
}
