//! The registry as its clients see it: requests over its socket, replies whole.

mod apart;
mod at_hand;
mod blobs;
mod failures;
mod foreign;
mod generations;
mod handover;
mod inquiries;
mod lists;
mod lists_in_pieces;
mod manifests;
mod serving;
mod slots;
mod turns;
mod uploads;
mod uploads_open;
mod uploads_refused;

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::{Algorithm, Digest};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::Config;
use crate::app::App;
use crate::http::{bind, serve};
use crate::registry::Registry;
use crate::storage::faulty::{Faults, Faulty};
use crate::storage::{Driver, Filesystem, Hasher};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry of its own, over a folder that goes away with it.
struct Rig {
    folder: TempDir,
    app: Arc<App>,
    server: JoinHandle<Result<(), crate::Error>>,
    /// Another registry over the same tree, which has each read waited for.
    _waiting: Waiting,
}

/// What serves on a socket for as long as it is there.
struct Waiting(JoinHandle<Result<(), crate::Error>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Rig {
    fn new() -> Self {
        Self::with_driver(|driver| Box::new(driver))
    }

    fn with_driver(wrap: impl FnOnce(Filesystem) -> Box<dyn Driver>) -> Self {
        Self::with(wrap, true)
    }

    /// Everything goes through the page cache.
    fn buffered() -> Self {
        Self::with(|driver| Box::new(driver), false)
    }

    fn with(wrap: impl FnOnce(Filesystem) -> Box<dyn Driver>, direct_io: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Self::config(&folder);
        config.direct_io = direct_io;
        let driver = Filesystem::open(&config.root, config.direct_io).unwrap();
        let waiting = Self::serve_waiting(&config);
        let app = App::new(config, Registry::new(wrap(driver)));
        let server = Self::serve(&app);
        Self {
            folder,
            app,
            server,
            _waiting: waiting,
        }
    }

    fn config(folder: &TempDir) -> Config {
        Config::new(folder.path().join("sock"), folder.path().join("root"))
    }

    fn serve_waiting(config: &Config) -> Waiting {
        let driver = Filesystem::open(&config.root, config.direct_io).unwrap();
        let registry = Registry::new(Box::new(driver.waiting()));
        let mut config = config.clone();
        config.listen.set_extension("waiting");
        Waiting(Self::serve(&App::new(config, registry)))
    }

    fn serve(app: &Arc<App>) -> JoinHandle<Result<(), crate::Error>> {
        let listener = bind(app, &mut Vec::new()).unwrap();
        tokio::spawn(serve(listener, Arc::clone(app), std::future::pending()))
    }

    /// Starts anew: nothing is remembered but what is on the disk.
    async fn restart(&mut self) {
        self.stop().await;
        let config = self.app.settings().config.clone();
        let driver = Filesystem::open(&config.root, config.direct_io).unwrap();
        self.app = App::new(config, Registry::new(Box::new(driver)));
        self.server = Self::serve(&self.app);
    }

    /// Lets images be pushed without their layers.
    fn allow_sparse_images(&self) {
        let mut config = self.app.settings().config.clone();
        config.sparse_images = true;
        self.app.change(config);
    }

    /// Leaves the socket to someone else.
    async fn stop(&mut self) {
        self.server.abort();
        assert!((&mut self.server).await.is_err());
    }

    /// A path below `docker/registry/v2`.
    fn path(&self, path: &str) -> PathBuf {
        self.folder
            .path()
            .join("root/docker/registry/v2")
            .join(path)
    }

    /// How many files are below a path.
    fn count(&self, path: &str) -> usize {
        let mut count = 0;
        let mut folders = vec![self.path(path)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    count += 1;
                }
            }
        }
        count
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("sock"))
            .await
            .unwrap()
    }

    /// Sends `head`, of which `HTTP/1.1` and `host` are left out, and `body`. What is asked of blobs
    /// and manifests is asked of the registry that waits, too, which must answer the same.
    async fn send(&self, head: &str, body: impl AsRef<[u8]>) -> Reply {
        let reply = Self::ask(self.connect().await, head, body.as_ref()).await;
        let reads = head.starts_with("GET ") || head.starts_with("HEAD ");
        let of_content = head.contains("/manifests/") || head.contains("/blobs/sha");
        if reads && of_content && reply.status < 500 {
            let socket = self.folder.path().join("sock.waiting");
            let stream = UnixStream::connect(socket).await.unwrap();
            let waited = Self::ask(stream, head, body.as_ref()).await;
            // Parts are set apart by something that differs each time.
            if !reply.head.contains("multipart") {
                assert_eq!(reply.to_string(), waited.to_string(), "{head}");
            }
        }
        reply
    }

    async fn ask(mut stream: UnixStream, head: &str, body: &[u8]) -> Reply {
        let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let mut request = format!(
            "{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n",
            line.trim()
        );
        for header in headers
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            request.push_str(&format!("{header}\r\n"));
        }
        let has_length =
            request.contains("content-length") || request.contains("transfer-encoding");
        if !has_length && !body.is_empty() {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let request = [request.as_bytes(), body].concat();
        let write = async {
            // The registry may answer, and close, before it has read everything.
            drop(writer.write_all(&request).await);
        };
        let mut reply = Vec::new();
        // A close with unread bytes is a reset to this side, after the reply.
        let (_, _) = tokio::join!(write, reader.read_to_end(&mut reply));
        Reply::parse(&reply)
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path}"), "").await
    }

    /// Pushes a blob in one request.
    async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = sha256(content);
        let head = format!("POST /v2/{repository}/blobs/uploads/?digest={digest}");
        let reply = self
            .send(
                &format!("{head}\ncontent-length: {}", content.len()),
                content,
            )
            .await;
        assert_eq!(reply.status, 201, "{reply}");
        digest
    }

    /// Begins an upload; returns its path.
    async fn begin(&self, repository: &str) -> String {
        let reply = self
            .send(&format!("POST /v2/{repository}/blobs/uploads/"), "")
            .await;
        assert_eq!(reply.status, 202, "{reply}");
        reply.header("location").unwrap().to_owned()
    }

    /// Pushes what an image needs, and then its manifest.
    async fn push_image(&self, repository: &str, reference: &str, manifest: &Value) -> Digest {
        for content in [CONFIG, LAYER] {
            self.push_blob(repository, content).await;
        }
        self.put_manifest(repository, reference, manifest).await
    }

    async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Digest {
        let content = manifest.to_string();
        let media_type = manifest["mediaType"].as_str().unwrap();
        let head =
            format!("PUT /v2/{repository}/manifests/{reference}\ncontent-type: {media_type}");
        let reply = self.send(&head, &content).await;
        assert_eq!(reply.status, 201, "{reply}");
        sha256(content.as_bytes())
    }
}

