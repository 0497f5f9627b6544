//! What the tests start, drive and look at: real processes, real clients, raw connections.
//!
//! Nothing here knows how Tidegate is built. A test sees what a user sees: the program, its
//! config, its sockets, its files, its logs.

mod authority;
mod booted;
pub(crate) mod descriptors;
mod disk;
mod dockerd;
pub(crate) mod h2;
mod http;
mod images;
mod oci;
mod pebble;
mod peer;
mod ports;
mod process;
mod recorder;
mod rig;
mod tls;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use authority::Authority;
pub(crate) use booted::Booted;
pub(crate) use disk::SmallDisk;
pub(crate) use dockerd::Dockerd;
pub(crate) use http::{Client, Exchange, Response};
pub(crate) use images::{blobs_of, layout_with_layers, tar_of};
pub(crate) use oci::{
    INDEX, Image, MANIFEST, digest, digest512, half_a_push, image, image_with, index_of, noise,
    push_blob, push_image, push_manifest, with_query,
};
pub(crate) use pebble::Pebble;
pub(crate) use peer::DockerRegistry;
pub(crate) use ports::free_port;
pub(crate) use process::{Process, descendants, memory_bytes, memory_peak_bytes, open_files};
pub(crate) use recorder::{Answers, Recorder, Seen};
pub(crate) use rig::{PASSWORD, Rig, Setup, USER, tidegate};
pub(crate) use tls::{Pair, peer_certificate};
pub(crate) use tools::{Output, heavy, missing, run, skip, try_run};

/// Leaves the test, visibly and counted, when one of the named programs is not installed.
macro_rules! need {
    ($($tool:literal),+) => {
        if let Some(tool) = crate::harness::missing(&[$($tool),+]) {
            crate::harness::skip(&format!("no {tool}"));
            return;
        }
    };
}
pub(crate) use need;

/// Waits until `probe` has an answer; panics, naming `what`, when none comes in half a minute.
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(30), what, probe)
}

/// [`eventually`] with its own deadline.
pub(crate) fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain: {what}"
        );
        pause(Duration::from_millis(20));
    }
}

/// Lets time pass: between two polls, or where a test's subject is time itself.
#[expect(
    clippy::disallowed_methods,
    reason = "tests run on threads of their own"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Every file below a folder, in order; none when there is no folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => files.push(entry.path()),
            }
        }
    }
    files.sort();
    files
}
