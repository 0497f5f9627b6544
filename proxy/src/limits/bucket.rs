//! A leaking bucket: counts what happens and forgets it at a steady rate.
//!
//! Failed logins and requests are both counted with it. `governor` would be the crate for the
//! latter, but it can only take, not ask, which failed logins need, and its store of keys grows
//! until it is swept; what would be left of it is this arithmetic.

use std::time::{Duration, Instant};

/// How full it is, and since when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    /// An empty one.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            level: 0.0,
            at: now,
        }
    }

    /// Returns how full it is when `leak` of it are lost each second.
    pub(crate) fn level(&self, now: Instant, leak: f64) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.level - passed * leak).max(0.0)
    }

    /// Adds one, to `size` at most.
    pub(crate) fn add(&mut self, now: Instant, leak: f64, size: f64) {
        self.level = (self.level(now, leak) + 1.0).min(size);
        self.at = self.at.max(now);
    }

    /// Returns whether one more fits into what is lost in a second.
    pub(crate) fn has_room(&self, now: Instant, leak: f64) -> bool {
        self.full_for(now, leak, leak).is_zero()
    }

    /// Returns how long it takes until one more fits into `size`; nothing when it does now.
    pub(crate) fn full_for(&self, now: Instant, leak: f64, size: f64) -> Duration {
        let over = self.level(now, leak) + 1.0 - size;
        // What rounding leaves behind is less than a thousandth of one.
        if over < 0.001 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(over / leak).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_up_and_says_when_there_is_room_again() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(begin);
        let (leak, size) = (0.5, 3.0);
        for _ in 0..3 {
            assert_eq!(bucket.full_for(begin, leak, size), Duration::ZERO);
            bucket.add(begin, leak, size);
        }
        assert_eq!(bucket.full_for(begin, leak, size), Duration::from_secs(2));
        bucket.add(begin, leak, size);
        let later = begin + Duration::from_secs(1);
        assert_eq!(bucket.full_for(later, leak, size), Duration::from_secs(1));
        let later = begin + Duration::from_secs(2);
        assert_eq!(bucket.full_for(later, leak, size), Duration::ZERO);
    }

    #[test]
    fn it_forgets_everything_in_time_and_never_owes() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(begin);
        bucket.add(begin, 1.0, 10.0);
        let later = begin + Duration::from_secs(3600);
        assert!(bucket.level(later, 1.0) < f64::EPSILON);
        bucket.add(later, 1.0, 10.0);
        assert!((bucket.level(later, 1.0) - 1.0).abs() < f64::EPSILON);
        // A moment that lies before the last one changes nothing.
        assert!((bucket.level(begin, 1.0) - 1.0).abs() < f64::EPSILON);
    }
}
