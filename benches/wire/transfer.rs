//! One request with a large body, there or back.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
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
    /// Makes the body another one: a number that takes the place of its first eight bytes.
    #[arg(long)]
    mark: Option<u64>,
    /// Makes the body so many times the file.
    #[arg(long, default_value_t = 1)]
    repeat: u64,
}

impl Transfer {
    pub(crate) fn run(&self, server: &Server) -> Result<String> {
        let mut connection = server.connect()?;
        let start = Instant::now();
        let head = server.head(&self.method, server.path_of(&self.path));
        let (reply, sent) = if let Some(path) = &self.file {
            let body = self.body(path)?;
            if self.method == "PATCH" {
                send_chunked(&mut connection, &head, body)?;
            } else {
                send(&mut connection, &head, body)?;
            }
            connection.flush()?;
            let sent = Instant::now();
            (connection.receive(false)?, sent)
        } else {
            (connection.ask(&head, b"")?, Instant::now())
        };
        Ok(format!(
            "{} {} {:.6} {:.6} {}",
            reply.status,
            reply.bytes,
            start.elapsed().as_secs_f64(),
            reply.began.saturating_duration_since(sent).as_secs_f64(),
            reply.location,
        ))
    }
    fn body(&self, path: &Path) -> Result<Body> {
        Ok(Body {
            file: File::open(path).with_context(|| path.display().to_string())?,
            mark: self.mark,
            repeat: self.repeat,
        })
    }
}

/// A file, once or again and again, but for its first bytes.
struct Body {
    file: File,
    mark: Option<u64>,
    repeat: u64,
}

impl Body {
    fn length(&self) -> Result<u64> {
        Ok(self.file.metadata()?.len() * self.repeat)
    }

    fn read(&mut self, piece: &mut [u8]) -> Result<usize> {
        let mut length = self.file.read(piece)?;
        if length == 0 && self.repeat > 1 {
            self.repeat -= 1;
            self.file.rewind()?;
            length = self.file.read(piece)?;
        }
        if let (Some(mark), Some(first)) = (self.mark.take(), piece.get_mut(..8)) {
            first.copy_from_slice(&mark.to_be_bytes());
        }
        Ok(length)
    }
}

fn send(connection: &mut Connection, head: &str, mut body: Body) -> Result<()> {
    let length = body.length()?;
    connection.send(
        format!("{head}Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n")
            .as_bytes(),
    )?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = body.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        connection.send(piece.get(..length).unwrap_or_default())?;
    }
}

fn send_chunked(connection: &mut Connection, head: &str, mut body: Body) -> Result<()> {
    connection.send(
        format!(
            "{head}Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .as_bytes(),
    )?;
    let mut piece = vec![0; PIECE];
    let mut framed = Vec::with_capacity(PIECE + 256);
    loop {
        let length = body.read(&mut piece)?;
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
