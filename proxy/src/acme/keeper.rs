//! Who decides which certificate is due, and sees its order through.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

use instant_acme::{Account, CertificateIdentifier, Error};

use super::answers::{Answers, Desk, Method};
use super::client::Client;
use super::failure::Failure;
use super::order::{self, Issued, Wish};
use super::record::{Issue, Record, Refusal, RenewalInfo};
use super::renewals::{self, Outcome};
use super::schedule::{self, Lifetime};
use super::{Managed, Plan, account};
use crate::config::{Authority, Challenge};
use crate::telemetry::metrics;
use crate::tls::{CertifiedKey, request};

/// How soon to look again when another edge is at it.
const OTHER_EDGE: Duration = Duration::from_secs(3);

/// How soon to ask again for renewal information that did not come.
const ASK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// How soon to ask again a CA that has none.
const ASK_SELDOM: Duration = Duration::from_secs(24 * 60 * 60);

/// How often an order is begun anew because the CA takes back the numbers that it gave out.
const NONCE_TRIES: u32 = 4;

/// Looks after certificates, one at a time.
pub(super) struct Keeper {
    answers: Answers,
    /// Held to show that an edge works on the folder.
    presence: Option<File>,
}

impl Keeper {
    pub(super) fn new(answers: Answers) -> Self {
        Self {
            answers,
            presence: None,
        }
    }

    /// Takes note of a plan that was not there before.
    pub(super) fn begin(&mut self, plan: &Plan) {
        match renewals::be_present(&plan.storage) {
            Ok(presence) => self.presence = Some(presence),
            Err(error) => tracing::error!(%error, "the state folder cannot be used"),
        }
        for site in &plan.sites {
            if site.certificate.is_placeholder() {
                tracing::warn!(
                    site = site.name,
                    "serving a self-signed placeholder until the CA has issued a certificate"
                );
            }
        }
    }

    /// Does what `tidegate renew` asks for.
    pub(super) async fn fulfil(&self, plan: &Plan) {
        let Some(renewal) = renewals::next(&plan.storage) else {
            return;
        };
        let turn = loop {
            match plan.storage.take_turn() {
                Ok(Some(turn)) => break turn,
                Ok(None) => tokio::time::sleep(OTHER_EDGE).await,
                Err(error) => return renewal.fail(&plan.storage, &error),
            }
        };
        let mut outcomes = Vec::new();
        for site in &plan.sites {
            if !renewal.is_about(&site.name, &site.hosts) {
                continue;
            }
            let result = if renewal.dry_run {
                self.rehearse(plan, site).await
            } else {
                let record = plan.storage.record(&site.name).unwrap_or_default();
                self.attempt(plan, site, record).await
            };
            outcomes.push(Outcome::of(&site.name, result.as_ref().err()));
        }
        drop(turn);
        renewal.finish(&plan.storage, &outcomes);
    }

