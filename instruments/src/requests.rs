//! Requests, by what they were for, their method and their status.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

use crate::{Histogram, RouteClass};

/// The methods that are told apart; each other one is `other`.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other",
];

/// The statuses that are told apart, in order.
const CODES: [u16; 27] = [
    200, 201, 202, 204, 206, 304, 308, 400, 401, 403, 404, 405, 408, 409, 412, 413, 414, 416, 421,
    429, 431, 499, 500, 502, 503, 504, 507,
];

/// What each other one is counted as. A query for `5..` finds these, too.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const ROUTES: usize = RouteClass::ALL.len();
const STATUSES: usize = CODES.len() + CLASSES.len();

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// What it was for.
    pub route: RouteClass,
    /// Its method, as the client wrote it.
    pub method: &'a str,
    /// What it was answered with; 499 if its client went away.
    pub status: u16,
    /// From its head to the end of the reply.
    pub duration: Duration,
}

/// All requests since the start.
#[derive(Debug)]
pub struct Requests {
    counts: [[[AtomicU64; STATUSES]; METHODS.len()]; ROUTES],
    durations: [[Histogram; METHODS.len()]; ROUTES],
}

impl Requests {
    /// Starts with none.
    pub const fn new() -> Self {
        Self {
            counts: [const { [const { [const { AtomicU64::new(0) }; STATUSES] }; METHODS.len()] };
                ROUTES],
            durations: [const { [const { Histogram::new() }; METHODS.len()] }; ROUTES],
        }
    }

    /// Counts a request; a status that is none is left out.
    pub fn count(&self, finished: Finished<'_>) {
        let route = finished.route as usize;
        let known = METHODS.iter().position(|known| *known == finished.method);
        let method = known.unwrap_or(METHODS.len() - 1);
        let status = match CODES.binary_search(&finished.status) {
            Ok(at) => at,
            Err(_) => match usize::from(finished.status / 100) {
                class @ 1..=5 => CODES.len() + class - 1,
                _ => return,
            },
        };
        let counts = self.counts.get(route).and_then(|route| route.get(method));
        if let Some(count) = counts.and_then(|method| method.get(status)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let durations = self.durations.get(route);
        if let Some(durations) = durations.and_then(|route| route.get(method)) {
            durations.observe(finished.duration);
        }
    }

    /// Writes `requests_total` and `request_duration_seconds`, without what never happened.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Requests answered since the start";
        let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (route, method, statuses) in each(&self.counts) {
            for (at, count) in statuses.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count == 0 {
                    continue;
                }
                let status = status(at);
                let labels = [("route", route), ("method", method), ("status", &status)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "request_duration",
            "From the head of a request to the end of its reply",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (route, method, durations) in each(&self.durations) {
            if !durations.is_empty() {
                let labels = [("route", route), ("method", method)];
                durations.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Default for Requests {
    fn default() -> Self {
        Self::new()
    }
}

/// Visits what is kept for each class of routes and each method, with the values of these labels.
fn each<T>(
    kept: &[[T; METHODS.len()]; ROUTES],
) -> impl Iterator<Item = (&'static str, &'static str, &T)> {
    let routes = RouteClass::ALL.iter().zip(kept);
    routes.flat_map(|(route, methods)| {
        let methods = METHODS.iter().zip(methods);
        methods.map(|(method, kept)| (route.name(), *method, kept))
    })
}

/// Returns the value of the label for the status that is counted at this place.
fn status(at: usize) -> String {
    let class = |at: usize| CLASSES.get(at - CODES.len()).copied();
    CODES.get(at).map_or_else(
        || class(at).unwrap_or_default().to_owned(),
        ToString::to_string,
    )
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct Page(Requests);

    impl Collector for Page {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            self.0.encode(&mut encoder)
        }
    }

    #[test]
    fn what_a_client_writes_never_becomes_a_label() {
        let requests = Requests::new();
        let mut finished = Finished {
            route: RouteClass::Blob,
            method: "GET",
            status: 200,
            duration: Duration::from_millis(3),
        };
        requests.count(finished);
        finished.method = "BREW";
        finished.status = 418;
        requests.count(finished);
        finished.status = 0;
        requests.count(finished);
        finished.status = 999;
        requests.count(finished);
        let mut registry = Registry::with_prefix("edge");
        registry.register_collector(Box::new(Page(requests)));
        let text = crate::text(&registry).unwrap();
        let samples: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("edge_requests_total"))
            .collect();
        assert_eq!(
            samples,
            [
                "edge_requests_total{route=\"blob\",method=\"GET\",status=\"200\"} 1",
                "edge_requests_total{route=\"blob\",method=\"other\",status=\"4xx\"} 1",
            ]
        );
        let slow =
            "edge_request_duration_seconds_bucket{le=\"0.005\",route=\"blob\",method=\"GET\"} 1";
        assert!(text.contains(slow), "{text}");
        assert!(text.contains("le=\"+Inf\""), "{text}");
        assert!(!text.contains("BREW"));
    }

    #[test]
    fn each_status_has_one_place() {
        assert!(CODES.is_sorted());
        let places: Vec<String> = (0..STATUSES).map(status).collect();
        assert_eq!(places.first().unwrap(), "200");
        assert_eq!(places.last().unwrap(), "5xx");
    }
}
