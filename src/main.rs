//! Tidegate's command line: each verb is a file, and this one is their list.
//!
//! Only this package prints, ends the process, or knows both roles.

use std::process::ExitCode;

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

/// A private container registry behind its own TLS edge.
///
/// `tidegate up` sets one up in a folder and runs it. For a server, see the systemd units: they run
/// `tidegate edge` and `tidegate registry`, each as a user of its own.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage; of a role also 78, the config is bad."
)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Set up a folder where it is new, and run the edge and the registry from it.
    Up(setup::Args),
    /// Write what `up` needs into a folder: config, certificate, user; never overwrite a file.
    Setup(setup::Args),
    /// Check a config and all that it names; print every problem.
    Check(check::Args),
    /// Have the running edge and registry reload their config, and print the outcome.
    Reload(reload::Args),
    /// Have the running edge and registry replaced by the program on disk, without closing a socket.
    Upgrade(upgrade::Args),
    /// Ask what a config lets whom do.
    #[command(subcommand)]
    Access(access::Command),
    /// List the certificates of a config: their names, expiry and source.
    Certs(certs::Args),
    /// Order certificates from the CA now; the edge that runs does it, if there is one.
    Renew(renew::Args),
    /// Make a self-signed certificate and its key.
    Gencert(gencert::Args),
    /// Manage who may log in.
    #[command(subcommand)]
    Htpasswd(htpasswd::Command),
    /// Manage robots, and the refresh tokens that logins were given.
    #[command(subcommand)]
    Token(token::Command),
    /// Run the edge in the foreground; SIGTERM drains it, SIGHUP reloads the config.
    Edge(role::Args),
    /// Run the registry in the foreground; SIGTERM drains it, SIGHUP reloads the config.
    Registry(role::Args),
    /// What the systemd units run around a stop.
    #[command(subcommand, hide = true)]
    Unit(unit::Command),
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().verb {
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

fn failed(error: &anyhow::Error) -> ExitCode {
    output::report(error);
    ExitCode::FAILURE
}
