//! Removes uploads that nobody goes on with, and what interrupted writes left behind.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::app::App;

/// How often to look. An upload may thus live for this much longer than configured.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Nothing is staged for longer than one request's work on storage takes.
const STAGED_FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Looks now and every hour, for ever.
pub(crate) async fn run(app: Arc<App>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        let app = Arc::clone(&app);
        // A panic has been reported by the panic hook; the next round may fare better.
        drop(tokio::task::spawn_blocking(move || expire(&app)).await);
    }
}

fn expire(app: &App) {
    let now = SystemTime::now();
    let before = |age| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let expiry = app.settings().config.upload_expiry;
    match app.registry.expire_uploads(before(expiry)) {
        Ok(0) => {}
        Ok(uploads) => tracing::info!(uploads, "removed abandoned uploads"),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "removal of abandoned uploads failed"
        ),
    }
    match app.registry.sweep(before(STAGED_FOR_MAX)) {
        Ok(0) => {}
        Ok(objects) => tracing::info!(objects, "removed what interrupted writes left behind"),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "removal of what interrupted writes left behind failed"
        ),
    }
}
