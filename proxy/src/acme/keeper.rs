//! Who decides which certificate is due.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

use super::answers::Answers;
use super::attempt::Attempt;
use super::record::{Issue, Record};
use super::renewals::{self, Outcome};
use super::schedule::{self, Lifetime};
use super::{Managed, Plan, renewal_info};
use crate::tls::request;

/// How soon to look again when another edge is at it.
const OTHER_EDGE: Duration = Duration::from_secs(3);

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
                self.attempt(plan, site).rehearse().await
            } else {
                let record = plan.storage.record(&site.name).unwrap_or_default();
                self.attempt(plan, site).make(record).await
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
        let id = site.certificate_id();
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
        site.refresh();
        let mut record = plan.storage.record(&site.name)?;
        if let Some(id) = asks(&record).filter(|_| site.certificate_id() == id) {
            let info = renewal_info::ask(plan, &record, id, now).await;
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
        if self.attempt(plan, site).make(record).await.is_ok() {
            // The CA is asked about the new one at once.
            return Ok(now);
        }
        let record = plan.storage.record(&site.name)?;
        Ok(self::due(plan, site, &record, SystemTime::now()))
    }

    fn attempt<'a>(&'a self, plan: &'a Plan, site: &'a Managed) -> Attempt<'a> {
        Attempt {
            answers: &self.answers,
            plan,
            site,
        }
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
    let id = site.certificate_id();
    let info = record.renewal_info.as_ref();
    let window = info.and_then(|info| info.window(id.as_deref()?));
    let chance = schedule::chance(id.as_deref().unwrap_or(&site.name));
    Some(schedule::renewal(Lifetime { from, until }, window, chance))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use settings::Document;

    use super::*;
    use crate::acme::Storage;
    use crate::acme::failure::Failure;
    use crate::acme::record::Refusal;
    use crate::config::{Acme, KeyType};
    use crate::state_dir::StateDir;
    use crate::tls::{CertifiedKey, self_signed};

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
