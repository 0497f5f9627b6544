//! The least that a push and a pull over TLS can cost: one process, one thread for each connection,
//! blocking reads, OpenSSL, SHA-256 and plain writes. It knows no spec, keeps nothing safe and answers
//! anybody who sends an `Authorization`, whatever it says.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::Args;
use openssl::sha::Sha256;
use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod, SslStream};

use crate::connection::Socket;
use crate::images::hex;

/// What is written at once: small enough to stay in a core's cache between hash and write.
const PIECE: usize = 64 * 1024;

#[derive(Args)]
pub(crate) struct Floor {
    listen: String,
    cert: PathBuf,
    key: PathBuf,
    /// Where blobs go.
    folder: PathBuf,
}

impl Floor {
    pub(crate) fn run(&self) -> Result<()> {
        let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls_server())?;
        acceptor.set_certificate_chain_file(&self.cert)?;
        acceptor.set_private_key_file(&self.key, SslFiletype::PEM)?;
        let acceptor = acceptor.build();
        fs::create_dir_all(&self.folder)?;
        let listener = TcpListener::bind(&self.listen)?;
        loop {
            let (socket, _) = listener.accept()?;
            let (acceptor, folder) = (acceptor.clone(), self.folder.clone());
            thread::spawn(move || {
                let mut stream = acceptor.accept(Socket::new(socket)?)?;
                while serve(&mut stream, &folder)? {}
                Ok::<_, anyhow::Error>(())
            });
        }
    }
}

/// Answers one request, and says whether there may be another.
fn serve(stream: &mut SslStream<Socket>, folder: &Path) -> Result<bool> {
    let mut piece = vec![0; PIECE];
    let mut head = Vec::new();
    let rest = loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Ok(false);
        }
        head.extend_from_slice(piece.get(..length).unwrap_or_default());
        if let Some(at) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break head.split_off(at + 4);
        }
    };
    let head = String::from_utf8(head)?;
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().context("no path")?);
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let reply = match method {
        _ if field("authorization").is_none() => "401 Unauthorized\r\n",
        "POST" => "202 Accepted\r\nLocation: /v2/bench/app/blobs/uploads/one\r\n",
        "PUT" => {
            let length = field("content-length").context("no length")?.parse()?;
            let (_, digest) = path.split_once("digest=sha256:").context("no digest")?;
            store(stream, rest, length, &folder.join(digest))?;
            "201 Created\r\n"
        }
        _ => {
            let (_, digest) = path.split_once("sha256:").context("no digest")?;
            send(stream, &folder.join(digest))?;
            stream.flush()?;
            return Ok(true);
        }
    };
    stream.write_all(format!("HTTP/1.1 {reply}Content-Length: 0\r\n\r\n").as_bytes())?;
    stream.flush()?;
    Ok(true)
}

/// Writes what comes, and checks that it is what the path says.
fn store(stream: &mut impl Read, first: Vec<u8>, length: usize, path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let mut hash = Sha256::new();
    let mut piece = first;
    let mut left = length;
    loop {
        hash.update(&piece);
        file.write_all(&piece)?;
        left = left.checked_sub(piece.len()).context("too many bytes")?;
        if left == 0 {
            break;
        }
        piece.resize(PIECE.min(left), 0);
        stream.read_exact(&mut piece)?;
    }
    let hex = hex(&hash.finish());
    ensure!(path.ends_with(&hex), "{hex} came for {}", path.display());
    Ok(())
}

fn send(stream: &mut SslStream<Socket>, path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(piece.get(..length).unwrap_or_default())?;
    }
}
