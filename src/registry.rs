//! `tidegate registry`: the registry alone, in the foreground.

use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use registry_backend::App;
use tokio::sync::oneshot;

use crate::config::{self, Role};
use crate::logging::{Logs, Prepared};
use crate::role::Args;
use crate::signals::{Request, Signals};
use crate::{notify, role};

/// Runs the registry until a signal stops it.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.die_with_supervisor()?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(serve(args))
}

async fn serve(args: &Args) -> Result<()> {
    let mut signals = Signals::listen()?;
    let config = config::read(&args.config.path, Some(Role::Registry))?;
    let registry = config.registry.context("the config has no [registry]")?;
    let logs = Logs::start(&registry.log)?;
    role::raise_file_limit();
    let app = App::open(registry.config)?;
    let listener = registry_backend::bind(&app)?;

    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let mut server = pin!(registry_backend::serve(listener, Arc::clone(&app), async {
        stopped.await.ok();
    }));
    notify::ready("serving", None);
    tracing::info!("ready");
    loop {
        let request = tokio::select! {
            outcome = &mut server => {
                outcome?;
                tracing::info!("stopped");
                return Ok(());
            }
            request = signals.next() => request,
        };
        match (request, stop.take()) {
            (Request::Reload, waiting) => {
                stop = waiting;
                role::reload(Role::Registry, "serving", None, || {
                    reload(args, &logs, &app)
                });
            }
            (Request::Stop, Some(stop)) => {
                notify::stopping();
                stop.send(()).ok();
            }
            (Request::Stop, None) => bail!("stopped before all requests were finished"),
        }
    }
}

fn reload(args: &Args, logs: &Logs, app: &App) -> Result<()> {
    let config = config::read(&args.config.path, Some(Role::Registry))?;
    let registry = config.registry.context("the config has no [registry]")?;
    let log = Prepared::open(&registry.log)?;
    app.reload(registry.config)?;
    logs.apply(log);
    Ok(())
}
