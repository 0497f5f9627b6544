//! `tidegate access explain`: who may do what, and which rule says so.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use anyhow::Result;
use oci::RepositoryName;
use proxy::explain::{Answer, Asker, Question};

use crate::config::{self, ConfigFile, Role};
use crate::output::{note, say};

/// What there is to ask about access.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Explain whether a request would be allowed, and which rule decides.
    ///
    /// Exits with 0 if it is allowed and with 1 if it is denied. It reads the config and needs no
    /// running edge.
    Explain(Args),
}

/// The flags of `tidegate access explain`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// A user of the htpasswd file. Without this and --certificate, the request is anonymous.
    #[arg(long, value_name = "NAME", conflicts_with = "certificate")]
    user: Option<String>,
    /// The principal of a client certificate.
    #[arg(long, value_name = "NAME")]
    certificate: Option<String>,
    /// An organizational unit (OU) of that certificate; may be repeated.
    #[arg(long, value_name = "OU", requires = "certificate")]
    group: Vec<String>,
    /// The action: pull, push, delete or catalog.
    #[arg(long)]
    action: String,
    /// The repository; not needed for the action catalog.
    #[arg(long, value_name = "NAME")]
    repository: Option<RepositoryName>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    /// A host of the site; by default the first site in front of a registry.
    #[arg(long, value_name = "HOST")]
    site: Option<String>,
}

/// Runs `tidegate access`.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    let Command::Explain(args) = command;
    let config = config::read(&args.config.path, Some(Role::Edge))?;
    let asker = match (args.user, args.certificate) {
        (Some(user), _) => Asker::User(user),
        (None, Some(name)) => Asker::Certificate {
            name,
            groups: args.group,
        },
        (None, None) => Asker::Anonymous,
    };
    let answer = config.edge.explain(&Question {
        host: args.site,
        asker,
        from: args.from,
        action: args.action,
        repository: args.repository,
    })?;
    for odd in &answer.notes {
        note(format_args!("note: {odd}"));
    }
    say(format_args!("{}", sentence(&answer)))?;
    Ok(if answer.allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn sentence(answer: &Answer) -> String {
    let site = &answer.site;
    match (answer.allowed, &answer.because) {
        (true, Some(rule)) => format!("allowed by {rule}"),
        (true, None) => format!("allowed: {site} has no rules"),
        (false, because) => {
            let because = because.as_deref().unwrap_or(site);
            let log_in = if answer.log_in {
                " (would be asked to log in)"
            } else {
                ""
            };
            format!("denied by {because}{log_in}")
        }
    }
}