    /// Orders what is due; returns when something else will be.
    pub(super) async fn tend(&self, plan: &Plan) -> Duration {
        let mut wait = Duration::MAX;
        for site in &plan.sites {
            let next = match self.tend_site(plan, site).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(site = site.name, %error, "the state folder cannot be used");
                    continue;
                }
            };
            let now = SystemTime::now();
            wait = wait.min(next.duration_since(now).unwrap_or_default());
        }
        wait
    }

    async fn tend_site(&self, plan: &Plan, site: &Managed) -> io::Result<SystemTime> {
        let now = SystemTime::now();
        let record = plan.storage.record(&site.name)?;
        let due = due(plan, site, &record, now);
        let id = certificate_id(&site.certificate);
        let asks = |record: &Record| {
            let info = record.renewal_info.as_ref();
            let id = id.as_deref().filter(|_| record.issued.is_some())?;
            info.is_none_or(|info| info.is_due(id, now)).then_some(id)
        };
        if due > now && asks(&record).is_none() {
            return Ok(due);
        }
        let Some(turn) = plan.storage.take_turn()? else {
            return Ok(now + OTHER_EDGE);
        };
        plan.storage.drop_challenges(&turn)?;
        // Another edge may have been at it until this moment.
        refresh(site);
        let mut record = plan.storage.record(&site.name)?;
        if let Some(id) = asks(&record).filter(|_| certificate_id(&site.certificate) == id) {
            let info = self.ask_when(plan, &record, id, now).await;
            record.renewal_info = Some(info);
        }
        let due = self::due(plan, site, &record, now);
        if record.next != Some(due) || record.renewal_info.is_some() {
            record.next = Some(due);
            plan.storage.keep_record(&site.name, &record)?;
        }
        if due > now {
            return Ok(due);
        }
        // What came of it is logged, and kept in the record.
        if self.attempt(plan, site, record).await.is_ok() {
            // The CA is asked about the new one at once.
            return Ok(now);
        }
        let record = plan.storage.record(&site.name)?;
        Ok(self::due(plan, site, &record, SystemTime::now()))
    }

    /// Orders a certificate and puts it in use.
    async fn attempt(
        &self,
        plan: &Plan,
        site: &Managed,
        mut record: Record,
    ) -> Result<(), Failure> {
        let failed = record.failure.as_ref().map_or(0, |failure| failure.count);
        let method = method(plan, site, failed);
        let replaced = certificate_id(&site.certificate);
        let mut first: Option<(Failure, String)> = None;
        for authority in &plan.acme.authorities {
            let from_here = |issue: &Issue| issue.directory == authority.directory;
            let replaces = replaced.as_deref().filter(|_| {
                let issued = record.issued.as_ref();
                issued.is_some_and(from_here) && record.renewal_info.is_some()
            });
            let result = self.order(plan, site, authority, method, replaces).await;
            match result.and_then(|issued| publish(plan, site, &issued)) {
                Ok(()) => {
                    let record = issued(plan, site, authority, SystemTime::now());
                    let kept = plan.storage.keep_record(&site.name, &record);
                    log_issue(site, authority, method);
                    metrics::count_order(site.first_host(), true);
                    return kept.map_err(Failure::ours);
                }
                Err(failure) => {
                    log_failure(site, authority, method, &failure);
                    metrics::count_order(site.first_host(), false);
                    first.get_or_insert_with(|| (failure, authority.directory.clone()));
                }
            }
        }
        let (failure, directory) = first.unwrap_or_else(|| (Failure::ours("no CA"), String::new()));
        let now = SystemTime::now();
        let mut trouble = Refusal::of(&failure, &directory, now, failed.saturating_add(1));
        let retry = schedule::retry(now, trouble.count, failure.retry_after, chance(&site.name));
        trouble.retry = Some(retry);
        record.next = Some(retry);
        record.failure = Some(trouble);
        if let Err(error) = plan.storage.keep_record(&site.name, &record) {
            tracing::error!(site = site.name, %error, "the state folder cannot be used");
        }
        Err(failure)
    }

    /// Orders where nobody trusts what is issued, and throws it away.
    async fn rehearse(&self, plan: &Plan, site: &Managed) -> Result<(), Failure> {
        let Some(authority) = plan.acme.authorities.first() else {
            return Ok(());
        };
        let mut authority = authority.clone();
        if let Some(staging) = authority.staging.take() {
            authority.directory = staging;
        }
        let method = method(plan, site, 0);
        let result = self.order(plan, site, &authority, method, None).await;
        if let Err(failure) = &result {
            log_failure(site, &authority, method, failure);
        }
        result.map(drop)
    }

    async fn order(
        &self,
        plan: &Plan,
        site: &Managed,
        authority: &Authority,
        method: Method,
        replaces: Option<&str>,
    ) -> Result<Issued, Failure> {
        let client = Client::new(authority.root_file.as_deref()).map_err(Failure::ours)?;
        let wish = Wish {
            authority,
            hosts: &site.hosts,
            key_type: site.key_type,
            profile: plan.acme.profile.as_deref(),
            method,
            replaces,
        };
        let desk = || Desk::new(&self.answers, &plan.storage, plan.acme.dns.as_ref());
        let mut tries = 0;
        let ordered = async {
            let account = account::open(authority, &client, &plan.storage).await?;
            let mut obtained = order::obtain(&account, &client, &wish, desk()).await;
            while let Err(failure) = &obtained
                && failure.is_about_a_nonce()
                && tries < NONCE_TRIES
            {
                tries += 1;
                obtained = order::obtain(&account, &client, &wish, desk()).await;
            }
            match obtained {
                Err(failure) if failure.is_lost_account() => {
                    tracing::warn!(
                        directory = authority.directory,
                        said = failure.detail,
                        "the CA does not know the account any more, making a new one"
                    );
                    let forgotten = plan.storage.forget_account(&authority.directory);
                    forgotten.map_err(Failure::ours)?;
                    let account = account::open(authority, &client, &plan.storage).await?;
                    order::obtain(&account, &client, &wish, desk()).await
                }
                ordered => ordered,
            }
        };
        ordered.await.map_err(|failure| Failure {
            retry_after: client.asked_to_wait_until(),
            ..failure
        })
    }

    /// Asks the CA when it wants a certificate to be renewed.
    async fn ask_when(
        &self,
        plan: &Plan,
        record: &Record,
        id: &str,
        now: SystemTime,
    ) -> RenewalInfo {
        let known = record
            .renewal_info
            .clone()
            .filter(|info| info.certificate == id);
        let mut info = known.unwrap_or_default();
        id.clone_into(&mut info.certificate);
        info.asked = Some(now);
        let issued = record.issued.as_ref();
        let authority =
            plan.acme.authorities.iter().find(|authority| {
                issued.is_some_and(|issue| issue.directory == authority.directory)
            });
        let Some(authority) = authority else {
            info.ask_again = Some(now + ASK_SELDOM);
            return info;
        };
        match fetch_info(plan, authority, id).await {
            Ok((fetched, again)) => {
                let window = fetched.suggested_window;
                info.start = Some(window.start.into());
                info.end = Some(window.end.into());
                if let Some(why) = fetched.explanation_url {
                    tracing::info!(why, "the CA explains when to renew");
                    info.explanation = Some(why);
                }
                info.ask_again = Some(schedule::ask_again(now, again));
            }
            Err(Some(failure)) => {
                tracing::info!(said = %failure, "the CA did not say when to renew");
                info.ask_again = Some(now + ASK_AGAIN);
            }
            Err(None) => info.ask_again = Some(now + ASK_SELDOM),
        }
        info
    }
}

