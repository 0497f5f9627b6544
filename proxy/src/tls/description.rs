//! What a certificate says of itself, for people.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::Id;
use openssl::x509::{X509, X509NameRef, X509Ref};

use super::{Error, certified_key};

const DAY_SECS: u64 = 24 * 60 * 60;

/// What a certificate says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Description {
    /// The host names and addresses that it is made for.
    pub names: Vec<String>,
    /// Who signed it: the common name, or the organisation.
    pub issuer: String,
    /// What its key is, as `ecdsa-p256` or `rsa-2048`.
    pub key: String,
    /// When its time is over.
    pub not_after: SystemTime,
    /// Whether it was signed with its own key.
    pub self_signed: bool,
}

impl Description {
    /// Describes the first certificate in the PEM file at `path`; no key is needed for it.
    ///
    /// # Errors
    /// [`Error`] when the file cannot be read or holds no certificate.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let parse = |source| Error::Parse {
            path: path.to_owned(),
            source,
        };
        let chain = X509::stack_from_pem(&certified_key::read(path)?).map_err(parse)?;
        let leaf = chain.first().ok_or_else(|| Error::Empty {
            path: path.to_owned(),
        })?;
        Self::of(leaf).map_err(parse)
    }

    /// Returns whether its time is over.
    pub fn expired(&self, now: SystemTime) -> bool {
        self.not_after <= now
    }

    /// Returns in how many days its time is over, in words, if that is within two weeks.
    pub fn ends_soon(&self, now: SystemTime) -> Option<String> {
        ends_soon(self.not_after, now)
    }

    /// Describes a certificate.
    pub(super) fn of(leaf: &X509Ref) -> Result<Self, ErrorStack> {
        Ok(Self {
            names: names(leaf),
            issuer: common_name(leaf.issuer_name()),
            key: key(leaf),
            not_after: system_time(leaf.not_after())?,
            self_signed: leaf
                .public_key()
                .and_then(|key| leaf.verify(&key))
                .unwrap_or_default(),
        })
    }
}

/// What is left of a certificate's time when its end is worth a warning: enough to order another one
/// and have it signed by hand.
const SOON: Duration = Duration::from_secs(14 * DAY_SECS);

/// Returns in how many days `end` is, in words, if it is to come and soon.
pub(super) fn ends_soon(end: SystemTime, now: SystemTime) -> Option<String> {
    let left = end.duration_since(now).ok()?;
    if left.is_zero() || left > SOON {
        return None;
    }
    Some(match left.as_secs() / DAY_SECS {
        0 => "within a day".to_owned(),
        1 => "in 1 day".to_owned(),
        days => format!("in {days} days"),
    })
}

/// Says what the key of a certificate is, its algorithm first.
pub(super) fn key(leaf: &X509Ref) -> String {
    let Ok(key) = leaf.public_key() else {
        return "unknown".to_owned();
    };
    match key.id() {
        Id::EC => format!("ecdsa-p{}", key.bits()),
        Id::RSA => format!("rsa-{}", key.bits()),
        Id::ED25519 => "ed25519".to_owned(),
        Id::ED448 => "ed448".to_owned(),
        // Short names have hyphens, as RSASSA-PSS, and the algorithm ends at the first.
        other => Nid::from_raw(other.as_raw()).short_name().map_or_else(
            |_| "unknown".to_owned(),
            |name| name.to_lowercase().replace('-', "_"),
        ),
    }
}

fn names(leaf: &X509Ref) -> Vec<String> {
    let alternatives = leaf.subject_alt_names();
    let names = alternatives.iter().flatten().filter_map(|name| {
        let address = || {
            let octets = name.ipaddress()?;
            let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from);
            Some(v4.or_else(|_longer| v6()).ok()?.to_string())
        };
        name.dnsname().map(ToOwned::to_owned).or_else(address)
    });
    names.collect()
}

fn common_name(name: &X509NameRef) -> String {
    [Nid::COMMONNAME, Nid::ORGANIZATIONNAME]
        .into_iter()
        .find_map(|nid| name.entries_by_nid(nid).next()?.data().to_string().ok())
        .unwrap_or_default()
}

/// Returns a certificate's time as the system counts it.
pub(super) fn system_time(time: &Asn1TimeRef) -> Result<SystemTime, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    // A certificate whose time was over before 1970 is over.
    let days = u64::try_from(since.days).unwrap_or_default();
    let secs = u64::try_from(since.secs).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(days * DAY_SECS + secs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::self_signed;

    #[test]
    fn the_end_is_soon_from_two_weeks_before_until_it_is_there() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let after = |secs| ends_soon(now + Duration::from_secs(secs), now);
        assert_eq!(after(14 * DAY_SECS + 1), None);
        assert_eq!(after(14 * DAY_SECS).as_deref(), Some("in 14 days"));
        assert_eq!(after(DAY_SECS).as_deref(), Some("in 1 day"));
        assert_eq!(after(1).as_deref(), Some("within a day"));
        assert_eq!(after(0), None);
        assert_eq!(ends_soon(now - Duration::from_secs(1), now), None);
    }

    #[test]
    fn a_certificate_is_described_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cert.pem");
        let names = ["registry.test".to_owned(), "*.apps.test".to_owned()];
        let ips = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        std::fs::write(&path, self_signed::generate(&names, &ips).unwrap().cert_pem).unwrap();
        let description = Description::read(&path).unwrap();
        assert_eq!(
            description.names,
            ["registry.test", "*.apps.test", "127.0.0.1", "::1"]
        );
        assert_eq!(description.issuer, "registry.test");
        assert_eq!(description.key, "ecdsa-p256");
        assert!(description.self_signed);
        let left = description
            .not_after
            .duration_since(SystemTime::now())
            .unwrap();
        let days = left.as_secs() as f64 / DAY_SECS as f64;
        assert!((824.9..=825.0).contains(&days), "{days}");
    }
}
