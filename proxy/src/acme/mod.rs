//! Certificates that look after themselves: ordered from an ACME CA, renewed, and swapped in.
//!
//! [`keep`] has a thread to itself, on which it may block: files are synced and keys are made on it.
//! The [`keeper`] decides when, by the [`schedule`] and by what a CA wants ([`renewal_info`]). An
//! [`attempt`] orders ([`order`]), and puts what it got where a site's certificate is read from
//! ([`storage`]); the certificate itself picks it up. How a CA is convinced is a matter of
//! [`answers`], which the listeners share. What came of it is kept in a [`Record`] for
//! `tidegate certs` and `tidegate check`.
//!
//! Of TLS only keys and requests are known here; of requests and replies nothing.

mod account;
mod answers;
mod attempt;
mod chain;
mod client;
mod dns01;
mod failure;
mod http01;
mod keeper;
mod order;
mod record;
mod renewal_info;
mod renewals;
mod schedule;
pub(crate) mod storage;
mod tls_alpn01;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

pub(crate) use answers::Answers;
pub use failure::Part;
pub use record::{Issue, Record, Refusal, RenewalInfo, Trouble};
pub use renewals::{Outcome, Pending, Renewal, ask};
pub use storage::Storage;

use crate::config::{Acme, KeyType};
use crate::tls::{self, CertifiedKey, request};
use keeper::Keeper;

/// How often is looked whether anything is to be done.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often everything is looked at again, whatever was concluded before: clocks are set, and
/// files change.
const DOUBT_EVERY: Duration = Duration::from_secs(30);

/// The sites whose certificates are looked after, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) acme: Acme,
    pub(crate) storage: Storage,
    pub(crate) sites: Vec<Managed>,
    /// Whether a CA could ask a plain listener.
    pub(crate) plain: bool,
}

/// A site whose certificate is looked after.
#[derive(Debug)]
pub(crate) struct Managed {
    /// What its files are called. A site with certificates for several types of key is here once
    /// for each.
    pub(crate) name: String,
    /// All of them are in its certificate.
    pub(crate) hosts: Vec<String>,
    pub(crate) certificate: Arc<CertifiedKey>,
    pub(crate) key_type: KeyType,
}

impl Managed {
    /// Returns what metrics call the site, as they do every other.
    pub(crate) fn first_host(&self) -> &str {
        self.hosts.first().map_or("", String::as_str)
    }

    /// Returns what a CA calls the certificate (RFC 9773, section 4.1).
    fn certificate_id(&self) -> Option<String> {
        request::certificate_id(&self.certificate.leaf())
    }

    /// Puts in use what is in the files.
    fn refresh(&self) {
        if let Err(error) = self.certificate.refresh() {
            tracing::error!(site = self.name, %error, "the certificate cannot be used");
        }
    }
}

impl Plan {
    /// Returns what another edge on the same folder wants a CA to be answered.
    pub(crate) async fn challenge(&self, name: String) -> Option<Vec<u8>> {
        let storage = self.storage.clone();
        // The folder may be on a network mount.
        let reading = spawn_blocking(move || storage.challenge(&name));
        reading.await.ok()?
    }

    /// Returns whether some edge on the folder wants a CA to be answered at this moment.
    pub(crate) async fn is_any_open(&self) -> bool {
        let storage = self.storage.clone();
        let looking = spawn_blocking(move || storage.has_challenges());
        looking.await.unwrap_or_default()
    }

    /// As [`challenge`](Self::challenge), for a handshake with a host.
    pub(crate) async fn challenge_of(&self, host: &str) -> Option<Vec<u8>> {
        self.challenge(tls_alpn01::file(&host.to_ascii_lowercase()))
            .await
    }
}

/// Why a certificate cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It cannot be read or used.
    #[error(transparent)]
    Certificate(#[from] tls::Error),
    /// It is not made for a host of the site.
    #[error("{}: is not made for {host}", file.display())]
    Host {
        /// The certificate's file.
        file: PathBuf,
        /// The host.
        host: String,
    },
    /// It cannot be kept.
    #[error("keep it: {0}")]
    Io(#[from] io::Error),
}

/// Takes over a chain and its key from files, for the site of these hosts; returns where they are.
///
/// # Errors
/// [`ImportError`]; nothing is changed then.
pub fn import(
    storage: &Storage,
    hosts: &[String],
    cert: &Path,
    key: &Path,
) -> Result<PathBuf, ImportError> {
    let certified = CertifiedKey::load(cert, key)?;
    if let Some(host) = hosts.iter().find(|host| !certified.covers(host)) {
        return Err(ImportError::Host {
            file: cert.to_owned(),
            host: host.clone(),
        });
    }
    let site = Storage::site(hosts);
    storage.publish(&site, &fs::read(cert)?, &fs::read(key)?)?;
    Ok(storage.live(&site).0)
}

/// Says why the roots in a file cannot be trusted.
pub(crate) fn check_roots(path: &Path) -> Result<(), impl std::fmt::Display> {
    client::Client::new(Some(path)).map(drop)
}

/// Looks after the certificates of the plan of the moment until `stop` is true.
pub(crate) async fn keep(
    answers: Answers,
    plan: impl Fn() -> Option<Arc<Plan>>,
    mut stop: watch::Receiver<bool>,
) {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = keep_forever(answers, plan) => {}
    }
}

async fn keep_forever(answers: Answers, plan: impl Fn() -> Option<Arc<Plan>>) {
    let mut keeper = Keeper::new(answers);
    let mut known: Option<Arc<Plan>> = None;
    let mut look_at = Instant::now();
    let mut turn = interval(LOOK_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let Some(plan) = plan() else {
            known = None;
            continue;
        };
        let is_new = known
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, &plan));
        if is_new {
            keeper.begin(&plan);
            known = Some(Arc::clone(&plan));
        }
        keeper.fulfil(&plan).await;
        if is_new || look_at <= Instant::now() {
            let wait = keeper.tend(&plan).await;
            look_at = Instant::now() + wait.clamp(LOOK_EVERY, DOUBT_EVERY);
        }
    }
}
