//! The registry in the wrong hands.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

use super::{many, memory, soon};
use crate::harness::descriptors::{block, fill_and_block, lingering, receive_files, send_files};
use crate::harness::{Client, Pair, Rig, Setup, eventually, pause};

/// What it answers to a request, of which it is given the head.
type Answer = fn(&mut Connection, &str) -> std::io::Result<()>;

/// A connection from the edge.
struct Connection {
    stream: UnixStream,
    /// What has come with the last request.
    files: Vec<OwnedFd>,
    /// What it has kept, for good.
    kept: Arc<Mutex<Vec<OwnedFd>>>,
    /// How many requests it has done something to that no registry does.
    attacks: Arc<AtomicUsize>,
}

impl Connection {
    fn serve(mut self, answer: Answer) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let end = buffer.windows(4).position(|part| part == b"\r\n\r\n");
            let Some(end) = end else {
                let (bytes, files) = receive_files(&self.stream)?;
                if bytes.is_empty() {
                    return Ok(());
                }
                buffer.extend(bytes);
                self.files.extend(files);
                continue;
            };
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            answer(
                &mut self,
                &String::from_utf8_lossy(&head).to_ascii_lowercase(),
            )?;
        }
    }

    fn say(&self, reply: &str, files: &[OwnedFd]) -> std::io::Result<()> {
        send_files(&self.stream, reply.as_bytes(), files)
    }

    fn attacks(&self) {
        self.attacks.fetch_add(1, Ordering::Relaxed);
    }

    fn keep(&self, files: impl IntoIterator<Item = OwnedFd>) {
        self.kept.lock().unwrap().extend(files);
    }
}

/// An edge with two sites: what stands behind the second is as it should be.
struct Edge {
    rig: Rig,
    second: Client,
    attacks: Arc<AtomicUsize>,
}

impl Edge {
    fn start(answer: Answer) -> Self {
        let address = plain_service();
        let folder = tempfile::TempDir::new().unwrap().keep();
        let pair = Pair::create(&folder, "second", &["second.test"]);
        let tables = format!(
            "[[site]]\nhosts = [\"second.test\"]\nupstream = \"second\"\n\
             certificate = {{ cert_file = \"{}\", key_file = \"{}\" }}\n\
             [[upstream]]\nname = \"second\"\npeers = [\"{address}\"]\n",
            pair.cert.display(),
            pair.key.display(),
        );
        let mut rig = Setup {
            tables,
            open: true,
            ..Setup::default()
        }
        .prepare();
        let attacks = listen(&rig.socket(), answer);
        rig.start_edge();
        let second = Client::tls(rig.https, "second.test", &pair.cert);
        eventually("the edge to answer", || {
            let reply = second.request("GET", "/").try_send();
            reply.ok().filter(|reply| reply.status == 200)
        });
        Self {
            rig,
            second,
            attacks,
        }
    }

    /// The second site answers, for a while from the first attack on.
    fn answers(&self) {
        eventually("an attack", || {
            (self.attacks.swap(0, Ordering::Relaxed) > 0).then_some(())
        });
        for _ in 0..20 {
            let second = self.second.clone();
            soon("a site that answers", move || {
                assert_eq!(second.get("/").expect(200).text(), "hi");
            });
            pause(Duration::from_millis(50));
        }
    }

    /// Sends requests to the registry, and does not wait for what becomes of them.
    fn ask(&self, method: &'static str, path: &str, body: &[u8]) {
        for _ in 0..many() {
            let client = self.rig.anonymous();
            let (path, body) = (path.to_owned(), body.to_vec());
            thread::spawn(move || {
                let request = client.request(method, &path);
                drop(match body.is_empty() {
                    true => request.try_send(),
                    false => request
                        .header("Expect", "100-continue")
                        .body(body)
                        .try_send(),
                });
            });
        }
    }

    fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.rig.pids()[0]);
        std::fs::read_dir(folder).unwrap().count()
    }
}

/// Listens in the registry's place, for as long as the suite lives.
fn listen(socket: &Path, answer: Answer) -> Arc<AtomicUsize> {
    let attacks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attacks);
    let listener = UnixListener::bind(socket).unwrap();
    let kept = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = Connection {
                stream,
                files: Vec::new(),
                kept: Arc::clone(&kept),
                attacks: Arc::clone(&counted),
            };
            thread::spawn(move || connection.serve(answer));
        }
    });
    attacks
}

/// A service that says hi.
fn plain_service() -> std::net::SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let hi = |mut stream: TcpStream| {
        drop(stream.read(&mut [0; 4096]));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || hi(stream));
        }
    });
    address
}

