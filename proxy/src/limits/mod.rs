//! How much of everything a client may have, counted.
//!
//! - [`quota`]: how many requests a site takes, each second and at once;
//! - [`request_body`] and [`pace`]: how long the body of one request may be, and how slow;
//! - [`transfers`]: what the streams of HTTP/2 connections hold of the registry and of memory;
//! - [`resets`]: how many streams of an HTTP/2 connection may be opened and given up;
//! - [`bucket`]: what counts and forgets; [`neighbours`]: which addresses are one client's.
//!
//! How much that is stands in the config. Connections and the time for a head are counted in
//! `listener`, the size of a head in `filter::limits`, wrong passwords in `auth::attempts`.

pub(crate) mod bucket;
pub(crate) mod neighbours;
pub(crate) mod pace;
pub(crate) mod quota;
pub(crate) mod request_body;
pub(crate) mod resets;
pub(crate) mod transfers;
