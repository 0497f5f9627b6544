//! How long things take.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::MetricEncoder;

/// The upper bounds of the buckets, in microseconds: a read of a small thing at one end, a large layer
/// at the other.
const BOUNDS_MICROS: [u64; 12] = [
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// Counts durations in buckets from 1 ms to 5 min.
#[derive(Debug)]
pub struct Histogram {
    /// One for each bound, and one for what is beyond all.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// Starts with nothing.
    pub const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BOUNDS_MICROS.len() + 1],
            sum_micros: AtomicU64::new(0),
        }
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Returns whether nothing was counted yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts().all(|count| count == 0)
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
    }

    /// Writes what was counted, in seconds.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        // `f64::MAX` is what the encoder writes as +Inf.
        let bounds = BOUNDS_MICROS.iter().map(|bound| seconds(*bound));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::MAX]).zip(self.counts()).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.sum_micros.load(Ordering::Relaxed));
        encoder.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new();
        assert!(histogram.is_empty());
        for micros in [0, 1_000, 1_001, 300_000_000, 300_000_001, u64::MAX >> 1] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = histogram.counts().collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
