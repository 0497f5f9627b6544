//! The edge in the wrong hands.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::Signal;

use super::{SLOT_BYTES, many, memory, note, soon};
use crate::harness::descriptors::{fill_and_block, lingering, receive_files, send_files};
use crate::harness::{Client, Rig, Setup, eventually};

/// A registry of two instances, whose sockets are the test's.
struct Two {
    rig: Rig,
    sockets: [PathBuf; 2],
}

impl Two {
    fn start() -> Self {
        let folder = tempfile::TempDir::new().unwrap().keep();
        let other = folder.join("other.sock");
        let tables = format!(
            "[[registry.instance]]\nname = \"other\"\nlisten = \"unix:{}\"\n\
             storage.filesystem.root = \"{}\"\n",
            other.display(),
            folder.join("registry").display(),
        );
        let mut rig = Setup {
            tables,
            ..Setup::default()
        }
        .prepare();
        rig.start_registry();
        let sockets = [rig.socket(), other];
        for socket in &sockets {
            eventually("the registry to answer", || {
                let asked = Client::unix(socket).request("GET", "/v2/").try_send();
                asked.ok().filter(|reply| reply.status == 200)
            });
        }
        Self { rig, sockets }
    }

    /// The socket that is attacked.
    fn socket(&self) -> &Path {
        &self.sockets[0]
    }

    /// Both instances answer, to somebody who waits for storage as well.
    fn answer(&self) {
        for socket in self.sockets.clone() {
            soon("a registry that answers", move || {
                let client = Client::unix(&socket);
                client.get("/v2/").expect(200);
                client.post("/v2/a/blobs/uploads/").expect(202);
                client.get("/v2/a/tags/list").expect(404);
            });
        }
    }
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// Reads a reply, which has a short body or none; returns also the files that came with it.
fn reply(stream: &UnixStream) -> (String, Vec<OwnedFd>) {
    let (mut reply, mut files) = (String::new(), Vec::new());
    while !reply.contains("\r\n\r\n") {
        let (bytes, more) = receive_files(stream).unwrap();
        assert!(!bytes.is_empty(), "cut: {reply}");
        reply.push_str(&String::from_utf8_lossy(&bytes));
        files.extend(more);
    }
    (reply, files)
}

/// What both sides hold of one connection.
struct Shared {
    stream: UnixStream,
    memory: OwnedFd,
    /// Everything that bytes can be written to: the test's own sockets, and what the registry gave.
    ends: Vec<OwnedFd>,
}

/// Gets memory as this version does it, where the edge offers it, or as the one before did, where it
/// asks for it.
fn share(socket: &Path, said: &str) -> Shared {
    let stream = connect(socket);
    let memory = memory();
    let (near, far) = UnixStream::pair().unwrap();
    let mut offered = Vec::new();
    if said != "wanted" {
        offered = vec![memory.try_clone().unwrap(), far.try_clone().unwrap().into()];
    }
    let head = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Tidegate-Slots: {said}\r\n\r\n");
    send_files(&stream, head.as_bytes(), &offered).unwrap();
    let (_, mut files) = reply(&stream);
    let mut shared = Shared {
        stream,
        memory,
        ends: vec![near.into(), far.into()],
    };
    if files.len() == 3 {
        shared.memory = files.remove(0);
    }
    shared.ends.extend(files);
    shared
}

#[test]
fn an_edge_that_fills_and_blocks_what_both_hold_stops_no_request() {
    let two = Two::start();
    let mut kept = Vec::new();
    for said in ["offered/2", "wanted"] {
        for _ in 0..many() {
            let upload = Client::unix(two.socket()).post("/v2/a/blobs/uploads/");
            let upload = upload.expect(202).location();
            let mut shared = share(two.socket(), said);
            for number in [0, 1] {
                let content = vec![1; SLOT_BYTES];
                let place = (number * SLOT_BYTES) as u64;
                rustix::io::pwrite(&shared.memory, &content, place).unwrap();
            }
            // Two slots as there should be, so that a thread is at work on them; then what is none.
            let good = [note(0), note(1)].concat();
            for end in &shared.ends {
                fill_and_block(end, &good, &[77, 0, 0, 1]);
            }
            let head = format!(
                "PATCH {upload} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\
                 X-Tidegate-Slots: unknown\r\n\r\n0\r\n\r\n"
            );
            shared.stream.write_all(head.as_bytes()).unwrap();
            kept.push(shared);
        }
        two.answer();
    }
    // Whoever was refused is told so, and nobody is let wait.
    for shared in &kept {
        let (reply, _) = reply(&shared.stream);
        assert!(reply.starts_with("HTTP/1.1 500"), "{reply}");
    }
    drop(kept);
    two.answer();
}

#[test]
fn descriptors_that_take_long_to_close_are_closed_where_nobody_waits() {
    let mut two = Two::start();
    let mut kept = Vec::new();
    // One more of them than fits, none that is read, some in the place of what is offered.
    for count in [1, 2, 3, 16] {
        for said in ["", "X-Tidegate-Slots: offered/2\r\n"] {
            let stream = connect(two.socket());
            let mut files = Vec::new();
            for _ in 0..count {
                let (file, listener) = lingering();
                files.push(file);
                kept.push(listener);
            }
            let head = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{said}\r\n");
            // The test's own descriptors must not be the last ones.
            two.rig.registry().signal(Signal::STOP);
            send_files(&stream, head.as_bytes(), &files).unwrap();
            drop(files);
            two.rig.registry().signal(Signal::CONT);
            two.answer();
            // What is queued when a connection ends is closed with it.
            let (file, listener) = lingering();
            kept.push(listener);
            let file = [file];
            if send_files(&stream, b"GET", &file).is_err() {
                // It has hung up, and so the descriptor is the last.
                set_socket_linger(&file[0], None).unwrap();
            }
            drop(stream);
            two.answer();
        }
    }
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let two = Two::start();
    let registry = two.rig.pids()[0];
    let count = || {
        let open = std::fs::read_dir(format!("/proc/{registry}/fd")).unwrap();
        open.count()
    };
    let before = count();
    let mut kept = Vec::new();
    for _ in 0..50 {
        let stream = connect(two.socket());
        let files: Vec<OwnedFd> = (0..16).map(|_| memory()).collect();
        send_files(&stream, b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", &files).unwrap();
        // It may have been reset: there were more than any request has.
        let read = (&stream).read(&mut [0; 1]);
        assert!(!matches!(read, Ok(1)), "it was answered");
        kept.push(stream);
    }
    eventually("the descriptors to be closed", || {
        (count() < before + 50).then_some(())
    });
    two.answer();
}
