//! Figures about one registry, in the text that Prometheus reads.
//!
//! The edge joins them with its own, each with the name of the registry as a label.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use instruments::{LogLines, Process, Reloads, Requests, counter, gauge};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry as Page, Unit};

use super::bounds::Bounds;
use super::disk::Disk;
use super::permits::Permits;
use crate::app::App;

/// What figures are about.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) app: Arc<App>,
    pub(super) permits: Arc<Permits>,
    pub(super) bounds: Arc<Bounds>,
    pub(super) disk: Arc<Disk>,
    /// Those that are over.
    pub(super) requests: Arc<Requests>,
    /// How many are under way.
    pub(super) under_way: Arc<AtomicUsize>,
}

/// Makes the page of all figures; its text is made with [`instruments::text`].
pub(super) fn page(sources: Sources) -> Page {
    let mut page = Page::with_prefix("registry");
    instruments::register_build(&mut page);
    page.register_collector(Box::new(Process::starts_now()));
    page.register_collector(Box::new(Reloads));
    page.register_collector(Box::new(LogLines));
    page.register_collector(Box::new(sources));
    page
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        self.requests.encode(encoder)?;
        // The one that asks is not meant.
        let under_way = self.under_way.load(Ordering::Relaxed).saturating_sub(1);
        let help = "Requests under way at this moment";
        gauge(encoder, "requests_in_flight", help, under_way as u64)?;
        let help = "Whether it finishes its requests and then ends";
        gauge(encoder, "draining", help, self.app.is_draining().into())?;
        self.encode_work(encoder)?;
        self.encode_uploads(encoder)?;
        self.encode_storage(encoder)
    }
}

impl Sources {
    fn encode_work(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut work = self.permits.work(&self.app.registry).to_vec();
        work.push(self.bounds.work());
        let mut waiting = encoder.encode_descriptor(
            "work_waiting",
            "Requests that wait for their turn to change, hash, list, read or write",
            None,
            MetricType::Gauge,
        )?;
        for work in &work {
            let labels = [("kind", work.kind)];
            whole(work.waiting).encode(waiting.encode_family(&labels)?)?;
        }
        let mut in_progress = encoder.encode_descriptor(
            "work_in_progress",
            "Requests whose turn it is",
            None,
            MetricType::Gauge,
        )?;
        for work in &work {
            let labels = [("kind", work.kind)];
            whole(work.in_progress).encode(in_progress.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_uploads(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let uploads = self.app.registry.upload_counts();
        let help = "Uploads that have begun and not ended, as far as is known";
        gauge(encoder, "uploads_open", help, uploads.open as u64)?;
        let help = "Open uploads that nobody has gone on with for an hour";
        gauge(encoder, "uploads_abandoned", help, uploads.abandoned as u64)?;
        let tally = self.app.registry.tally();
        let help = "Uploads that were removed since nobody went on with them";
        counter(encoder, "uploads_expired", help, tally.expired())?;
        let help = "Blobs written since the start, manifests apart";
        counter(encoder, "blobs_written", help, tally.blobs())?;
        let help = "Manifests written since the start";
        counter(encoder, "manifests_written", help, tally.manifests())
    }

    fn encode_storage(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = self.app.registry.storage_figures();
        let help = "Bytes written to storage since the start";
        counter(encoder, "written_bytes", help, figures.written_bytes())?;
        let syncs = encoder.encode_descriptor(
            "fsync_duration",
            "How long it takes until something is on the disk",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        figures.syncs.encode(syncs)?;
        let found = self.disk.known();
        let help = "Whether the storage could be written to when it was last tried";
        let writable = u64::from(found.trouble.is_none());
        gauge(encoder, "storage_writable", help, writable)?;
        if let Some(space) = found.space {
            let help = "Room on the file system that the registry may still fill";
            gauge(encoder, "storage_free_bytes", help, space.free_bytes)?;
            let help = "What is taken of the file system, by whomever";
            gauge(encoder, "storage_used_bytes", help, space.used_bytes)?;
        }
        Ok(())
    }
}

fn whole(number: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX))
}
