//! What a handshake leaves behind for the requests that come after it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client_auth::{ClientAuth, Shown};
use crate::auth::certificate::{ClientCertificate, Verdict};

/// How long a verdict holds: a certificate may expire while its connection is kept.
const VERDICT_HOLDS: Duration = Duration::from_secs(60);

/// What a connection's handshake was about.
#[derive(Debug)]
pub(crate) struct Handshake {
    server_name: Option<Box<str>>,
    /// Whether a certificate was asked for.
    asked: bool,
    shown: Option<Shown>,
    judged: Mutex<Option<Judged>>,
}

/// A certificate, by the files of one moment.
#[derive(Debug)]
struct Judged {
    generation: u64,
    at: Instant,
    certificate: Arc<ClientCertificate>,
}

impl Handshake {
    /// One at which nobody was asked for a certificate.
    pub(super) fn unasked(server_name: Option<Box<str>>) -> Self {
        Self {
            server_name,
            asked: false,
            shown: None,
            judged: Mutex::default(),
        }
    }

    /// One at which the client was asked, and has shown this.
    pub(super) fn asked(server_name: Option<Box<str>>, shown: Option<Shown>) -> Self {
        Self {
            asked: true,
            shown,
            ..Self::unasked(server_name)
        }
    }

    /// Adds what was found in the handshake itself, by the files of `generation`.
    pub(super) fn judged(mut self, generation: u64, verdict: Verdict) -> Self {
        let judged = self.shown.as_ref().map(|shown| Judged {
            generation,
            at: Instant::now(),
            certificate: Arc::new(shown.describe(verdict)),
        });
        self.judged = Mutex::new(judged);
        self
    }

    /// Returns the name that the client asked for.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Returns whether the client was asked for a certificate.
    pub(crate) fn has_asked(&self) -> bool {
        self.asked
    }

    /// Returns the certificate that the client has shown, verified by what `clients` says now.
    pub(crate) fn certificate(&self, clients: &ClientAuth) -> Option<Arc<ClientCertificate>> {
        let shown = self.shown.as_ref()?;
        let generation = clients.generation();
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(judged) = &*judged
            && judged.generation == generation
            && judged.at.elapsed() < VERDICT_HOLDS
        {
            return Some(Arc::clone(&judged.certificate));
        }
        let certificate = Arc::new(shown.describe(clients.judge(shown)));
        *judged = Some(Judged {
            generation,
            at: Instant::now(),
            certificate: Arc::clone(&certificate),
        });
        Some(certificate)
    }
}
