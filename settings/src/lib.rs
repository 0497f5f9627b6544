//! Reads a TOML config key by key and keeps **every** problem, each with its file, line and key.
//!
//! An operator who runs a check wants the whole list, not the first mistake. So nothing here stops
//! at an error: a [`Section`] hands out what it could read, notes what it could not, and when it is
//! dropped notes each key that nobody asked for. [`Document::finish`] then says whether all is well.
//!
//! This crate knows no key of the product: the edge, the registry and the command line each read
//! their own tables with it.

mod document;
mod lines;
mod problem;
mod section;

pub use document::Document;
pub use problem::{Problem, Problems};
pub use section::{Kind, Section};
