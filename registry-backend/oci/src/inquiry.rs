//! What the edge asks a registry for itself, on the same socket as its clients' requests.
//!
//! None of it is under `/v2/`, and of a registry's site nothing else goes to the registry. The header
//! keeps out those, too, who would come by a site that leads to the registry's socket as to any other
//! service: no client can say it, since the edge removes all of its family.

/// The header without which there is nothing at these paths.
pub const HEADER: &str = "x-tidegate-inquiry";

/// What it says.
pub const EDGE: &str = "edge";

/// Whether requests can be served: 200, or 503 with a line of text for each reason against it.
pub const READY: &str = "/readyz";

/// Figures, in the text that Prometheus reads.
pub const METRICS: &str = "/metrics";

/// How long the edge waits for an answer.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
