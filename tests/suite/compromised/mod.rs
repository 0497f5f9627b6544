//! One of the two roles in the hands of somebody else: the other goes on with whatever is not its.
//!
//! What is shared is the socket between them, and what has come over it. The one in the wrong hands is
//! played by the test, which speaks the protocol of this version and of the one before.

mod edge;
mod registry;

use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

/// How many slots there are for bodies, and how large each is.
const SLOTS: usize = 6;
const SLOT_BYTES: usize = 512 << 10;

/// More than there are threads that answer, in either role.
fn many() -> usize {
    2 * thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work`, which must not take long.
fn soon<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    let result = result.recv_timeout(Duration::from_secs(20));
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Memory as the roles share it.
fn memory() -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create("evil", flags).unwrap();
    ftruncate(&memory, (SLOTS * SLOT_BYTES) as u64).unwrap();
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&memory, seals).unwrap();
    memory
}

/// A note of a slot that is full.
fn note(number: u8) -> [u8; 4] {
    let [.., high, middle, low] = SLOT_BYTES.to_be_bytes();
    [number, high, middle, low]
}
