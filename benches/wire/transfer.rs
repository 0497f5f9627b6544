//! One request with a large body, there or back.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::connection::{Connection, PIECE, Server};

/// What docker's client writes at once.
const CHUNK: usize = 32 * 1024;

#[derive(Args)]
pub(crate) struct Transfer {
    method: String,
    path: String,
    /// The body; that of a PATCH is sent without a length, as docker does.
    file: Option<PathBuf>,
}

impl Transfer {
    pub(crate) fn run(&self, server: &Server) -> Result<String> {
        let mut connection = server.connect()?;
        let start = Instant::now();
        let head = server.head(&self.method, server.path_of(&self.path));
        let reply = if let Some(path) = &self.file {
            let file = File::open(path).with_context(|| path.display().to_string())?;
            if self.method == "PATCH" {
                send_chunked(&mut connection, &head, file)?;
            } else {
                send(&mut connection, &head, file)?;
            }
            connection.flush()?;
            let sent = Instant::now();
            (connection.receive(false)?, sent)
        } else {
            (connection.ask(&head, b"")?, Instant::now())
        };
        let (reply, sent) = reply;
        Ok(format!(
            "{} {} {:.6} {:.6} {}",
            reply.status,
            reply.bytes,
            start.elapsed().as_secs_f64(),
            reply.began.saturating_duration_since(sent).as_secs_f64(),
            reply.location,
        ))
    }
}

fn send(connection: &mut Connection, head: &str, mut file: File) -> Result<()> {
    let length = file.metadata()?.len();
    connection.send(
        format!("{head}Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n")
            .as_bytes(),
    )?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        connection.send(piece.get(..length).unwrap_or_default())?;
    }
}

fn send_chunked(connection: &mut Connection, head: &str, mut file: File) -> Result<()> {
    connection.send(
        format!(
            "{head}Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .as_bytes(),
    )?;
    let mut piece = vec![0; PIECE];
    let mut framed = Vec::with_capacity(PIECE + 256);
    loop {
        let length = file.read(&mut piece)?;
        framed.clear();
        for chunk in piece.get(..length).unwrap_or_default().chunks(CHUNK) {
            write!(framed, "{:x}\r\n", chunk.len())?;
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
        }
        if length == 0 {
            framed.extend_from_slice(b"0\r\n\r\n");
        }
        connection.send(&framed)?;
        if length == 0 {
            return Ok(());
        }
    }
}
