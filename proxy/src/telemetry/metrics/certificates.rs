//! How the certificates stand, and what came of their orders.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::whole;
use crate::state::{Current, Standing};

/// Orders of certificates, by site and outcome.
static ORDERS: LazyLock<Family<[(&'static str, String); 2], Counter>> =
    LazyLock::new(Family::default);

/// Counts an order that was fulfilled, or came to nothing.
pub(crate) fn count_order(site: &str, issued: bool) {
    let outcome = if issued { "issued" } else { "failed" };
    let labels = [("site", site.to_owned()), ("outcome", outcome.to_owned())];
    ORDERS.get_or_create(&labels).inc();
}

/// Makes them known.
pub(super) fn register(registry: &mut Registry, current: &Arc<Current>) {
    registry.register(
        "certificate_orders",
        "Orders of certificates since the start, one for each CA that was asked",
        ORDERS.clone(),
    );
    let current = Arc::clone(current);
    registry.register_collector(Box::new(Certificates { current }));
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
