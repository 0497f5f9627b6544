//! The edge: the only thing that faces the network.

mod auth;
mod config;
mod context;
mod edge;
mod error;
mod filter;
mod in_flight;
mod listener;
pub mod reload;
mod request_body;
mod respond;
mod server;
mod site;
mod state;
mod telemetry;
pub mod tls;
mod upstream;

pub use auth::htpasswd;
pub use config::{Config, RegistryPeer};
pub use error::Error;
pub use server::{Drained, Edge, Handle};
pub use upstream::UnusablePeer;
