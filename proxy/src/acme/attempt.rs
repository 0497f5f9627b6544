//! An order seen through: at one CA after the other, begun anew where that helps, and put in use.

use std::time::SystemTime;

use super::answers::{Answers, Desk, Method};
use super::client::Client;
use super::failure::Failure;
use super::order::{self, Issued, Wish};
use super::record::{Issue, Record, Refusal};
use super::{Managed, Plan, account, schedule};
use crate::config::{Authority, Challenge};
use crate::telemetry::metrics;

/// How often an order is begun anew because the CA takes back the numbers that it gave out.
const NONCE_TRIES: u32 = 4;

/// An attempt to get a certificate for a site.
pub(super) struct Attempt<'a> {
    pub(super) answers: &'a Answers,
    pub(super) plan: &'a Plan,
    pub(super) site: &'a Managed,
}

impl Attempt<'_> {
    /// Orders a certificate and puts it in use; what came of it is kept in the record.
    pub(super) async fn make(&self, mut record: Record) -> Result<(), Failure> {
        let (plan, site) = (self.plan, self.site);
        let failed = record.failure.as_ref().map_or(0, |failure| failure.count);
        let method = self.method(failed);
        let replaced = site.certificate_id();
        let mut first: Option<(Failure, String)> = None;
        for authority in &plan.acme.authorities {
            let from_here = |issue: &Issue| issue.directory == authority.directory;
            let replaces = replaced.as_deref().filter(|_| {
                let issued = record.issued.as_ref();
                issued.is_some_and(from_here) && record.renewal_info.is_some()
            });
            let result = self.order(authority, method, replaces).await;
            match result.and_then(|issued| self.publish(&issued)) {
                Ok(()) => {
                    let record = self.issued(authority, SystemTime::now());
                    let kept = plan.storage.keep_record(&site.name, &record);
                    self.log_issue(authority, method);
                    metrics::count_order(site.first_host(), true);
                    return kept.map_err(Failure::ours);
                }
                Err(failure) => {
                    self.log_failure(authority, method, &failure);
                    metrics::count_order(site.first_host(), false);
                    first.get_or_insert_with(|| (failure, authority.directory.clone()));
                }
            }
        }
        let (failure, directory) = first.unwrap_or_else(|| (Failure::ours("no CA"), String::new()));
        let now = SystemTime::now();
        let mut trouble = Refusal::of(&failure, &directory, now, failed.saturating_add(1));
        let retry = schedule::retry(
            now,
            trouble.count,
            failure.retry_after,
            schedule::chance(&site.name),
        );
        trouble.retry = Some(retry);
        record.next = Some(retry);
        record.failure = Some(trouble);
        if let Err(error) = plan.storage.keep_record(&site.name, &record) {
            tracing::error!(site = site.name, %error, "the state folder cannot be used");
        }
        Err(failure)
    }

    /// Orders where nobody trusts what is issued, and throws it away.
    pub(super) async fn rehearse(&self) -> Result<(), Failure> {
        let Some(authority) = self.plan.acme.authorities.first() else {
            return Ok(());
        };
        let mut authority = authority.clone();
        if let Some(staging) = authority.staging.take() {
            authority.directory = staging;
        }
        let method = self.method(0);
        let result = self.order(&authority, method, None).await;
        if let Err(failure) = &result {
            self.log_failure(&authority, method, failure);
        }
        result.map(drop)
    }

    async fn order(
        &self,
        authority: &Authority,
        method: Method,
        replaces: Option<&str>,
    ) -> Result<Issued, Failure> {
        let (plan, site) = (self.plan, self.site);
        let client = Client::new(authority.root_file.as_deref()).map_err(Failure::ours)?;
        let wish = Wish {
            authority,
            hosts: &site.hosts,
            key_type: site.key_type,
            profile: plan.acme.profile.as_deref(),
            method,
            replaces,
        };
        let desk = || Desk::new(self.answers, &plan.storage, plan.acme.dns.as_ref());
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

    /// Returns how the CA is to ask: with `auto` another way after each failure.
    fn method(&self, failed: u32) -> Method {
        let wildcard = self.site.hosts.iter().any(|host| host.starts_with("*."));
        match self.plan.acme.challenge {
            Challenge::Dns01 => Method::Dns01,
            Challenge::Http01 => Method::Http01,
            Challenge::TlsAlpn01 => Method::TlsAlpn01,
            // One way for the whole of it, where one host leaves no choice.
            Challenge::Auto if wildcard => Method::Dns01,
            Challenge::Auto if self.plan.plain && failed.is_multiple_of(2) => Method::Http01,
            Challenge::Auto => Method::TlsAlpn01,
        }
    }

    fn publish(&self, issued: &Issued) -> Result<(), Failure> {
        self.plan
            .storage
            .publish(&self.site.name, issued.chain.as_bytes(), &issued.key)
            .map_err(Failure::ours)?;
        self.site.refresh();
        Ok(())
    }

    fn issued(&self, authority: &Authority, now: SystemTime) -> Record {
        Record {
            issued: Some(Issue {
                directory: authority.directory.clone(),
                key_type: self.site.key_type.name().to_owned(),
                profile: self.plan.acme.profile.clone(),
                at: Some(now),
            }),
            ..Record::default()
        }
    }

    fn log_issue(&self, authority: &Authority, method: Method) {
        tracing::info!(
            site = self.site.name,
            hosts = self.site.hosts.join(" "),
            directory = authority.directory,
            challenge = method.name(),
            expires = self.site.certificate.not_after(),
            "a certificate was issued and is in use"
        );
    }

    fn log_failure(&self, authority: &Authority, method: Method, failure: &Failure) {
        tracing::error!(
            site = self.site.name,
            host = failure.host.as_deref(),
            directory = authority.directory,
            challenge = method.name(),
            problem = failure.problem.as_deref(),
            detail = failure.detail,
            advice = failure.advice(),
            "no certificate was issued; the one in use stays"
        );
    }
}
