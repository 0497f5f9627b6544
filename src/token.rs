//! `tidegate token`: robots, and the refresh tokens that `docker login` keeps.
//!
//! All of it is files in the edge's state directory, which the running edge looks at when it is asked to,
//! and every second anyway: nothing needs a restart, and what is revoked is gone.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use proxy::robots::Robot;
use proxy::state_dir::StateDir;
use proxy::{LastUsed, Session};
use serde_json::{Value, json};
use settings::Document;

use crate::config::ConfigFile;
use crate::look;
use crate::output::{hint_at_root, note, say};

/// What to do with robots and sessions.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create a robot: a name and a secret for a program, which may do only what is given here.
    ///
    /// The secret is printed once, on stdout. Use it as the password of `docker login -u NAME`.
    Create(Create),
    /// List the robots.
    List(List),
    /// Revoke a robot; the running edge refuses it from then on.
    Revoke {
        #[command(flatten)]
        config: ConfigFile,
        /// The robot's name.
        name: String,
    },
    /// List the refresh tokens that `docker login` stores instead of a password.
    Sessions(List),
    /// Revoke refresh tokens, so that their users have to log in again.
    EndSessions(End),
    /// Print the certificates of the keys that sign tokens, for the `rootcertbundle` of another
    /// registry that accepts these tokens.
    Certificates {
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// The flags of `tidegate token create`.
#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    config: ConfigFile,
    /// The robot's name: letters, digits, ".", "_" and "-".
    name: String,
    /// The repositories it may use, as a glob such as `team/**`; may be repeated.
    #[arg(long = "repository", value_name = "GLOB", required = true)]
    repositories: Vec<String>,
    /// An action that it may take there: pull, push, delete, catalog, or * for all; may be repeated.
    #[arg(
        long = "action",
        value_name = "ACTION",
        value_delimiter = ',',
        required = true
    )]
    actions: Vec<String>,
    /// A host of a site where it may log in; may be repeated [default: all registry sites].
    #[arg(long = "site", value_name = "HOST")]
    sites: Vec<String>,
    /// How long it is valid: 90d, 12h, or never.
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = lifetime)]
    expires: Lifetime,
    /// A description, shown in the list of robots.
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
}

/// The flags of what lists.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON: an array with one object per entry.
    #[arg(long)]
    json: bool,
}

/// The flags of `tidegate token end-sessions`.
#[derive(Args)]
#[group(required = true, multiple = false, args = ["ids", "user", "all"])]
pub(crate) struct End {
    #[command(flatten)]
    config: ConfigFile,
    /// Session ids, as listed by `tidegate token sessions`.
    ids: Vec<String>,
    /// Revoke all sessions of this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Revoke all sessions of all users.
    #[arg(long)]
    all: bool,
}

/// For how long a robot is let in; `None` is for ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Lifetime(Option<Duration>);

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => Err("is not a valid time: it would end at once".to_owned()),
        Ok(time) => Ok(Lifetime(Some(time))),
        Err(_) => Err("is not a valid time (write it as \"90d\", \"12h\" or \"never\")".to_owned()),
    }
}

/// Runs `tidegate token`.
pub(crate) fn run(command: Command) -> Result<()> {
    hint_at_root(obey(command))
}

fn obey(command: Command) -> Result<()> {
    match command {
        Command::Create(args) => create(args),
        Command::List(args) => list(&args),
        Command::Revoke { config, name } => {
            Robot::revoke(&open(&config)?.0, &name)?;
            look::edge(&config.path);
            Ok(())
        }
        Command::Sessions(args) => sessions(&args),
        Command::EndSessions(args) => {
            end(&args)?;
            look::edge(&args.config.path);
            Ok(())
        }
        Command::Certificates { config } => {
            let path = open(&config)?.0.path().join("tokens/certificates.pem");
            let pem = match fs::read_to_string(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    bail!("there is no key yet: the edge makes one when a site hands out tokens")
                }
                other => other.with_context(|| format!("read {}", path.display()))?,
            };
            say(pem.trim_end())
        }
    }
}

/// Finds the state directory and the hosts of a config, whatever else is wrong with it: a robot must
/// be revocable at any time.
fn open(config: &ConfigFile) -> Result<(StateDir, Vec<String>)> {
    let mut document = Document::read(&config.path)?;
    let mut root = document.root();
    let state = proxy::read_state_dir(&mut root);
    let hosts = proxy::read_hosts(&mut root);
    Ok((state, hosts))
}

