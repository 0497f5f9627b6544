//! Lines that the log's limits left out. The log is the process's own, so there is one account of it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// A log with a limit of its own.
#[derive(Clone, Copy, Debug)]
pub enum Log {
    /// The line of each request.
    Access,
    /// Everything else.
    Main,
}

impl Log {
    const ALL: [Self; 2] = [Self::Access, Self::Main];

    fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Main => "main",
        }
    }

    fn suppressed(self) -> &'static AtomicU64 {
        static ACCESS: AtomicU64 = AtomicU64::new(0);
        static MAIN: AtomicU64 = AtomicU64::new(0);
        match self {
            Self::Access => &ACCESS,
            Self::Main => &MAIN,
        }
    }
}

/// Counts a line that was left out.
pub fn count_suppressed(log: Log) {
    log.suppressed().fetch_add(1, Ordering::Relaxed);
}

/// `log_lines_suppressed_total`.
#[derive(Debug)]
pub struct LogLines;

impl Collector for LogLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut lines = encoder.encode_descriptor(
            "log_lines_suppressed",
            "Log lines left out since the start, since there were too many of their kind",
            None,
            MetricType::Counter,
        )?;
        for log in Log::ALL {
            let labels = [("log", log.name())];
            let count = ConstCounter::new(log.suppressed().load(Ordering::Relaxed));
            count.encode(lines.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
