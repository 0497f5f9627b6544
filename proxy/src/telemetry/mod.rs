//! What the edge says about its work. Where it is written is the command line's matter.

pub(crate) mod access_log;
pub(crate) mod exposition;
pub(crate) mod metrics;
pub(crate) mod refused;
mod shown;
