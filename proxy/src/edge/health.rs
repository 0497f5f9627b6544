//! Whether this process is alive, and whether requests are well sent to it.
//!
//! Health is for whoever sends traffic here, and needs no password: so it says little, and costs little.
//! What a registry says is asked once for all who want to know within a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use oci::inquiry::READY;
use tokio::sync::watch;

use super::relay::ask;
use crate::respond::Reply;
use crate::site::Site;
use crate::state::Current;
use crate::upstream::{Readiness, Upstream};

/// For how long what a registry has said is good enough.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// How much of what a registry says goes on.
const LINES_MAX: usize = 8;
const LINE_CHARS_MAX: usize = 200;

const TEXT: &str = "text/plain; charset=utf-8";

/// What is asked about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Probe {
    /// `/healthz`: this process runs.
    Alive,
    /// `/readyz`: requests can be served.
    Ready,
}

impl Probe {
    /// Returns what a request asks about, if that is what it does.
    pub(crate) fn of(parts: &Parts) -> Option<Self> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return None;
        }
        match parts.uri.path() {
            "/healthz" => Some(Self::Alive),
            "/readyz" => Some(Self::Ready),
            _ => None,
        }
    }
}

/// Knows how the edge and its registries are.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub(crate) current: Arc<Current>,
    /// True once the edge is to stop.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Health {
    /// Answers on a site, which is served by one registry at most, and in as few words as there are.
    pub(super) async fn answer(&self, probe: Probe, site: &Site) -> Reply {
        let is_well = match probe {
            Probe::Alive => true,
            Probe::Ready => {
                self.own_problems().is_empty()
                    && readiness(Arc::clone(&site.upstream)).await.is_empty()
            }
        };
        if is_well {
            Reply::page(StatusCode::OK, TEXT, Bytes::from_static(b"ok\n"))
        } else {
            let said = Bytes::from_static(b"not ready\n");
            Reply::page(StatusCode::SERVICE_UNAVAILABLE, TEXT, said)
        }
    }

    /// Answers an operator, who is told what is wrong.
    pub(crate) async fn explain(&self, probe: Probe) -> (StatusCode, String) {
        let problems = match probe {
            Probe::Alive => Vec::new(),
            Probe::Ready => self.problems().await,
        };
        if problems.is_empty() {
            (StatusCode::OK, "ok\n".to_owned())
        } else {
            let text = problems.join("\n") + "\n";
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }

    /// Returns a line for each reason not to send requests here; the registries are asked side by side.
    async fn problems(&self) -> Vec<String> {
        let state = self.current.take();
        let registries = state.upstreams.iter();
        let registries = registries.filter(|(_, upstream)| upstream.is_registry());
        let asked: Vec<_> = registries
            .map(|(name, upstream)| (name, tokio::spawn(readiness(Arc::clone(upstream)))))
            .collect();
        let mut problems = self.own_problems();
        for (name, said) in asked {
            let said = said.await.unwrap_or_default();
            problems.extend(said.iter().map(|line| format!("registry {name:?}: {line}")));
        }
        problems
    }

    /// Returns whether the edge finishes its requests and then ends.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    fn own_problems(&self) -> Vec<String> {
        let stops = self.is_stopping().then_some("edge: is stopping");
        let refused = !instruments::is_config_in_force();
        let refused = refused.then_some("edge: the last reload was refused");
        let problems = stops.into_iter().chain(refused);
        problems.map(str::to_owned).collect()
    }
}

/// Returns why a registry is not ready, a line for each reason; of another service nothing is known.
async fn readiness(upstream: Arc<Upstream>) -> Arc<[String]> {
    let Some(socket) = upstream.socket() else {
        return Arc::default();
    };
    let mut last = Arc::clone(&socket.readiness).lock_owned().await;
    if let Some(Readiness { at, problems }) = &*last
        && at.elapsed() < GOOD_FOR
    {
        return Arc::clone(problems);
    }
    // In a task of its own, so that whoever goes away meanwhile leaves the answer to the others.
    let asking = tokio::spawn(async move {
        let problems: Arc<[String]> = match upstream.socket() {
            Some(socket) => match ask(socket, READY).await {
                // A registry of another version, as during an upgrade, may not know the question.
                Ok((StatusCode::OK | StatusCode::NOT_FOUND, _)) => Arc::default(),
                Ok((StatusCode::SERVICE_UNAVAILABLE, said)) => lines(&said).into(),
                Ok((status, _)) => [format!("answers {status}")].into(),
                Err(unanswered) => [unanswered.to_string()].into(),
            },
            None => Arc::default(),
        };
        *last = Some(Readiness {
            at: Instant::now(),
            problems: Arc::clone(&problems),
        });
        problems
    });
    asking.await.unwrap_or_default()
}

/// Returns what a registry says, as far as it can be passed on; there is always a line.
fn lines(said: &[u8]) -> Vec<String> {
    let said = String::from_utf8_lossy(said);
    let clean = |line: &str| -> String {
        let chars = line.chars().filter(|char| !char.is_control());
        chars.take(LINE_CHARS_MAX).collect()
    };
    let lines: Vec<String> = said.lines().take(LINES_MAX).map(clean).collect();
    if lines.is_empty() {
        vec!["is not ready".to_owned()]
    } else {
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_is_cut_and_cleaned() {
        assert_eq!(lines(b""), ["is not ready"]);
        let long = "x".repeat(10_000);
        let said = format!("full\u{1b}[31m\n{long}\n{}", "y\n".repeat(100));
        let lines = lines(said.as_bytes());
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(lines[0], "full[31m");
        assert_eq!(lines[1].len(), LINE_CHARS_MAX);
    }
}