/// What came back.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no reply: {}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: bytes[end + 4..].to_vec(),
        }
    }

    /// Returns the body out of its chunks, and whether it came to its end.
    fn unchunked(&self) -> (String, bool) {
        assert_eq!(self.header("transfer-encoding"), Some("chunked"));
        let (mut whole, mut rest) = (String::new(), str::from_utf8(&self.body).unwrap());
        while let Some((length, chunk)) = rest.split_once("\r\n") {
            let length = usize::from_str_radix(length, 16).unwrap();
            if length == 0 {
                return (whole, true);
            }
            whole.push_str(chunk.get(..length).unwrap_or(chunk));
            rest = chunk.get(length + 2..).unwrap_or_default();
        }
        (whole, false)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (header, value) = line.split_once(": ")?;
            (header == name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

impl std::fmt::Display for Reply {
    /// Shows what a snapshot keeps: not the time, and of what differs each time only that it is
    /// there.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lines: Vec<String> = self
            .head
            .lines()
            .filter(|line| !line.starts_with("date: ") && *line != "connection: close")
            .map(str::to_owned)
            .collect();
        if let Some(id) = self.header("docker-upload-uuid") {
            lines = lines.iter().map(|line| line.replace(id, "UUID")).collect();
        }
        writeln!(f, "{}", lines[0].trim_start_matches("HTTP/1.1 "))?;
        lines[1..].sort();
        for line in &lines[1..] {
            if !line.starts_with("docker-distribution-api-version: registry/2.0") {
                writeln!(f, "{line}")?;
            }
        }
        assert_eq!(
            self.header("docker-distribution-api-version"),
            Some("registry/2.0")
        );
        write!(f, "\n{}", String::from_utf8_lossy(&self.body))
    }
}

const CONFIG: &[u8] = b"{\"config\":true}";
const LAYER: &[u8] = b"a layer";

/// Reads what there is next on a connection, no bytes at its end, and the files that came with it.
async fn receive(stream: &UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    loop {
        stream.readable().await.unwrap();
        let mut bytes = vec![0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = stream.try_io(Interest::READABLE, || {
            let buffers = &mut [IoSliceMut::new(&mut bytes)];
            Ok(recvmsg(stream, buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes)
        });
        let Ok(received) = received else {
            continue; // it was not readable after all
        };
        bytes.truncate(received);
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                files.extend(more);
            }
        }
        return (bytes, files);
    }
}

fn sha256(content: &[u8]) -> Digest {
    Hasher::digest(Algorithm::Sha256, content)
}

fn sha512(content: &[u8]) -> Digest {
    Hasher::digest(Algorithm::Sha512, content)
}

/// Where a blob's bytes are, below the tree.
fn blob_path(digest: &Digest) -> String {
    let hex = digest.hex();
    let shard = hex.get(..2).unwrap();
    format!("blobs/{}/{shard}/{hex}/data", digest.algorithm())
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(content), "size": content.len() })
}

/// The manifest of an image with one layer; `note` makes it another one.
fn image(note: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", CONFIG),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", LAYER)],
        "annotations": { "note": note },
    })
}

/// An image whose subject is `subject`.
fn referrer(subject: &Value, artifact_type: Option<&str>) -> Value {
    let mut manifest = image(artifact_type.unwrap_or("a referrer"));
    manifest["subject"] = descriptor(MANIFEST, subject.to_string().as_bytes());
    if let Some(artifact_type) = artifact_type {
        manifest["artifactType"] = json!(artifact_type);
    }
    manifest
}

/// Pushes a manifest to the repository `a` as `registry:2` does: a blob and a link, and no word about
/// a subject.
fn push_foreign(tree: &Path, manifest: &str) {
    let digest = sha256(manifest.as_bytes());
    let link = format!(
        "repositories/a/_manifests/revisions/sha256/{}/link",
        digest.hex()
    );
    for (path, content) in [
        (blob_path(&digest), manifest.to_owned()),
        (link, digest.to_string()),
    ] {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// A registry over a storage that fails on demand.
pub(crate) fn faulty_registry() -> (Arc<Registry>, Arc<Faults>, TempDir) {
    let root = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let driver = Filesystem::open(root.path(), true).unwrap();
    let driver = Faulty::new(driver, Arc::clone(&faults));
    (Arc::new(Registry::new(Box::new(driver))), faults, root)
}

/// Waits until something is so.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_so() {
        assert!(
            std::time::Instant::now() < deadline,
            "waited in vain for {what}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
