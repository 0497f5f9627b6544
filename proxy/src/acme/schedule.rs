//! When to ask for the next certificate. Times and numbers alone: nothing is asked here.

use std::time::{Duration, SystemTime};

/// The first wait after a failure; each further one is four times as long.
///
/// Let's Encrypt lets a host fail five times in an hour: with this it is four times at most.
const BACKOFF: Duration = Duration::from_secs(60);

/// The longest wait after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// The longest time that a CA is believed when it asks to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often a CA is asked for its renewal information, at most and at least.
const ASK: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 60 * 60));

/// When a certificate begins and ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lifetime {
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

/// When a CA wants a certificate to be renewed (RFC 9773, section 4.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Window {
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
}

/// Returns when to renew a certificate.
///
/// `chance` is what this certificate has drawn, from 0 to 1: the same after a restart, another one
/// for each certificate.
pub(super) fn renewal(lifetime: Lifetime, window: Option<Window>, chance: f64) -> SystemTime {
    let length = lifetime
        .until
        .duration_since(lifetime.from)
        .unwrap_or_default();
    match window {
        // A certificate that runs out before the CA's window is still to be renewed in time.
        Some(window) => within(window.start, window.end, chance).min(
            lifetime
                .until
                .checked_sub(length / 10)
                .unwrap_or(lifetime.from),
        ),
        None => lifetime.from + length.mul_f64(0.65 + chance / 30.0),
    }
}

/// Returns until when to wait after so many failures in a row, the last of them at `failed`.
pub(super) fn retry(
    failed: SystemTime,
    count: u32,
    asked: Option<SystemTime>,
    chance: f64,
) -> SystemTime {
    let factor = 4_u32.saturating_pow(count.saturating_sub(1).min(8));
    let wait = BACKOFF.saturating_mul(factor).min(BACKOFF_MAX);
    // Between the whole of it and three quarters more: never sooner than what was counted on.
    let own = failed + wait.mul_f64(1.0 + 0.75 * chance);
    match asked {
        Some(asked) => own.max(asked.min(failed + RETRY_AFTER_MAX)),
        None => own,
    }
}

/// Returns whether a time of the past was noted by a clock that has since been set back: what was
/// concluded from it is worth nothing.
pub(super) fn is_from_the_future(noted: SystemTime, now: SystemTime) -> bool {
    noted > now
}

/// Returns when to ask again for renewal information, given what the CA says.
pub(super) fn ask_again(now: SystemTime, suggested: Duration) -> SystemTime {
    now + suggested.clamp(ASK.0, ASK.1)
}

fn within(start: SystemTime, end: SystemTime, chance: f64) -> SystemTime {
    let length = end.duration_since(start).unwrap_or_default();
    start + length.mul_f64(chance.clamp(0.0, 1.0))
}

/// Draws a number from 0 to 1, always the same for the same thing.
pub(super) fn chance(of: &str) -> f64 {
    let digest = openssl::sha::sha256(of.as_bytes());
    let [first, second, ..] = digest;
    f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn day(n: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * (20_000 + n)
    }

    #[test]
    fn a_certificate_is_renewed_about_two_thirds_through_its_life() {
        for (days, chance, earliest, latest) in [
            (90, 0.0, 58, 59),
            (90, 1.0, 61, 62),
            (6, 0.0, 3, 4),
            (6, 1.0, 4, 5),
        ] {
            let lifetime = Lifetime {
                from: day(0),
                until: day(days),
            };
            let at = renewal(lifetime, None, chance);
            assert!(
                at >= day(earliest) && at <= day(latest),
                "{days} {chance} {at:?}"
            );
        }
    }

    #[test]
    fn the_cas_own_window_goes_before_that() {
        let lifetime = Lifetime {
            from: day(0),
            until: day(90),
        };
        let window = |start, end| {
            Some(Window {
                start: day(start),
                end: day(end),
            })
        };
        assert_eq!(renewal(lifetime, window(20, 22), 0.5), day(21));
        assert_eq!(renewal(lifetime, window(200, 220), 0.5), day(81));
        assert!(
            renewal(lifetime, window(0, 0), 0.5) <= day(0),
            "revoked: at once"
        );
    }

    #[test]
    fn failures_are_repeated_ever_more_rarely_and_within_the_limits_of_a_ca() {
        let mut at = day(0);
        let mut within_an_hour = 1;
        for count in 1..20 {
            let next = retry(at, count, None, 0.0);
            assert!(next.duration_since(at).unwrap() <= BACKOFF_MAX.mul_f64(1.75));
            at = next;
            within_an_hour += u32::from(at < day(0) + Duration::from_secs(60 * 60));
        }
        assert!(within_an_hour <= 4, "{within_an_hour}");
        assert_eq!(retry(day(0), 1, Some(day(2)), 0.0), day(2));
        assert_eq!(retry(day(0), 1, Some(day(99)), 0.0), day(7));
        assert!(is_from_the_future(day(1), day(0)));
    }

    #[test]
    fn renewal_information_is_asked_for_neither_all_the_time_nor_never() {
        let asked = |secs| ask_again(day(0), Duration::from_secs(secs)).duration_since(day(0));
        assert_eq!(asked(0).unwrap().as_secs(), 60);
        assert_eq!(asked(6 * 3600).unwrap().as_secs(), 6 * 3600);
        assert_eq!(asked(u64::MAX / 2).unwrap(), DAY);
    }
}
