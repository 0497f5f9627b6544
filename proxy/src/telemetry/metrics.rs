//! Figures about the edge, in the text that Prometheus reads.
//!
//! A request adds to a few plain atomics, which are the process's own; all else is looked up when
//! somebody asks: what is under way, and how the certificates stand. No label has a value that a
//! client could choose.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::in_flight::InFlight;
use crate::state::{Current, Standing};

/// What the text is called in HTTP.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The classes of statuses, as they are labelled.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The requests that were answered, by class.
static REQUESTS: [AtomicU64; CLASSES.len()] = [const { AtomicU64::new(0) }; CLASSES.len()];

/// The bytes of their bodies, and of the replies'.
static BYTES_IN: AtomicU64 = AtomicU64::new(0);
static BYTES_OUT: AtomicU64 = AtomicU64::new(0);

/// Orders of certificates, by site and outcome.
static ORDERS: LazyLock<Family<[(&'static str, String); 2], Counter>> =
    LazyLock::new(Family::default);

/// Whether the last config that was to be loaded is in force, when one last was, in seconds of Unix
/// time, and how many of its keys wait for a restart.
static LOADED: AtomicBool = AtomicBool::new(true);
static LOADED_AT: AtomicU64 = AtomicU64::new(0);
static WAITING: AtomicU64 = AtomicU64::new(0);

/// Takes down how a load of the config ended.
pub(crate) fn note_reload(in_force: bool, waiting: usize) {
    LOADED.store(in_force, Ordering::Relaxed);
    if in_force {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        LOADED_AT.store(now.unwrap_or_default().as_secs(), Ordering::Relaxed);
        WAITING.store(waiting as u64, Ordering::Relaxed);
    }
}

/// Counts a request that is over.
pub(crate) fn count_request(status: u16, bytes_in: usize, bytes_out: usize) {
    let class = usize::from(status / 100).saturating_sub(1);
    if let Some(count) = REQUESTS.get(class) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    BYTES_IN.fetch_add(bytes_in as u64, Ordering::Relaxed);
    BYTES_OUT.fetch_add(bytes_out as u64, Ordering::Relaxed);
}

/// Counts an order that was fulfilled, or came to nothing.
pub(crate) fn count_order(site: &str, issued: bool) {
    let outcome = if issued { "issued" } else { "failed" };
    let labels = [("site", site.to_owned()), ("outcome", outcome.to_owned())];
    ORDERS.get_or_create(&labels).inc();
}

/// All figures of an edge.
pub(crate) struct Metrics(Registry);

impl Metrics {
    /// Makes them known.
    pub(crate) fn new(
        current: Arc<Current>,
        requests: Arc<InFlight>,
        connections: Arc<InFlight>,
    ) -> Self {
        let mut registry = Registry::with_prefix("edge");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", build);
        registry.register_collector(Box::new(Loaded));
        registry.register_collector(Box::new(Traffic {
            requests,
            connections,
        }));
        registry.register(
            "certificate_orders",
            "Orders of certificates since the start, one for each CA that was asked",
            ORDERS.clone(),
        );
        registry.register_collector(Box::new(Skipped {
            current: Arc::clone(&current),
        }));
        registry.register_collector(Box::new(Certificates { current }));
        Self(registry)
    }

    /// Returns the text of this moment. It reads files.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut written = String::new();
        text::encode(&mut written, &self.0)?;
        Ok(written)
    }
}

/// How the config was loaded.
#[derive(Debug)]
struct Loaded;

impl Collector for Loaded {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in [
            (
                "config_last_reload_successful",
                "Whether the config that was to be loaded last is in force, but for keys that need a restart",
                u64::from(LOADED.load(Ordering::Relaxed)),
            ),
            (
                "config_last_reload_success_timestamp_seconds",
                "When a config was last put in force",
                LOADED_AT.load(Ordering::Relaxed),
            ),
            (
                "config_keys_waiting_for_restart",
                "How many changed keys of the config take effect with the next restart",
                WAITING.load(Ordering::Relaxed),
            ),
        ] {
            let gauge = ConstGauge::new(whole(value));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// What requests add up to.
#[derive(Debug)]
struct Traffic {
    requests: Arc<InFlight>,
    connections: Arc<InFlight>,
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut requests = encoder.encode_descriptor(
            "requests",
            "Requests answered since the start, by the class of the status",
            None,
            MetricType::Counter,
        )?;
        for (class, count) in CLASSES.iter().zip(&REQUESTS) {
            let labels = [("status", *class)];
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(requests.encode_family(&labels)?)?;
        }
        for (name, help, count) in [
            (
                "request_body",
                "Bytes of the bodies of requests, counted at their end",
                &BYTES_IN,
            ),
            (
                "response_body",
                "Bytes of the bodies of replies, counted at their end",
                &BYTES_OUT,
            ),
        ] {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            let bytes = Some(&Unit::Bytes);
            count.encode(encoder.encode_descriptor(name, help, bytes, MetricType::Counter)?)?;
        }
        for (name, help, under_way) in [
            (
                "requests_in_flight",
                "Requests under way at this moment",
                &self.requests,
            ),
            (
                "connections_open",
                "Connections on which requests may come, at this moment",
                &self.connections,
            ),
        ] {
            let count = ConstGauge::new(whole(under_way.count() as u64));
            count.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// Lines of files of users and groups that are left out.
#[derive(Debug)]
struct Skipped {
    current: Arc<Current>,
}

impl Collector for Skipped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let state = self.current.take();
        let mut lines = encoder.encode_descriptor(
            "auth_file_skipped_lines",
            "Lines of the htpasswd file and of the group file that cannot be used and are left out",
            None,
            MetricType::Gauge,
        )?;
        for site in state.sites.iter() {
            for (file, count) in site.skipped_lines() {
                let labels = [("site", &*site.name), ("file", file)];
                let count = ConstGauge::new(whole(count as u64));
                count.encode(lines.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// How the certificates stand.
#[derive(Debug)]
struct Certificates {
    current: Arc<Current>,
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let standings = self.current.take().standings();
        let seconds = Some(&Unit::Seconds);
        let mut expiry = encoder.encode_descriptor(
            "certificate_expiry_timestamp",
            "When the certificate that is shown expires; 0 while a self-signed placeholder is",
            seconds,
            MetricType::Gauge,
        )?;
        for standing in &standings {
            let labels = [("site", &*standing.site), ("key_type", &*standing.key_type)];
            let at = ConstGauge::new(standing.expires.map_or(0, since_1970));
            at.encode(expiry.encode_family(&labels)?)?;
        }
        let refusal = |standing: &Standing| standing.record.as_ref()?.failure.clone();
        let managed: Vec<_> = standings
            .iter()
            .filter(|standing| standing.record.is_some())
            .map(|standing| {
                let labels = [("site", &*standing.site), ("key_type", &*standing.key_type)];
                (labels, refusal(standing))
            })
            .collect();
        let mut failures = encoder.encode_descriptor(
            "certificate_failures",
            "Orders in a row that came to nothing; 0 when the last one was fulfilled",
            None,
            MetricType::Gauge,
        )?;
        for (labels, refusal) in &managed {
            let count = refusal.as_ref().map_or(0, |refusal| refusal.count);
            ConstGauge::new(i64::from(count)).encode(failures.encode_family(labels)?)?;
        }
        let mut failed = encoder.encode_descriptor(
            "certificate_last_failure_timestamp",
            "When the last order came to nothing; 0 when it was fulfilled",
            seconds,
            MetricType::Gauge,
        )?;
        for (labels, refusal) in &managed {
            let at = refusal.as_ref().and_then(|refusal| refusal.at);
            let at = ConstGauge::new(at.map_or(0, since_1970));
            at.encode(failed.encode_family(labels)?)?;
        }
        Ok(())
    }
}

fn since_1970(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |time| whole(time.as_secs()))
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_in_its_class_with_its_bytes() {
        let figures = || {
            let class = |class: usize| REQUESTS[class].load(Ordering::Relaxed);
            (class(1), class(3), BYTES_IN.load(Ordering::Relaxed))
        };
        let before = figures();
        count_request(201, 7, 0);
        count_request(499, 3, 0);
        count_request(0, 0, 0);
        let after = figures();
        assert!(after.0 > before.0 && after.1 > before.1 && after.2 >= before.2 + 10);
    }
}
