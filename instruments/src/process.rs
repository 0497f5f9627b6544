//! What the process takes of the machine, by the names that every Prometheus client uses.

use std::fmt;
use std::fs;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::gauge;

/// This process: `process_cpu_seconds_total`, `process_open_fds` and so on.
#[derive(Debug)]
pub struct Process {
    started: SystemTime,
}

impl Process {
    /// Takes down that the process starts now. (Where a unit hides `/proc/stat`, nobody can tell later.)
    pub fn starts_now() -> Self {
        Self {
            started: SystemTime::now(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let seconds = Some(&Unit::Seconds);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        ConstGauge::new(started.as_secs_f64()).encode(encoder.encode_descriptor(
            "process_start_time",
            "When the process started, in seconds of Unix time",
            seconds,
            MetricType::Gauge,
        )?)?;
        ConstCounter::new(cpu_time().as_secs_f64()).encode(encoder.encode_descriptor(
            "process_cpu",
            "CPU time of the process",
            seconds,
            MetricType::Counter,
        )?)?;
        if let Ok((virtual_bytes, resident_bytes)) = memory() {
            let name = "process_virtual_memory_bytes";
            gauge(&mut encoder, name, "Address space", virtual_bytes)?;
            let name = "process_resident_memory_bytes";
            gauge(&mut encoder, name, "Memory in use", resident_bytes)?;
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            // The one that lists them is not meant.
            let open = descriptors.count().saturating_sub(1) as u64;
            gauge(&mut encoder, "process_open_fds", "Open descriptors", open)?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            let help = "How many descriptors may be open";
            gauge(&mut encoder, "process_max_fds", help, limit)?;
        }
        Ok(())
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

/// Returns the bytes of the address space, and those that are in memory.
fn memory() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let page = rustix::param::page_size() as u64;
    let mut pages = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || match pages.next() {
        Some(Ok(pages)) => Ok(pages * page),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    };
    Ok((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_running_process_has_all_of_it() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::starts_now()));
        let text = crate::text(&registry).unwrap();
        for name in [
            "process_start_time_seconds",
            "process_cpu_seconds_total",
            "process_virtual_memory_bytes",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
        ] {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let value: f64 = value
                .unwrap_or_else(|| panic!("no {name}"))
                .parse()
                .unwrap();
            assert!(value > 0.0, "{name} {value}");
        }
    }
}