fn create(args: Create) -> Result<()> {
    let (state, hosts) = open(&args.config)?;
    for site in &args.sites {
        ensure!(
            hosts.contains(site),
            "{site:?}: is not a host of a site of {}",
            args.config.path.display()
        );
    }
    let now = seconds(SystemTime::now());
    let mut robot = Robot::new(&args.name, args.repositories, args.actions, now)?;
    robot.sites = args.sites;
    robot.description = args.description;
    robot.expires = args
        .expires
        .0
        .map(|time| now.saturating_add(time.as_secs()));
    let fresh = !state.path().exists();
    let secret = robot.keep(&state)?;
    if fresh && rustix::process::geteuid().is_root() {
        note(format_args!(
            "{} is new: it must belong to the edge's user",
            state.path().display()
        ));
    }
    look::edge(&args.config.path);
    note(format_args!(
        "robot {} can log in with this, which is not shown again:",
        args.name
    ));
    say(secret.reveal())
}

fn list(args: &List) -> Result<()> {
    let (state, _) = open(&args.config)?;
    let used = LastUsed::read(&state)
        .with_context(in_folder("read when robots were last used", &state))?;
    let now = seconds(SystemTime::now());
    let (robots, damaged) = Robot::list(&state)?;
    for error in damaged {
        note(format_args!("warning: {error}"));
    }
    let last_used = |robot: &Robot| used.robots.get(&robot.name).copied();
    if args.json {
        let object = |robot: &Robot| {
            json!({
                "name": robot.name,
                "sites": robot.sites,
                "repositories": robot.repositories,
                "actions": robot.actions,
                "description": robot.description,
                "created": date(robot.created),
                "expires": robot.expires.map(date),
                "expired": robot.is_over(now),
                "last_used": last_used(robot).map(date),
            })
        };
        return say(Value::from(robots.iter().map(object).collect::<Vec<_>>()));
    }
    for robot in &robots {
        let sites = match robot.sites.is_empty() {
            true => "all".to_owned(),
            false => robot.sites.join(", "),
        };
        let over = if robot.is_over(now) { ", over" } else { "" };
        let expires = robot.expires.map_or_else(|| "never".to_owned(), date);
        let used = last_used(robot).map_or_else(|| "never".to_owned(), date);
        let mut text = format!(
            "{}\n  may        {} in {}\n  sites      {sites}\n  expires    {expires}{over}\n  last used  {used}",
            robot.name,
            robot.actions.join(", "),
            robot.repositories.join(", "),
        );
        if !robot.description.is_empty() {
            text += &format!("\n  for        {}", robot.description);
        }
        say(text)?;
    }
    Ok(())
}

fn sessions(args: &List) -> Result<()> {
    let (state, _) = open(&args.config)?;
    let used = LastUsed::read(&state)
        .with_context(in_folder("read when sessions were last used", &state))?;
    let sessions = Session::list(&state).with_context(in_folder("read the sessions", &state))?;
    let last_used = |id: &str| used.sessions.get(id).copied();
    if args.json {
        let object = |(id, session): &(String, Session)| {
            json!({
                "id": id,
                "user": session.user,
                "service": session.service,
                "client": session.client,
                "address": session.address,
                "created": date(session.created),
                "expires": date(session.expires),
                "last_used": last_used(id).map(date),
            })
        };
        return say(Value::from(sessions.iter().map(object).collect::<Vec<_>>()));
    }
    for (id, session) in &sessions {
        let Session {
            user,
            service,
            client,
            address,
            created,
            expires,
            ..
        } = session;
        let used = last_used(id).map_or_else(|| "never".to_owned(), date);
        say(format_args!(
            "{id}\n  user       {user}\n  service    {service}\n  login      {} from {address} by {client}\n  \
             expires    {}\n  last used  {used}",
            date(*created),
            date(*expires),
        ))?;
    }
    Ok(())
}

fn end(args: &End) -> Result<()> {
    let (state, _) = open(&args.config)?;
    if let Some(user) = &args.user {
        let ended = Session::revoke(&state, |_, session| session.user == *user);
        return say(format_args!(
            "ended {}",
            ended.with_context(in_folder("end the sessions", &state))?
        ));
    }
    let wanted = |id: &str, _: &Session| args.all || args.ids.iter().any(|wanted| wanted == id);
    let ended =
        Session::revoke(&state, wanted).with_context(in_folder("end the sessions", &state))?;
    ensure!(
        args.all || ended == args.ids.len(),
        "ended {ended} of {}: there are no others of these ids",
        args.ids.len()
    );
    say(format_args!("ended {ended}"))
}

/// Says what cannot be done in which folder.
fn in_folder(what: &str, state: &StateDir) -> impl FnOnce() -> String {
    let text = format!("{what} in {}", state.path().display());
    || text
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn date(seconds: u64) -> String {
    // As far ahead as dates are written with four digits.
    let end = 253_402_300_799;
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(end));
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_as_people_write_them() {
        let days = |days: u64| Lifetime(Some(Duration::from_secs(days * 24 * 60 * 60)));
        assert_eq!(lifetime("90d"), Ok(days(90)));
        assert_eq!(lifetime("never"), Ok(Lifetime(None)));
        for wrong in ["", "90", "0s", "soon"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn dates_are_those_of_the_internet() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
