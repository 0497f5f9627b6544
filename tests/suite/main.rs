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

mod access_clients;
mod access_matrix;
mod access_rules;
mod acme;
mod acme_faults;
mod acme_renewal;
mod acme_traffic;
mod at_once;
mod audit;
mod authentication;
mod blobs;
mod bounded_replies;
mod brute_force;
mod check_as_run;
mod check_config;
mod check_messages;
mod cli;
mod client_certificates;
mod clients_containers;
mod clients_docker;
mod clients_go;
mod compromised;
mod conformance;
mod connections;
mod discovery;
mod drain;
mod durability;
mod edge_http;
mod edge_tls;
mod existing_trees;
mod fairness;
mod full_disk;
mod guarded;
mod health;
mod http2_readers;
mod instances;
mod journal;
mod layering;
mod layout_interchange;
mod log_files;
mod log_floods;
mod logs;
mod manifests;
mod manifests_refused;
mod memory;
mod metrics;
mod metrics_of_registries;
mod monitoring;
mod outages;
mod overload;
mod overload_http2;
mod proxy_protocol;
mod reload;
mod second_site;
mod smuggling;
mod smuggling_http2;
mod spec_blobs;
mod spec_manifests;
mod spellings;
mod systemd;
mod systemd_booted;
mod tls_scan;
mod tls_sessions;
mod tokens;
mod up;
mod up_again;
mod upgrade;
mod uploads;
mod uploads_refused;
mod uploads_resumed;
