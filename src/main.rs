//! Tidegate's command line: each verb is a file, and this one is their list.
//!
//! Only this package prints, ends the process, or knows both roles.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::Role;

mod access;
mod banner;
mod certs;
mod check;
mod config;
mod control;
mod descriptors;
mod edge;
mod examination;
mod eyes;
mod files;
mod folder;
mod gencert;
mod generations;
mod given;
mod htpasswd;
mod journal;
mod kept_password;
mod logging;
mod look;
mod notify;
mod outcome;
mod output;
mod password;
mod registry;
mod reload;
mod renew;
mod role;
mod setup;
mod signals;
mod supervise;
mod token;
mod unit;
mod up;
mod upgrade;

// A request is hundreds of small allocations, OpenSSL's among them, on whatever thread is free: what
// glibc takes for them shows in what a request costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A private container registry with its own TLS edge.
///
/// `tidegate up` sets up a registry in a folder and runs it. On a server, the systemd units run
/// `tidegate edge` and `tidegate registry`, each as its own user.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 success, 1 failure, 2 usage error; for edge and registry also 78, invalid config."
)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the edge and the registry from a folder, after setting it up if it is new.
    Up(setup::Args),
    /// Set up a folder for `up`: config, certificate, user. Never overwrites a file.
    Setup(setup::Args),
    /// Check a config and the files it refers to, and print every problem.
    Check(check::Args),
    /// Make the running edge and registry reload their config, and print the outcome.
    Reload(reload::Args),
    /// Replace the running edge and registry with the program on disk, without closing a socket.
    Upgrade(upgrade::Args),
    /// Explain who may do what under a config.
    #[command(subcommand)]
    Access(access::Command),
    /// List the certificates in a config, with their names, expiry and source.
    Certs(certs::Args),
    /// Renew certificates from the ACME CA now, through the running edge if there is one.
    Renew(renew::Args),
    /// Create a self-signed certificate and its key.
    Gencert(gencert::Args),
    /// Manage the users and passwords in an htpasswd file.
    #[command(subcommand)]
    Htpasswd(htpasswd::Command),
    /// Manage robots (accounts for programs) and the refresh tokens of `docker login`.
    #[command(subcommand)]
    Token(token::Command),
    /// Run the edge in the foreground. SIGTERM drains and stops it, SIGHUP reloads the config.
    Edge(role::Args),
    /// Run the registry in the foreground. SIGTERM drains and stops it, SIGHUP reloads the config.
    Registry(role::Args),
    /// Commands that the systemd units run when they stop or restart a role.
    #[command(subcommand, hide = true)]
    Unit(unit::Command),
}

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => return misused(&error),
    };
    let done = match line.verb {
        Verb::Up(args) => return up::run(&args).unwrap_or_else(|error| failed(&error)),
        Verb::Access(command) => {
            return access::run(command).unwrap_or_else(|error| failed(&error));
        }
        Verb::Reload(args) => return reload::run(&args).unwrap_or_else(|error| failed(&error)),
        Verb::Upgrade(args) => return upgrade::run(&args).unwrap_or_else(|error| failed(&error)),
        Verb::Setup(args) => setup::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Certs(args) => certs::run(&args),
        Verb::Renew(args) => renew::run(args),
        Verb::Gencert(args) => gencert::run(&args),
        Verb::Htpasswd(command) => htpasswd::run(&command),
        Verb::Token(command) => token::run(command),
        Verb::Unit(command) => unit::run(&command),
        Verb::Edge(args) if args.supervise => return supervised(Role::Edge, &args),
        Verb::Registry(args) if args.supervise => return supervised(Role::Registry, &args),
        Verb::Edge(args) => {
            let config = args.config.path.clone();
            return role::exit_code(edge::run(args), &config);
        }
        Verb::Registry(args) => {
            return role::exit_code(registry::run(&args), &args.config.path);
        }
    };
    done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn supervised(role: Role, args: &role::Args) -> ExitCode {
    supervise::run(role, args).unwrap_or_else(|error| failed(&error))
}

/// Prints what is wrong with the arguments, or what they have asked for, as `--help` does.
fn misused(error: &clap::Error) -> ExitCode {
    // Nobody may be listening.
    error.print().ok();
    let verb = std::env::args_os().nth(1);
    if error.kind() == ErrorKind::UnknownArgument && verb.is_some_and(|verb| verb == "htpasswd") {
        output::note(htpasswd::USAGE);
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    output::report(error);
    ExitCode::FAILURE
}
