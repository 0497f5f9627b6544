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
mod permission;
mod problem;
mod section;
mod value;
mod words;

pub use document::Document;
pub use permission::{Purpose, current_user, denied};
pub use problem::{Problem, Problems};
pub use section::{Kind, Section};
pub use value::{FromValue, Wrong};
pub use words::{choices, nearest, suggestion};
