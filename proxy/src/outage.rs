//! Whether an upstream answers: one warning when it is lost, and one line when it is back.
//!
//! Requests are what notices it; nothing is asked of an upstream besides. However many of them fail, and
//! however often an upstream comes and goes, there are two lines in [`QUIET`] at most.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long after a warning there is no other.
const QUIET: Duration = Duration::from_secs(10);

/// How many requests in a row an upstream may break off, or let wait too long, before it counts as lost: a
/// client may have found one that it cannot answer.
const UNANSWERED_MAX: u32 = 3;

/// How a request failed to reach an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Loss {
    /// It took the request, and did not answer.
    Unanswered,
    /// Nobody is there.
    Unreachable,
}

/// Whether an upstream is lost.
#[derive(Debug)]
pub(crate) struct Outage {
    /// What the config calls the upstream.
    upstream: Box<str>,
    /// The last request failed: what each one that is answered looks at.
    fails: AtomicBool,
    course: Mutex<Course>,
}

#[derive(Debug, Default)]
struct Course {
    /// Since when no request has been answered.
    since: Option<Instant>,
    failures: u32,
    /// There was a warning.
    is_told: bool,
    quiet_until: Option<Instant>,
}

impl Outage {
    /// Takes it that the upstream is there.
    pub(crate) fn new(upstream: &str) -> Self {
        Self {
            upstream: upstream.into(),
            fails: AtomicBool::new(false),
            course: Mutex::default(),
        }
    }

    /// Takes down that a request failed, and how.
    pub(crate) fn failed(&self, loss: Loss, error: &str) {
        if !self.failed_at(loss, Instant::now()) {
            return;
        }
        let upstream = &*self.upstream;
        match loss {
            Loss::Unanswered => tracing::warn!(upstream, error, "the upstream answers nothing"),
            Loss::Unreachable => tracing::warn!(upstream, error, "the upstream cannot be reached"),
        }
    }

    /// Takes down that a request is answered that was begun at `begun`.
    pub(crate) fn answered(&self, begun: Instant) {
        if self.fails.load(Ordering::Relaxed)
            && let Some(away) = self.answered_at(begun, Instant::now())
        {
            let (upstream, away_s) = (&*self.upstream, away.as_secs());
            tracing::info!(upstream, away_s, "the upstream is back");
        }
    }

    /// Returns whether that is to be told.
    fn failed_at(&self, loss: Loss, now: Instant) -> bool {
        let mut course = self.course();
        self.fails.store(true, Ordering::Relaxed);
        course.since.get_or_insert(now);
        course.failures = course.failures.saturating_add(1);
        let is_lost = loss == Loss::Unreachable || course.failures >= UNANSWERED_MAX;
        let is_quiet = course.quiet_until.is_some_and(|until| now < until);
        if !is_lost || is_quiet || course.is_told {
            return false;
        }
        course.is_told = true;
        course.quiet_until = Some(now + QUIET);
        true
    }

    /// Returns for how long the upstream was away, if that is to be told.
    fn answered_at(&self, begun: Instant, now: Instant) -> Option<Duration> {
        let mut course = self.course();
        // What was under way when it went says nothing.
        let since = course.since.filter(|since| begun > *since)?;
        self.fails.store(false, Ordering::Relaxed);
        let is_told = course.is_told;
        *course = Course {
            quiet_until: course.quiet_until,
            ..Course::default()
        };
        is_told.then(|| now.saturating_duration_since(since))
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_loss_is_told_once_and_the_return_with_how_long_it_was() {
        let (outage, begin) = (Outage::new("registry"), Instant::now());
        let told = (0..1000).filter(|_| outage.failed_at(Loss::Unreachable, begin));
        assert_eq!(told.count(), 1);
        // It was on its way already.
        assert_eq!(outage.answered_at(begin, begin + SECOND), None);
        let answered = || outage.answered_at(begin + 6 * SECOND, begin + 7 * SECOND);
        assert_eq!(answered(), Some(7 * SECOND));
        assert_eq!(answered(), None);
    }

    #[test]
    fn one_request_that_is_not_answered_is_no_loss() {
        let (outage, begin) = (Outage::new("registry"), Instant::now());
        for turn in 0..10 {
            let now = begin + turn * SECOND;
            assert!(!outage.failed_at(Loss::Unanswered, now));
            assert!(!outage.failed_at(Loss::Unanswered, now));
            assert_eq!(outage.answered_at(now + SECOND / 2, now + SECOND), None);
        }
        let now = begin + 60 * SECOND;
        let told = (0..10).map(|_| outage.failed_at(Loss::Unanswered, now));
        let told: Vec<bool> = told.collect();
        assert_eq!(told.iter().position(|told| *told), Some(2));
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
    }

    #[test]
    fn one_that_comes_and_goes_is_told_of_now_and_then() {
        let (outage, begin) = (Outage::new("registry"), Instant::now());
        let (mut lost, mut back) = (0, 0);
        for turn in 0..600 {
            let now = begin + turn * SECOND / 10;
            lost += u32::from(outage.failed_at(Loss::Unreachable, now));
            let soon = now + SECOND / 20;
            back += u32::from(outage.answered_at(soon, soon).is_some());
        }
        assert_eq!((lost, back), (6, 6));
    }
}
