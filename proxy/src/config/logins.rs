//! `[limits.logins]`: how many passwords may be tried in vain.

use std::time::Duration;

use settings::Section;

/// How many wrong passwords are too many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Logins {
    /// From one address; none is too many when it is 0.
    pub(crate) per_address: u32,
    /// For one user, from all addresses that are not known as the user's; as above.
    pub(crate) per_user: u32,
    /// How long it takes until so many are forgotten.
    pub(crate) forget_after: Duration,
}

/// The longest time that wrong passwords may be held against anyone.
pub(crate) const FORGET_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// More than this is no limit.
const COUNT_MAX: u32 = 1_000_000;

impl Default for Logins {
    fn default() -> Self {
        Self {
            per_address: 20,
            per_user: 100,
            forget_after: Duration::from_secs(15 * 60),
        }
    }
}

impl Logins {
    /// Reads the table; what is not written has its default.
    pub(super) fn read(mut section: Section) -> Self {
        let mut logins = Self::default();
        for (key, field) in [
            ("per_address", &mut logins.per_address),
            ("per_user", &mut logins.per_user),
        ] {
            match section.optional(key) {
                Some(count @ 0..=COUNT_MAX) => *field = count,
                Some(_) => section.problem(key, format!("must be {COUNT_MAX} at most")),
                None => {}
            }
        }
        match section.duration("forget_after") {
            Some(time) if time < Duration::from_secs(1) || time > FORGET_AFTER_MAX => {
                section.problem("forget_after", "must be between 1s and 24h");
            }
            Some(time) => logins.forget_after = time,
            None => {}
        }
        logins
    }
}
