//! The suite: the real program, driven by real clients and by rude ones.
//!
//! One file per topic; a test's name says what must be true. See `harness` for what they share.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "a test that is surprised fails"
)]

mod harness;

mod blobs;
mod conformance;
mod discovery;
mod drain;
mod durability;
mod edge_http;
mod layering;
mod layout_interchange;
mod manifests;
mod memory;
mod reload;
mod uploads;