/// Returns what the CA says, or why it said nothing; `None` when it never does.
async fn fetch_info(
    plan: &Plan,
    authority: &Authority,
    id: &str,
) -> Result<(instant_acme::RenewalInfo, Duration), Option<Failure>> {
    let client = Client::new(authority.root_file.as_deref());
    let client = client.map_err(|error| Some(Failure::ours(error)))?;
    let account: Account = account::open(authority, &client, &plan.storage)
        .await
        .map_err(Some)?;
    let (key, serial) = id.split_once('.').unwrap_or_default();
    let id = CertificateIdentifier {
        authority_key_identifier: key.into(),
        serial: serial.into(),
    };
    match account.renewal_info(&id).await {
        Ok(told) => Ok(told),
        Err(Error::Unsupported(_)) => Err(None),
        Err(error) => Err(Some(error.into())),
    }
}

/// Returns when a site's next order is due, by all that is known.
fn due(plan: &Plan, site: &Managed, record: &Record, now: SystemTime) -> SystemTime {
    let wanted = if is_unfit(plan, site, record) {
        now
    } else {
        renewal(site, record).unwrap_or(now)
    };
    let retry = record.failure.as_ref().and_then(|failure| {
        let noted_by_another_clock = failure
            .at
            .is_none_or(|at| schedule::is_from_the_future(at, now));
        failure.retry.filter(|_| !noted_by_another_clock)
    });
    retry.map_or(wanted, |retry| wanted.max(retry))
}

/// Returns whether the certificate is not what the config asks for.
fn is_unfit(plan: &Plan, site: &Managed, record: &Record) -> bool {
    let certificate = &site.certificate;
    let known = |issue: &Issue| {
        let mut authorities = plan.acme.authorities.iter();
        let by_one_of_them = authorities.any(|authority| authority.directory == issue.directory);
        by_one_of_them && issue.profile == plan.acme.profile
    };
    certificate.is_placeholder()
        || request::key_type(&certificate.leaf()) != Some(site.key_type)
        // What was imported has no record: it is used until it is due.
        || !record.issued.as_ref().is_none_or(known)
        || !site.hosts.iter().all(|host| certificate.covers(host))
}

fn renewal(site: &Managed, record: &Record) -> Option<SystemTime> {
    let (from, until) = site.certificate.validity().ok()?;
    let id = certificate_id(&site.certificate);
    let info = record.renewal_info.as_ref();
    let window = info.and_then(|info| info.window(id.as_deref()?));
    let chance = chance(id.as_deref().unwrap_or(&site.name));
    Some(schedule::renewal(Lifetime { from, until }, window, chance))
}

/// Returns how the CA is to ask: with `auto` another way after each failure.
fn method(plan: &Plan, site: &Managed, failed: u32) -> Method {
    let wildcard = site.hosts.iter().any(|host| host.starts_with("*."));
    match plan.acme.challenge {
        Challenge::Dns01 => Method::Dns01,
        Challenge::Http01 => Method::Http01,
        Challenge::TlsAlpn01 => Method::TlsAlpn01,
        // One way for the whole of it, where one host leaves no choice.
        Challenge::Auto if wildcard => Method::Dns01,
        Challenge::Auto if plan.plain && failed.is_multiple_of(2) => Method::Http01,
        Challenge::Auto => Method::TlsAlpn01,
    }
}

