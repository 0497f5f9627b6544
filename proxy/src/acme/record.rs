//! What came of a site's orders: kept beside the certificate, shown by `tidegate certs`.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::failure::{self, Failure, Part};
use super::schedule::Window;
use crate::tls::CertifiedKey;

/// What is known of a site's orders.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Record {
    /// The order that the certificate in use is from.
    pub issued: Option<Issue>,
    /// What the CA says about when to renew it.
    pub renewal_info: Option<RenewalInfo>,
    /// When the next order is due, as far as is known.
    #[serde(with = "time")]
    pub next: Option<SystemTime>,
    /// Why the last order came to nothing, if it did.
    pub failure: Option<Refusal>,
}

/// An order that was fulfilled.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Issue {
    /// The directory of the CA.
    pub directory: String,
    /// What the key is.
    pub key_type: String,
    /// The profile that was asked for.
    pub profile: Option<String>,
    /// When.
    #[serde(with = "time")]
    pub at: Option<SystemTime>,
}

/// What a CA says about when to renew a certificate.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct RenewalInfo {
    /// The certificate that this is about.
    pub certificate: String,
    /// When to begin.
    #[serde(with = "time")]
    pub start: Option<SystemTime>,
    /// By when to have it done.
    #[serde(with = "time")]
    pub end: Option<SystemTime>,
    /// Where the CA says why.
    pub explanation: Option<String>,
    /// When it was asked for.
    #[serde(with = "time")]
    pub asked: Option<SystemTime>,
    /// When to ask again.
    #[serde(with = "time")]
    pub ask_again: Option<SystemTime>,
}

/// An order that came to nothing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Refusal {
    /// When.
    #[serde(with = "time")]
    pub at: Option<SystemTime>,
    /// How many in a row.
    pub count: u32,
    /// Who stood in the way.
    pub part: Part,
    /// The directory of the CA.
    pub directory: String,
    /// The CA's word for the problem, if it was the CA that said no.
    pub problem: Option<String>,
    /// What happened, in the CA's words or in ours.
    pub detail: String,
    /// The host that it is about.
    pub host: Option<String>,
    /// When it is tried again.
    #[serde(with = "time")]
    pub retry: Option<SystemTime>,
}

impl Refusal {
    /// Takes down a failure, the `count`th in a row.
    pub(super) fn of(failure: &Failure, directory: &str, at: SystemTime, count: u32) -> Self {
        Self {
            at: Some(at),
            count,
            part: failure.part,
            directory: directory.to_owned(),
            problem: failure.problem.clone(),
            detail: failure.detail.clone(),
            host: failure.host.clone(),
            retry: None,
        }
    }

    /// Says what a person can do about it.
    pub fn advice(&self) -> &'static str {
        failure::advice(self.part, self.problem.as_deref())
    }

    /// Says what happened, in a line.
    pub fn summary(&self) -> String {
        let host = self.host.iter().map(|host| format!("{host}: "));
        let problem = self.problem.iter().map(|problem| format!(" ({problem})"));
        let (host, problem): (String, String) = (host.collect(), problem.collect());
        format!("{host}{}{problem}", self.detail)
    }
}

impl RenewalInfo {
    /// Returns the window, if what is known is about this certificate.
    pub(super) fn window(&self, certificate: &str) -> Option<Window> {
        let about_it = self.certificate == certificate;
        about_it.then_some(Window {
            start: self.start?,
            end: self.end?,
        })
    }

    /// Returns whether it is time to ask, for this certificate and at this moment.
    pub(super) fn is_due(&self, certificate: &str, now: SystemTime) -> bool {
        let fresh = self.certificate == certificate
            && self.asked.is_some_and(|asked| asked <= now)
            && self.ask_again.is_some_and(|again| now < again);
        !fresh
    }
}

/// What is wrong with a certificate that is looked after.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// In words.
    pub text: String,
    /// Clients are refused, or soon will be.
    pub serious: bool,
}

impl Trouble {
    /// Says what is wrong, if anything is.
    pub(crate) fn of(site: &str, certificate: &CertifiedKey, record: &Record) -> Option<Self> {
        let failure = record.failure.as_ref();
        let why = failure.map(|failure| {
            let times = failure.count;
            format!(
                ": {} (tried {times} times): {}",
                failure.summary(),
                failure.advice()
            )
        });
        let why = why.as_deref();
        if certificate.is_placeholder() {
            // Before the first start there is nothing wrong with that.
            let text = format!("{site}: has no certificate yet{}", why?);
            return Some(Self {
                text,
                serious: true,
            });
        }
        let expires = certificate.not_after();
        if certificate.expired() {
            let why = why.unwrap_or_default();
            let text = format!("{site}: its certificate expired on {expires}{why}");
            return Some(Self {
                text,
                serious: true,
            });
        }
        let text = format!(
            "{site}: its certificate, good until {expires}, was not renewed{}",
            why?
        );
        Some(Self {
            text,
            serious: false,
        })
    }
}

/// A time as people write it.
mod time {
    use super::{Duration, SystemTime};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        // What is before 1970, or after the year 9999, is no time that anything was done at.
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        let time = time.filter(|time| (SystemTime::UNIX_EPOCH..end).contains(time));
        match time {
            Some(time) => serializer.collect_str(&humantime::format_rfc3339_millis(time)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        let parse = |text: String| humantime::parse_rfc3339(&text);
        text.map(parse)
            .transpose()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let failure = Failure::ours("refused").about("a.test");
        let record = Record {
            issued: Some(Issue {
                directory: "https://ca.test/dir".to_owned(),
                at: Some(at),
                ..Issue::default()
            }),
            next: Some(at),
            failure: Some(Refusal::of(&failure, "https://ca.test/dir", at, 3)),
            ..Record::default()
        };
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains("2023-11-14T22:13:20.123Z"), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        assert_eq!(record.failure.unwrap().summary(), "a.test: refused");
        assert_eq!(
            serde_json::from_str::<Record>("{}").unwrap(),
            Record::default()
        );
    }

    #[test]
    fn renewal_information_is_about_one_certificate_and_for_a_while() {
        let now = SystemTime::now();
        let info = RenewalInfo {
            certificate: "a.1".to_owned(),
            start: Some(now),
            end: Some(now),
            asked: Some(now),
            ask_again: Some(now + Duration::from_secs(60)),
            explanation: None,
        };
        assert!(info.window("a.1").is_some() && info.window("a.2").is_none());
        assert!(!info.is_due("a.1", now) && info.is_due("a.2", now));
        assert!(info.is_due("a.1", now + Duration::from_secs(61)));
        assert!(
            info.is_due("a.1", now - Duration::from_secs(61)),
            "set back"
        );
    }
}
