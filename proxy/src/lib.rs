//! The edge: the only thing that faces the network.
//!
//! It takes connections, speaks TLS, finds the site of a request, decides who may come in, and
//! streams everything else to what stands behind: the registry on its Unix socket, or any other
//! service. It holds the keys and no data.
//!
//! # The map
//! - [`Config`] reads what the operator wrote and proves it, or says everything that is wrong;
//! - [`Edge`] binds the sockets and serves, [`Handle`] reloads and drains it (`server`, `reload`);
//! - `listener`: the sockets, and what is asked of a connection before its first request: who may
//!   connect, for whom a balancer speaks, how many there may be, how long a head may take;
//! - `edge`: the life of a request; `context`: what it carries from step to step;
//! - `filter`: the steps that look at the head alone; `auth`: who is asking, and what they may do;
//!   [`explain`]: the same, asked without an edge that runs;
//! - `site` and `upstream`: what a request is for, and where it goes; `outage`: whether that answers; `login`: how a site finds out
//!   who is asking; `token_page`: how it hands out tokens;
//! - [`state_dir`]: what the edge keeps of its own;
//! - `limits`: how many requests a site takes from whom, how long a body may be and how slow;
//! - `refusals`: how often who was kept out, and why;
//! - `respond`: the one place that turns a refusal into a reply;
//! - `state`: everything a reload swaps, as one value; `in_flight`: what a drain waits for;
//! - [`tls`]: certificates, which one a handshake gets, and whose it asks for; `certified`: what
//!   they make of a connection; `self_signing`: what certificates of our own begin with;
//! - [`acme`]: orders certificates and renews them;
//! - `watch`: files and folders that are read again when they change; `fetch`: what is read over
//!   HTTPS, in the background; `telemetry`: a line for each request, and figures about all.
//!
//! # The life of a request
//! 1. `listener` accepts the connection, or drops it, `tls::accept` gives the handshake the
//!    certificate of the site that it asks for, and Pingora reads the head.
//! 2. `edge` takes the state of this moment, to the request's end, and `edge::policy` asks whether
//!    the request may come in. `filter::limits` and `filter::host` look at the head; a plain listener
//!    answers here, with a challenge's answer or the way to TLS.
//! 3. The site is found by host; it must be the one that the handshake was made for. It says from
//!    which addresses it is reached, and how many requests it takes (`limits::quota`). For the
//!    registry `filter::registry` lets only its API through. `login` finds out who is there; the
//!    path is read by the parser that the registry routes with, and `auth::access` decides.
//! 4. Any of these may answer or refuse. The reply goes out, and a client that is still sending is
//!    listened to for a moment, so that it sees the reply.
//! 5. Otherwise `auth::identity` and `filter::forwarded` say which headers go and come, and bytes are
//!    streamed both ways, counted by `limits`. What is for the registry's socket goes by `edge::relay`,
//!    a blob in large pieces up and from the registry's open file down; all else goes by Pingora, to
//!    an address of `upstream`.
//! 6. `filter::response_headers` marks the reply. When all is sent, or when it failed, there is one
//!    line in the access log; of a flood of requests that were refused, some (`telemetry::refused`).
//!
//! # Invariants
//! - **Identity headers from downstream are removed, always**, and set only from what was verified
//!   here. So are the forwarding headers, unless the config trusts the proxy that sent them.
//! - **A body is streamed, never spooled**: what the edge holds of it is bounded, whatever its size.
//! - **No timeout runs while bytes move**, and a client answers for its own time alone
//!   (`limits::pace`).
//! - **What is remembered of addresses and names is bounded**, whoever comes from wherever.
//! - **Under `/v2/` every reply names the API's version once**, refusals and failures included.
//! - **A reply that fails half-way is cut**, never ended as if it were whole.
//! - **Hashing passwords never holds up a thread that streams.**
//! - **A config with a problem changes nothing.**
//! - Pingora is known to `edge`, `listener`, `server`, `upstream` and `tls::accept` alone, and its
//!   connector to `fetch` and `acme::client`.

pub mod acme;
mod auth;
mod certified;
mod config;
mod context;
mod edge;
mod error;
pub mod explain;
mod fetch;
mod filter;
mod in_flight;
mod limits;
mod listener;
mod login;
mod outage;
mod refusals;
pub mod reload;
mod respond;
mod self_signing;
mod sentence;
mod server;
mod site;
mod state;
pub mod state_dir;
mod telemetry;
pub mod tls;
mod token_page;
mod upstream;
mod watch;

#[doc(hidden)]
pub use auth::KnownPassword;
pub use auth::htpasswd;
pub use auth::robots;
pub use auth::token::sessions::Session;
pub use auth::token::used::LastUsed;
pub use auth::token::vault::VaultError;
pub use config::{Config, KeyType, RegistryPeer, read_hosts, read_key_types, read_state_dir};
pub use error::Error;
pub use server::{Drained, Edge, Handle};
pub use upstream::UnusablePeer;
