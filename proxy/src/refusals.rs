//! Counts of what was refused, by reason: logins, and what rules deny.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// Why credentials were refused. To bring none is no failed login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LoginRefusal {
    /// Too many passwords wait to be hashed.
    Busy,
    /// A client certificate that is not taken.
    Certificate,
    /// Too much has failed from this address.
    ThrottledAddress,
    /// Too much has failed for this user.
    ThrottledUser,
    /// A token that does not hold.
    Token,
    /// A name and a password that do not hold, or credentials that cannot be read.
    WrongCredentials,
}

impl LoginRefusal {
    const ALL: [Self; 6] = [
        Self::Busy,
        Self::Certificate,
        Self::ThrottledAddress,
        Self::ThrottledUser,
        Self::Token,
        Self::WrongCredentials,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Certificate => "certificate",
            Self::ThrottledAddress => "throttled_address",
            Self::ThrottledUser => "throttled_user",
            Self::Token => "invalid_token",
            Self::WrongCredentials => "wrong_credentials",
        }
    }
}

static LOGINS: [AtomicU64; LoginRefusal::ALL.len()] =
    [const { AtomicU64::new(0) }; LoginRefusal::ALL.len()];

/// By what the config calls the rule or list: as many as there are in it, for none is added when
/// something is denied.
static DENIALS: RwLock<BTreeMap<Box<str>, AtomicU64>> = RwLock::new(BTreeMap::new());

/// Counts a login that was refused.
pub(crate) fn count_login(reason: LoginRefusal) {
    if let Some(count) = LOGINS.get(reason as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns how many logins were refused, by reason.
pub(crate) fn logins() -> impl Iterator<Item = (&'static str, u64)> {
    let reasons = LoginRefusal::ALL.iter().zip(&LOGINS);
    reasons.map(|(reason, count)| (reason.name(), count.load(Ordering::Relaxed)))
}

/// Makes a rule or list known, by what the config calls it.
pub(crate) fn know_rule(key: &str) {
    let mut denials = DENIALS.write().unwrap_or_else(PoisonError::into_inner);
    if !denials.contains_key(key) {
        denials.insert(key.into(), AtomicU64::new(0));
    }
}

/// Counts what a rule or list has denied; `because` may be another reason, which does not count here.
pub(crate) fn count_denial(because: &str) {
    let denials = DENIALS.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(count) = denials.get(because) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns how often each rule or list has denied something.
pub(crate) fn denials() -> Vec<(Box<str>, u64)> {
    let denials = DENIALS.read().unwrap_or_else(PoisonError::into_inner);
    let counts = denials.iter();
    counts
        .map(|(key, count)| (key.clone(), count.load(Ordering::Relaxed)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_config_names_is_counted() {
        let count = |key: &str| {
            let denials = denials();
            let mut found = denials.iter().filter(|(known, _)| **known == *key);
            found.next().map(|(_, count)| *count)
        };
        know_rule("site[7].access.rule[3]");
        count_denial("site[7].access.rule[3]");
        count_denial("a text that a client has written");
        know_rule("site[7].access.rule[3]");
        assert_eq!(count("site[7].access.rule[3]"), Some(1));
        assert_eq!(count("a text that a client has written"), None);
        for (at, reason) in LoginRefusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }
}
