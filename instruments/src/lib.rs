//! What both roles measure themselves with: requests, durations, the process, reloads, log lines.
//!
//! To count costs a few relaxed atomics; text is made when somebody asks. Every label value is of a
//! fixed set: none can be chosen by a client, so a page has a bounded size.

mod build;
mod histogram;
mod log_lines;
mod process;
mod reloads;
mod requests;
mod route;

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

pub use build::register as register_build;
pub use histogram::Histogram;
pub use log_lines::{Log, LogLines, count_suppressed};
pub use process::Process;
pub use reloads::{Reloads, is_config_in_force, note_reload};
pub use requests::{Finished, Requests};
pub use route::RouteClass;

/// What the text is called in HTTP.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns the text of this moment, as `OpenMetrics` 1.0 has it. Collectors may read files.
///
/// # Errors
/// When a collector fails.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut written = String::new();
    text::encode(&mut written, registry)?;
    Ok(written)
}

/// Writes a gauge without labels.
///
/// # Errors
/// When the encoder fails.
pub fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// Writes a counter without labels; `_total` is added to its name.
///
/// # Errors
/// When the encoder fails.
pub fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}
