//! Which build runs.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The commit that was built, where `make build` knew it.
const COMMIT: Option<&str> = option_env!("TIDEGATE_COMMIT");

/// Registers `build_info`: 1, labelled with `version` and `commit`, which is empty where it is not known.
pub fn register(registry: &mut Registry) {
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("commit", COMMIT.unwrap_or_default()),
    ];
    registry.register("build", "The program that runs", Info::new(labels));
}
