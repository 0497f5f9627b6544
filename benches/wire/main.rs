//! The benchmarks' client: HTTP/1.1 over TLS, as cheap as a client can be.
//!
//! It shares the machine with the stacks that are measured, so what it costs is taken from them. It
//! reads and writes in pieces of 256 KiB, does nothing with what it gets but count it, and prints
//! one line of figures for the Python beside it.

mod connection;
mod floor;
mod images;
mod load;
mod transfer;

use std::io::{self, Write};
use std::net::IpAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::connection::Server;

/// Asks a registry, and prints what that took.
#[derive(Parser)]
struct Arguments {
    /// The certificate that the server's must be signed by.
    #[arg(long, default_value = "")]
    ca: String,
    /// The header's value.
    #[arg(long, default_value = "")]
    authorization: String,
    /// As in `https://localhost:443`.
    #[arg(long, default_value = "")]
    origin: String,
    /// Where that is.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// One request, with a file as its body: status, bytes received, seconds, seconds from its last
    /// byte to the reply's first, location.
    Transfer(transfer::Transfer),
    /// The same request again and again: requests, seconds, median and 99th percentile in
    /// milliseconds.
    Load(load::Load),
    /// Serves blobs as cheaply as can be, to compare with.
    Floor(floor::Floor),
    /// Images, pushed or pulled as docker does it: images, seconds.
    Images(images::Images),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let server = || {
        Server::new(
            &arguments.ca,
            &arguments.authorization,
            &arguments.origin,
            arguments.address,
        )
    };
    let line = match &arguments.question {
        Question::Floor(floor) => return floor.run(),
        Question::Transfer(transfer) => transfer.run(&server()?)?,
        Question::Load(load) => load.run(&server()?)?,
        Question::Images(images) => images.run(&server()?)?,
    };
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}
