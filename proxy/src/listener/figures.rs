//! The page of all figures: the edge's own, and those of its registries, asked side by side.
//!
//! A registry that does not answer in time, or whose page cannot be read, is down, and the rest of the
//! page comes all the same.

use std::sync::Arc;

use http::StatusCode;
use oci::inquiry::METRICS;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::edge::ask;
use crate::state::State;
use crate::telemetry::exposition::{Exposition, Format};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Socket, Upstream};

/// What is known of an upstream.
enum Known {
    /// What a registry has said of itself, if it has.
    Registry(Option<Exposition>),
    /// Whether another service takes connections.
    Other(bool),
}

/// Returns the text of this moment, in about a second at most.
pub(super) async fn text(state: &State, metrics: &Arc<Metrics>, format: Format) -> Option<String> {
    let upstreams = state.upstreams.iter();
    let asked: Vec<(&str, JoinHandle<Known>)> = upstreams
        .map(|(name, upstream)| (name, tokio::spawn(ask_about(Arc::clone(upstream)))))
        .collect();
    let metrics = Arc::clone(metrics);
    let own = spawn_blocking(move || metrics.text()).await.ok()?.ok()?;
    let mut page = Exposition::read(&own)
        .inspect_err(|error| tracing::error!(%error, "the edge's own figures cannot be told"))
        .ok()?;
    let (mut registries, mut others) = (Vec::new(), Vec::new());
    for (name, known) in asked {
        match known.await.ok()? {
            Known::Registry(said) => registries.push((name, said)),
            Known::Other(up) => others.push((name, up)),
        }
    }
    let up = registries
        .iter()
        .map(|(name, said)| (*name, said.is_some()));
    page.add_gauge(
        "tidegate_registry_up",
        "Whether the registry answers the edge",
        "registry",
        up,
    );
    page.add_gauge(
        "edge_upstream_up",
        "Whether a service that is no registry takes connections, at one of its addresses at least",
        "upstream",
        others,
    );
    for (name, said) in registries {
        if let Some(said) = said {
            page.join(name, said);
        }
    }
    Some(page.write(format))
}

async fn ask_about(upstream: Arc<Upstream>) -> Known {
    match upstream.socket() {
        Some(socket) => Known::Registry(ask_registry(socket).await),
        None => Known::Other(upstream.takes_connections().await),
    }
}

async fn ask_registry(socket: &Socket) -> Option<Exposition> {
    let said = match ask(socket, METRICS).await {
        Ok((StatusCode::OK, said)) => said,
        // A registry of another version, as during an upgrade, may not know the question.
        Ok((StatusCode::NOT_FOUND, _)) => return Some(Exposition::default()),
        Ok((status, _)) => {
            tracing::debug!(socket = %socket.path.display(), %status, "a registry tells no figures");
            return None;
        }
        Err(error) => {
            tracing::debug!(socket = %socket.path.display(), %error, "a registry tells no figures");
            return None;
        }
    };
    let said = Exposition::read(str::from_utf8(&said).ok()?);
    said.inspect_err(|error| {
        tracing::warn!(socket = %socket.path.display(), %error, "a registry tells no figures");
    })
    .ok()
}
