//! Small images, as docker moves them: several layers at once, each with its own round trips.

use std::fmt::Write;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use openssl::sha::sha256;

use crate::connection::{Connection, Server};

const KIND: &str = "application/vnd.oci.image";

#[derive(Clone, Copy, ValueEnum)]
enum Direction {
    Push,
    Pull,
}

#[derive(Args)]
pub(crate) struct Images {
    direction: Direction,
    /// What the images differ in from those of another run.
    seed: u64,
    #[arg(long, default_value_t = 20)]
    count: u64,
    /// How many images are on their way at once.
    #[arg(long, default_value_t = 1)]
    clients: u64,
    #[arg(long, default_value_t = 30)]
    layers: u64,
    #[arg(long, default_value_t = 10 * 1024)]
    bytes: usize,
    /// Uses a client's connections for all its images; without it each image has new ones.
    #[arg(long)]
    keep: bool,
}

impl Images {
    pub(crate) fn run(&self, server: &Server) -> Result<String> {
        let start = Instant::now();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.clients)
                .map(|client| scope.spawn(move || self.client(server, client)))
                .collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().ok().context("a client panicked")?)
        })?;
        Ok(format!(
            "{} {:.6}",
            self.count,
            start.elapsed().as_secs_f64()
        ))
    }

    /// Every `clients`th image, beginning with the `client`th.
    fn client(&self, server: &Server, client: u64) -> Result<()> {
        let mut connections = Vec::new();
        for image in (client..self.count).step_by(usize::try_from(self.clients)?) {
            if !self.keep {
                connections.clear();
            }
            match self.direction {
                Direction::Push => self.push(server, image, &mut connections)?,
                Direction::Pull => self.pull(server, image, &mut connections)?,
            }
        }
        Ok(())
    }

    fn push(&self, server: &Server, image: u64, connections: &mut Vec<Connection>) -> Result<()> {
        let layers: Vec<Vec<u8>> = (0..self.layers).map(|n| self.layer(image, n)).collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","variant":"{}-{image}"}}"#,
            self.seed
        );
        // Five at once, as docker's default is.
        in_parallel(server, connections, 5, layers.len(), |connection, n| {
            push_blob(server, connection, layers.get(n).context("no layer")?)
        })?;
        let connection = connections.first_mut().context("no connection")?;
        push_blob(server, connection, config.as_bytes())?;
        let mut manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{KIND}.manifest.v1+json","config":{}"#,
            descriptor("config.v1+json", config.as_bytes())
        );
        for (n, layer) in layers.iter().enumerate() {
            let before = if n == 0 { r#","layers":["# } else { "," };
            write!(manifest, "{before}{}", descriptor("layer.v1.tar", layer))?;
        }
        manifest.push_str("]}");
        let head = server.head("PUT", &self.manifest_path(image));
        let head = format!("{head}Content-Type: {KIND}.manifest.v1+json\r\n");
        let reply = connection.ask(&head, manifest.as_bytes())?;
        ensure!(reply.status == 201, "manifest: status {}", reply.status);
        Ok(())
    }

    fn pull(&self, server: &Server, image: u64, connections: &mut Vec<Connection>) -> Result<()> {
        if connections.is_empty() {
            connections.push(server.connect()?);
        }
        let connection = connections.first_mut().context("no connection")?;
        let reply = connection.ask(&server.head("GET", &self.manifest_path(image)), b"")?;
        ensure!(reply.status == 200, "manifest: status {}", reply.status);
        let manifest = String::from_utf8(reply.body)?;
        let digests: Vec<&str> = manifest
            .split(r#""digest":""#)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        ensure!(digests.len() as u64 == self.layers + 1, "{manifest}");
        // Three at once, as docker's default is.
        in_parallel(server, connections, 3, digests.len(), |connection, n| {
            let digest = digests.get(n).context("no digest")?;
            let head = server.head("GET", &format!("/v2/bench/small/blobs/{digest}"));
            let reply = connection.ask(&head, b"")?;
            ensure!(reply.status == 200, "blob: status {}", reply.status);
            Ok(())
        })
    }

    fn manifest_path(&self, image: u64) -> String {
        format!("/v2/bench/small/manifests/{}-{image}", self.seed)
    }

    fn layer(&self, image: u64, layer: u64) -> Vec<u8> {
        let mut content = format!("{} {image} {layer}", self.seed).into_bytes();
        content.resize(self.bytes, b'.');
        content
    }
}

/// Does the first, the second … piece of work on up to `most` connections, opening what is missing.
fn in_parallel(
    server: &Server,
    connections: &mut Vec<Connection>,
    most: usize,
    pieces: usize,
    work: impl Fn(&mut Connection, usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = Mutex::new(0..pieces);
    let worker = |connection: Option<Connection>| {
        let mut connection = connection.map_or_else(|| server.connect(), Ok)?;
        while let Some(piece) = next.lock().ok().and_then(|mut pieces| pieces.next()) {
            work(&mut connection, piece)?;
        }
        Ok::<_, anyhow::Error>(connection)
    };
    let mut ready: Vec<_> = connections.drain(..).map(Some).collect();
    ready.resize_with(most.max(ready.len()), || None);
    *connections = thread::scope(|scope| {
        let threads: Vec<_> = ready
            .into_iter()
            .map(|connection| scope.spawn(|| worker(connection)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().ok().context("a thread panicked")?)
            .collect::<Result<_>>()
    })?;
    Ok(())
}

/// A blob as docker pushes it: is it there? A POST, a PATCH and a PUT.
fn push_blob(server: &Server, connection: &mut Connection, content: &[u8]) -> Result<()> {
    let digest = digest(content);
    let path = format!("/v2/bench/small/blobs/{digest}");
    let reply = connection.ask(&server.head("HEAD", &path), b"")?;
    ensure!(reply.status == 404, "HEAD: status {}", reply.status);
    let begun = connection.ask(&server.head("POST", "/v2/bench/small/blobs/uploads/"), b"")?;
    ensure!(begun.status == 202, "POST: status {}", begun.status);
    let head = server.head("PATCH", server.path_of(&begun.location));
    let head = format!("{head}Content-Type: application/octet-stream\r\n");
    let sent = connection.ask(&head, content)?;
    ensure!(sent.status == 202, "PATCH: status {}", sent.status);
    let target = server.path_of(&sent.location);
    let and = if target.contains('?') { '&' } else { '?' };
    let head = server.head("PUT", &format!("{target}{and}digest={digest}"));
    let finished = connection.ask(&head, b"")?;
    ensure!(finished.status == 201, "PUT: status {}", finished.status);
    Ok(())
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(&sha256(content)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string does not fail.
        write!(hex, "{byte:02x}").unwrap_or_default();
        hex
    })
}

fn descriptor(kind: &str, content: &[u8]) -> String {
    let digest = digest(content);
    let size = content.len();
    format!(r#"{{"mediaType":"{KIND}.{kind}","digest":"{digest}","size":{size}}}"#)
}
