//! How the config was loaded. It is the process's own, so there is one account of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::gauge;

/// Whether the last config that was to be loaded is in force, when one last was, in seconds of Unix
/// time, and how many of its keys wait for a restart.
static LOADED: AtomicBool = AtomicBool::new(true);
static LOADED_AT: AtomicU64 = AtomicU64::new(0);
static WAITING: AtomicU64 = AtomicU64::new(0);

/// Takes down how a load of the config ended: whether it is in force, and how many of its changed keys
/// wait for a restart.
pub fn note_reload(in_force: bool, waiting: usize) {
    LOADED.store(in_force, Ordering::Relaxed);
    if in_force {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        LOADED_AT.store(now.unwrap_or_default().as_secs(), Ordering::Relaxed);
        WAITING.store(waiting as u64, Ordering::Relaxed);
    }
}

/// Returns whether the config that was to be loaded last is in force.
pub fn is_config_in_force() -> bool {
    LOADED.load(Ordering::Relaxed)
}

/// `config_last_reload_successful` and its kin.
#[derive(Debug)]
pub struct Reloads;

impl Collector for Reloads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in [
            (
                "config_last_reload_successful",
                "Whether the config that was to be loaded last is in force, but for keys that need a restart",
                u64::from(is_config_in_force()),
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
            gauge(&mut encoder, name, help, value)?;
        }
        Ok(())
    }
}
