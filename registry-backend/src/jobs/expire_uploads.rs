//! Removes uploads that nobody goes on with, and what interrupted writes left behind.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::app::App;

/// The longest time between two looks. An upload may live for this much longer than configured.
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);

/// The shortest time between two looks, for those who configure uploads that live for seconds.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Nothing is staged for longer than one request's work on storage takes.
const STAGED_FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest time to the first look, which visits every repository: after a start the disk is for
/// those who have waited for it.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// Looks now and again, for ever.
pub(crate) async fn run(app: Arc<App>) {
    let interval = |expiry: Duration| (expiry / 4).clamp(INTERVAL_MIN, INTERVAL_MAX);
    let expiry = app.settings().config.upload_expiry;
    tokio::time::sleep(interval(expiry).min(FIRST_LOOK)).await;
    loop {
        let expiry = app.settings().config.upload_expiry;
        let app = Arc::clone(&app);
        // A panic has been reported by the panic hook; the next round may fare better.
        drop(tokio::task::spawn_blocking(move || expire(&app, expiry)).await);
        tokio::time::sleep(interval(expiry)).await;
    }
}

fn expire(app: &App, expiry: Duration) {
    let registry = app.registry.name();
    let now = SystemTime::now();
    let before = |age| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    match app.registry.expire_uploads(before(expiry)) {
        Ok(0) => {}
        Ok(uploads) => tracing::info!(registry, uploads, "removed abandoned uploads"),
        Err(error) => tracing::error!(
            registry,
            error = &error as &dyn std::error::Error,
            "removal of abandoned uploads failed"
        ),
    }
    match app.registry.sweep(before(STAGED_FOR_MAX)) {
        Ok(0) => {}
        Ok(objects) => tracing::info!(
            registry,
            objects,
            "removed what interrupted writes left behind"
        ),
        Err(error) => tracing::error!(
            registry,
            error = &error as &dyn std::error::Error,
            "removal of what interrupted writes left behind failed"
        ),
    }
}
