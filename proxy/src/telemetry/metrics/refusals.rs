//! Who was kept out, and what of the files that say so cannot be used.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::whole;
use crate::refusals;
use crate::state::Current;

/// Logins and requests that were refused.
#[derive(Debug)]
pub(super) struct Refusals;

impl Collector for Refusals {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut logins = encoder.encode_descriptor(
            "logins_refused",
            "Credentials refused since the start, by reason; to bring none is no login",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in refusals::logins() {
            let labels = [("reason", reason)];
            ConstCounter::new(count).encode(logins.encode_family(&labels)?)?;
        }
        let mut denials = encoder.encode_descriptor(
            "rule_denials",
            "What each rule or list of the config has denied since the start: requests, and actions in tokens",
            None,
            MetricType::Counter,
        )?;
        for (rule, count) in refusals::denials() {
            let labels = [("rule", &*rule)];
            ConstCounter::new(count).encode(denials.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Lines of files of users and groups that are left out.
#[derive(Debug)]
pub(super) struct Skipped {
    pub(super) current: Arc<Current>,
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
