//! Figures about the edge, in the text that Prometheus reads.
//!
//! A request adds to a few plain atomics, which are the process's own; all else is looked up when
//! somebody asks: what is under way, and how the certificates stand. No label has a value that a
//! client could choose.

mod certificates;
mod refusals;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use instruments::{Finished, LogLines, Process, Reloads, Requests, gauge};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

pub(crate) use self::certificates::count_order;
use self::refusals::{Refusals, Skipped};
use crate::in_flight::InFlight;
use crate::state::Current;

/// The requests that were answered.
static REQUESTS: Requests = Requests::new();

/// The bytes of their bodies, and of the replies'.
static BYTES_IN: AtomicU64 = AtomicU64::new(0);
static BYTES_OUT: AtomicU64 = AtomicU64::new(0);

/// Counts a request that is over.
pub(super) fn count_request(finished: Finished<'_>, bytes_in: usize, bytes_out: usize) {
    REQUESTS.count(finished);
    BYTES_IN.fetch_add(bytes_in as u64, Ordering::Relaxed);
    BYTES_OUT.fetch_add(bytes_out as u64, Ordering::Relaxed);
}

/// What figures are about.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) current: Arc<Current>,
    pub(crate) requests: Arc<InFlight>,
    pub(crate) connections: Arc<InFlight>,
    /// True once the edge is to stop.
    pub(crate) stop: watch::Receiver<bool>,
}

/// All figures of an edge.
pub(crate) struct Metrics(Registry);

impl Metrics {
    /// Makes them known.
    pub(crate) fn new(sources: Sources) -> Self {
        let mut page = Registry::default();
        page.register_collector(Box::new(Process::starts_now()));
        let edge = page.sub_registry_with_prefix("edge");
        instruments::register_build(edge);
        edge.register_collector(Box::new(Reloads));
        edge.register_collector(Box::new(LogLines));
        certificates::register(edge, &sources.current);
        edge.register_collector(Box::new(Refusals));
        edge.register_collector(Box::new(Skipped {
            current: Arc::clone(&sources.current),
        }));
        edge.register_collector(Box::new(Traffic(sources)));
        Self(page)
    }

    /// Returns the text of this moment. It reads files.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        instruments::text(&self.0)
    }
}

/// What requests add up to.
#[derive(Debug)]
struct Traffic(Sources);

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(sources) = self;
        REQUESTS.encode(&mut encoder)?;
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
        for (name, help, value) in [
            (
                "requests_in_flight",
                "Requests under way at this moment",
                sources.requests.count() as u64,
            ),
            (
                "connections_open",
                "Connections on which requests may come, at this moment",
                sources.connections.count() as u64,
            ),
            (
                "draining",
                "Whether the edge finishes its requests and then ends",
                u64::from(*sources.stop.borrow()),
            ),
        ] {
            gauge(&mut encoder, name, help, value)?;
        }
        Ok(())
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
