//! An edge that runs here, and the service behind it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use proxy::tls::self_signed;
use proxy::{Config, Drained, Edge, Handle};
use settings::Document;
use tempfile::TempDir;

/// A service that answers a request with its head, or shouts back after an upgrade.
pub(crate) fn echo_service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
    });
    address
}

fn echo(stream: TcpStream) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader);
    let lower = head.to_ascii_lowercase();
    if lower.contains("upgrade: websocket") {
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        writer.write_all(switch.as_bytes()).unwrap();
        let mut said = [0; 4];
        while reader.read_exact(&mut said).is_ok() {
            drop(writer.write_all(&said.map(|byte| byte.to_ascii_uppercase())));
        }
        return;
    }
    let length = lower.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or_default()];
    drop(reader.read_exact(&mut body));
    let length = head.len();
    drop(write!(
        writer,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{head}"
    ));
}

pub(crate) fn read_head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
    head
}

/// A running edge.
pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) handle: Handle,
    pub(crate) running: Option<JoinHandle<Drained>>,
    pub(crate) tls: SocketAddr,
}

impl Rig {
    /// Starts an edge whose one site, `a.test`, is in front of `peers`; `rest` goes on after it.
    pub(crate) fn start(peers: &[SocketAddr], rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = self_signed::generate(&["a.test".to_owned()], &[]).unwrap();
        fs::write(folder.path().join("cert.pem"), pair.cert_pem).unwrap();
        fs::write(folder.path().join("key.pem"), pair.key_pem).unwrap();
        let edge = Edge::bind(
            read(&folder, &config(peers, rest)),
            Vec::new(),
            Duration::ZERO,
        )
        .unwrap();
        let handle = edge.handle();
        Self {
            tls: handle.https_address().unwrap(),
            folder,
            running: Some(thread::spawn(move || edge.run().unwrap())),
            handle,
        }
    }

    pub(crate) fn connect(&self) -> SslStream<TcpStream> {
        self.connect_offering(b"")
    }

    /// Opens a connection that is to speak HTTP/2, and says nothing on it yet.
    pub(crate) fn connect_http2(&self) -> SslStream<TcpStream> {
        self.connect_offering(b"\x02h2")
    }

    fn connect_offering(&self, protocols: &[u8]) -> SslStream<TcpStream> {
        let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        if !protocols.is_empty() {
            connector.set_alpn_protos(protocols).unwrap();
        }
        let stream = TcpStream::connect(self.tls).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        connector.build().connect("a.test", stream).unwrap()
    }

    /// Sends `request` on a connection of its own and returns all that comes back.
    pub(crate) fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = Vec::new();
        // The end may come as a reset, when the edge closed first.
        drop(stream.read_to_end(&mut reply));
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// Opens a connection that has been upgraded.
    pub(crate) fn websocket(&self) -> BufReader<SslStream<TcpStream>> {
        let mut stream = self.connect();
        let upgrade = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
        stream.write_all(upgrade.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        reader
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.drain();
        if let Some(running) = self.running.take() {
            drop(running.join());
        }
    }
}

pub(crate) fn config(peers: &[SocketAddr], rest: &str) -> String {
    let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
    format!(
        r#"
drain_timeout = "10s"
workers = 2
[[listener]]
address = "127.0.0.1:0"
tls = true
[[upstream]]
name = "echo"
peers = {peers:?}
[[site]]
hosts = ["a.test"]
certificate = {{ cert_file = "cert.pem", key_file = "key.pem" }}
upstream = "echo"
{rest}
"#
    )
}

pub(crate) fn read(folder: &TempDir, text: &str) -> Config {
    let mut document = Document::parse(&folder.path().join("edge.toml"), text).unwrap();
    let config = Config::read(&mut document.root(), &[]);
    document.finish().unwrap();
    config.unwrap()
}

pub(crate) fn shouts(connection: &mut BufReader<SslStream<TcpStream>>, said: &[u8; 4]) {
    connection.get_mut().write_all(said).unwrap();
    let mut heard = [0; 4];
    connection.read_exact(&mut heard).unwrap();
    assert_eq!(heard, said.map(|byte| byte.to_ascii_uppercase()));
}