const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Gets what slots need from the edge, or gives it as the version before did; then has each end of it
/// block, once a body is to come, and frees nothing, or takes not even notes.
fn blocks(connection: &mut Connection, head: &str) -> std::io::Result<()> {
    if head.contains("x-tidegate-slots: wanted") {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (notes_out, notes) = pipe_with(flags)?;
        let (freed, freed_out) = pipe_with(flags)?;
        let given = [memory(), notes.try_clone()?, freed.try_clone()?];
        connection.files = vec![notes, freed];
        connection.keep([notes_out, freed_out]);
        let offered = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Tidegate-Slots: offered\r\n\r\n";
        return connection.say(offered, &given);
    }
    if head.contains("x-tidegate-slots: offered/2") {
        let (near, notes) = UnixStream::pair()?;
        let given = OwnedFd::from(notes).try_clone()?;
        connection.files.push(given.try_clone()?);
        connection.keep([near.into()]);
        let taken = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Tidegate-Slots: taken/2\r\n\r\n";
        return connection.say(taken, &[given]);
    }
    if head.contains("x-tidegate-slots: ") {
        let is_full = head.contains(" /v2/full/");
        for end in connection.files.drain(..) {
            match is_full && rustix::net::sockopt::socket_type(&end).is_ok() {
                true => fill_and_block(&end, &[], &[0]),
                false => block(&end),
            }
            connection.kept.lock().unwrap().push(end);
        }
        connection.attacks();
        // Only now does the body come.
        return connection.say("HTTP/1.1 100 Continue\r\n\r\n", &[]);
    }
    connection.say(EMPTY, &[])
}

#[test]
fn a_registry_that_blocks_what_both_hold_stops_no_other_site() {
    let edge = Edge::start(blocks);
    let upload = "00000000-0000-4000-8000-000000000000";
    for repository in ["slow", "full"] {
        let path = format!("/v2/{repository}/blobs/uploads/{upload}");
        // Larger than all slots.
        edge.ask("PATCH", &path, &[7; 8 << 20]);
        edge.answers();
    }
}

/// Says a great deal, and sends files with each byte.
fn floods(connection: &mut Connection, head: &str) -> std::io::Result<()> {
    if !head.starts_with("get /v2/a/blobs/") {
        return connection.say(EMPTY, &[]);
    }
    connection.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", &[])?;
    let files = [memory(), memory(), memory()];
    connection.attacks();
    loop {
        connection.say("x", &files)?;
    }
}

#[test]
fn a_registry_that_sends_files_nobody_asked_for_does_not_fill_the_descriptor_table() {
    let edge = Edge::start(floods);
    let before = edge.descriptors();
    let path = format!("/v2/a/blobs/sha256:{}", "0".repeat(64));
    edge.ask("GET", &path, &[]);
    edge.answers();
    let now = edge.descriptors();
    assert!(now < before + 200, "{before} descriptors, then {now}");
}

/// Sends files that take long to close with its replies, asked for or not.
fn lingers(connection: &mut Connection, head: &str) -> std::io::Result<()> {
    connection.attacks();
    let (file, listener) = lingering();
    connection.keep([listener.into()]);
    match head.contains("x-tidegate-file: accept") {
        true => connection.say(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Tidegate-File: 0-9\r\n\r\n",
            &[file],
        ),
        false => connection.say(EMPTY, &[file]),
    }?;
    // None that the edge has read when it hangs up.
    let (file, listener) = lingering();
    connection.keep([listener.into()]);
    connection.say("x", &[file])
}

#[test]
fn files_that_take_long_to_close_are_closed_where_nobody_waits() {
    let edge = Edge::start(lingers);
    for (method, path) in [
        ("GET", "/v2/a/tags/list"),
        ("HEAD", "/v2/a/manifests/v1"),
        ("POST", "/v2/a/blobs/uploads/"),
    ] {
        edge.ask(method, path, &[]);
        edge.answers();
    }
}

/// Hands over what no blob is in.
fn hands_over(connection: &mut Connection, head: &str) -> std::io::Result<()> {
    connection.attacks();
    if !head.contains("x-tidegate-file: accept") {
        return connection.say(EMPTY, &[]);
    }
    let file: OwnedFd = match head.split(' ').nth(1) {
        Some("/v2/pipe/tags/list") => pipe_with(PipeFlags::CLOEXEC)?.0,
        Some("/v2/socket/tags/list") => UnixStream::pair()?.0.into(),
        Some("/v2/folder/tags/list") => std::fs::File::open("/")?.into(),
        Some("/v2/device/tags/list") => std::fs::File::open("/dev/zero")?.into(),
        Some("/v2/writable/tags/list") => memory(),
        _ => {
            let short = memory_file(&[1; 9])?;
            std::fs::File::open(short)?.into()
        }
    };
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Tidegate-File: 0-9\r\n\r\n";
    connection.say(reply, &[file])
}

fn memory_file(content: &[u8]) -> std::io::Result<std::path::PathBuf> {
    let path = tempfile::TempDir::new()?.keep().join("short");
    std::fs::write(&path, content)?;
    Ok(path)
}

#[test]
fn what_is_handed_over_must_be_a_file_as_a_blob_is_in() {
    let edge = Edge::start(hands_over);
    for kind in ["pipe", "socket", "folder", "device", "writable", "short"] {
        let client = edge.rig.anonymous();
        let path = format!("/v2/{kind}/tags/list");
        let reply = soon("a refusal", move || client.request("GET", &path).send());
        assert_eq!(reply.status, 502, "{kind}: {}", reply.text());
    }
    edge.answers();
}