fn publish(plan: &Plan, site: &Managed, issued: &Issued) -> Result<(), Failure> {
    plan.storage
        .publish(&site.name, issued.chain.as_bytes(), &issued.key)
        .map_err(Failure::ours)?;
    refresh(site);
    Ok(())
}

/// Puts in use what is in the files.
fn refresh(site: &Managed) {
    if let Err(error) = site.certificate.refresh() {
        tracing::error!(site = site.name, %error, "the certificate cannot be used");
    }
}

fn issued(plan: &Plan, site: &Managed, authority: &Authority, now: SystemTime) -> Record {
    Record {
        issued: Some(Issue {
            directory: authority.directory.clone(),
            key_type: site.key_type.name().to_owned(),
            profile: plan.acme.profile.clone(),
            at: Some(now),
        }),
        ..Record::default()
    }
}

fn log_issue(site: &Managed, authority: &Authority, method: Method) {
    tracing::info!(
        site = site.name,
        hosts = site.hosts.join(" "),
        directory = authority.directory,
        challenge = method.name(),
        expires = site.certificate.not_after(),
        "a certificate was issued and is in use"
    );
}

fn log_failure(site: &Managed, authority: &Authority, method: Method, failure: &Failure) {
    tracing::error!(
        site = site.name,
        host = failure.host.as_deref(),
        directory = authority.directory,
        challenge = method.name(),
        problem = failure.problem.as_deref(),
        detail = failure.detail,
        advice = failure.advice(),
        "no certificate was issued; the one in use stays"
    );
}

/// Returns what a CA calls a certificate (RFC 9773, section 4.1).
fn certificate_id(certificate: &CertifiedKey) -> Option<String> {
    request::certificate_id(&certificate.leaf())
}

/// Draws a number from 0 to 1, always the same for the same thing.
fn chance(of: &str) -> f64 {
    let digest = openssl::sha::sha256(of.as_bytes());
    let [first, second, ..] = digest;
    f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use settings::Document;

    use super::*;
    use crate::acme::Storage;
    use crate::config::{Acme, KeyType};
    use crate::state_dir::StateDir;
    use crate::tls::self_signed;

    fn plan(folder: &Path, days: u32, hosts: &[&str]) -> Plan {
        let made = self_signed::generate_for_days(&["a.test".to_owned()], &[], days).unwrap();
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&cert, made.cert_pem).unwrap();
        fs::write(&key, made.key_pem).unwrap();
        let text = "[acme]\nagree_to_terms = true\ndirectory = \"https://ca.test/dir\"";
        let mut document = Document::parse(&folder.join("edge.toml"), text).unwrap();
        let acme = document.root().table("acme").map(Acme::read_keys).unwrap();
        Plan {
            acme,
            storage: Storage::new(StateDir::new(folder)),
            sites: vec![Managed {
                name: "a.test".to_owned(),
                hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
                certificate: Arc::new(CertifiedKey::load(&cert, &key).unwrap()),
                key_type: KeyType::default(),
            }],
            plain: true,
        }
    }

    fn by(directory: &str) -> Record {
        Record {
            issued: Some(Issue {
                directory: directory.to_owned(),
                ..Issue::default()
            }),
            ..Record::default()
        }
    }

    const OURS: &str = "https://ca.test/dir";
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn what_the_config_asks_for_is_due_at_once_and_all_else_in_its_time() {
        let now = SystemTime::now();
        let folder = tempfile::tempdir().unwrap();
        for (hosts, directory, at_once) in [
            (&["a.test"][..], OURS, false),
            (&["a.test", "b.test"], OURS, true),
            (&["a.test"], "https://staging.test/dir", true),
        ] {
            let plan = plan(folder.path(), 90, hosts);
            let due = due(&plan, &plan.sites[0], &by(directory), now);
            if at_once {
                assert_eq!(due, now, "{hosts:?} {directory}");
            } else {
                let days = due.duration_since(now).unwrap().as_secs() / DAY.as_secs();
                assert!((58..=62).contains(&days), "{days}");
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_makes_nobody_wait() {
        let now = SystemTime::now();
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(folder.path(), 90, &["a.test", "b.test"]);
        let mut record = by(OURS);
        let mut waits = |failed: SystemTime, now: SystemTime| {
            let failure = Failure::ours("down");
            let mut refusal = Refusal::of(&failure, OURS, failed, 9);
            refusal.retry = Some(schedule::retry(failed, 9, None, 0.5));
            record.failure = Some(refusal);
            due(&plan, &plan.sites[0], &record, now) > now
        };
        assert!(waits(now, now + Duration::from_secs(60)));
        assert!(!waits(now + DAY * 400, now), "set back");
        assert!(
            !waits(now, now + DAY * 400),
            "set forward: due, like all else"
        );
    }
}
