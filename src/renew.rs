//! `tidegate renew`: order certificates now, by the edge that runs or by one for the occasion.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use proxy::Edge;
use proxy::acme::{self, Outcome, Pending, Renewal, Storage};
use settings::Document;

use crate::config::{self, ConfigFile, Role};
use crate::output::{note, say};

/// How often is looked whether the edge has an outcome.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The flags of `tidegate renew`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Order a test certificate and discard it; for Let's Encrypt, from its staging directory.
    #[arg(long)]
    dry_run: bool,
    /// A host of the site; by default all sites with `certificate = "acme"`.
    site: Option<String>,
}

/// Runs `tidegate renew`.
pub(crate) fn run(args: Args) -> Result<()> {
    let mut document = Document::read(&args.config.path)?;
    let storage = Storage::new(proxy::read_state_dir(&mut document.root()));
    let renewal = Renewal::new(args.site, args.dry_run);
    let pending = acme::ask(&storage, &renewal).context("ask the edge that runs")?;
    let outcomes = match pending {
        Some(pending) => wait(&pending)?,
        None => {
            note("no edge runs on this state_dir: starting one for as long as it takes");
            by_ourselves(&args.config, &storage, &renewal)?
        }
    };
    ensure!(
        !outcomes.is_empty(),
        "there is no such site whose certificate is \"acme\""
    );
    let done = if renewal.dry_run {
        "could be renewed"
    } else {
        "renewed"
    };
    for outcome in &outcomes {
        match &outcome.failure {
            None => say(format_args!("{}: {done}", outcome.site))?,
            Some(failure) => {
                note(format_args!("{}: {failure}", outcome.site));
                let advice = outcome.advice.as_deref().unwrap_or_default();
                note(format_args!("{}: {advice}", outcome.site));
            }
        }
    }
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some());
    let failed = failed.count();
    ensure!(failed == 0, "{failed} of {} failed", outcomes.len());
    Ok(())
}

/// Runs an edge until it has done what is asked for.
fn by_ourselves(file: &ConfigFile, storage: &Storage, renewal: &Renewal) -> Result<Vec<Outcome>> {
    let config = config::read(&file.path, Some(Role::Edge))?;
    if !config.edge.looks_after_certificates() {
        return Ok(Vec::new());
    }
    let edge = Edge::bind(config.edge, Vec::new(), Duration::ZERO)?;
    let handle = edge.handle();
    let serving = thread::Builder::new()
        .name("serving".to_owned())
        .spawn(move || edge.run())
        .context("start the edge")?;
    let outcomes = until(|| {
        ensure!(!serving.is_finished(), "the edge has ended");
        Ok(acme::ask(storage, renewal)?)
    })
    .and_then(|pending| wait(&pending));
    handle.drain();
    let ended = serving.join();
    let outcomes = outcomes?;
    match ended {
        Ok(ended) => drop(ended?),
        Err(_panic) => bail!("the edge panicked"),
    }
    Ok(outcomes)
}

fn wait(pending: &Pending) -> Result<Vec<Outcome>> {
    until(|| Ok(pending.outcome()?))
}

/// Looks again and again, until there is something.
fn until<T>(mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .context("start to wait")?;
    runtime.block_on(async {
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
}
