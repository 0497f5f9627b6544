//! Bodies in memory that the client has filled.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slots::{SLOT_BYTES, Sender};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{Reply, Rig, blob_path, receive, sha256};

/// A connection as the edge has it.
struct Edge {
    stream: UnixStream,
    sender: Option<Sender>,
    /// The memory, as a file.
    memory: Option<File>,
}

impl Edge {
    /// Connects, and begins an upload on the way; returns its path as well.
    async fn begin(rig: &Rig) -> (Self, String) {
        let stream = rig.connect().await;
        let mut edge = Self {
            stream,
            sender: None,
            memory: None,
        };
        let reply = edge.post("wanted").await;
        assert_eq!(reply.header("x-tidegate-slots"), Some("offered"));
        assert!(edge.sender.is_some());
        (edge, reply.header("location").unwrap().to_owned())
    }

    /// Begins an upload.
    async fn post(&mut self, slots: &str) -> Reply {
        let head = format!(
            "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\nx-tidegate-slots: {slots}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).await.unwrap();
        let reply = self.reply().await;
        assert_eq!(reply.status, 202, "{reply}");
        reply
    }

    /// Reads a reply, and what is enclosed.
    async fn reply(&mut self) -> Reply {
        let mut reply = Vec::new();
        while !is_whole(&reply) {
            let (bytes, files) = receive(&self.stream).await;
            assert!(!bytes.is_empty(), "{}", String::from_utf8_lossy(&reply));
            reply.extend(bytes);
            if let Ok([memory, freed]) = <[OwnedFd; 2]>::try_from(files) {
                assert!(self.sender.is_none(), "one memory is enough");
                self.memory = Some(File::from(memory.try_clone().unwrap()));
                self.sender = Some(Sender::open(memory, freed).unwrap());
            }
        }
        Reply::parse(&reply)
    }

    /// Sends the head of a request whose body is in slots.
    async fn head(&mut self, line: &str, length: &str) {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nx-tidegate-slots: {length}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// Sends bytes, a note for each `part` of them.
    async fn body(&mut self, content: &[u8], part: usize) {
        let sender = self.sender.as_mut().unwrap();
        for part in content.chunks(part) {
            let mut filling = sender.slot().await.unwrap();
            assert!(sender.fill(&mut filling, part).is_empty());
            let note = filling.into_note();
            send_chunk(&mut self.stream, &note).await;
        }
    }

    async fn end(&mut self) -> Reply {
        self.stream.write_all(b"0\r\n\r\n").await.unwrap();
        self.reply().await
    }
}

async fn send_chunk(stream: &mut UnixStream, data: &[u8]) {
    let size = format!("{:x}\r\n", data.len());
    let chunk = [size.as_bytes(), data, b"\r\n"].concat();
    stream.write_all(&chunk).await.unwrap();
}

/// Returns whether a reply is there to the end of its body.
fn is_whole(reply: &[u8]) -> bool {
    if !reply.windows(4).any(|window| window == b"\r\n\r\n") {
        return false;
    }
    let reply = Reply::parse(reply);
    let length = reply.header("content-length").unwrap_or("0");
    reply.body.len() == length.parse::<usize>().unwrap()
}

fn content(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

#[tokio::test]
async fn a_blob_in_slots_is_the_same_as_over_the_socket() {
    for rig in [Rig::new(), Rig::buffered()] {
        let (mut edge, mut path) = Edge::begin(&rig).await;
        for (len, part) in [
            (20 * SLOT_BYTES, SLOT_BYTES),
            (9 * SLOT_BYTES + 77, SLOT_BYTES),
            (12 * SLOT_BYTES, 100_000),
            (100_000, SLOT_BYTES),
            (10, 1),
            (0, 1),
        ] {
            let content = content(len);
            let digest = sha256(&content);
            edge.head(&format!("PUT {path}?digest={digest}"), &len.to_string())
                .await;
            edge.body(&content, part).await;
            let reply = edge.end().await;
            assert_eq!(reply.status, 201, "{len} by {part}: {reply}");
            assert!(std::fs::read(rig.path(&blob_path(&digest))).unwrap() == content);
            let next = edge.post("wanted").await;
            assert_eq!(next.header("x-tidegate-slots"), None, "it has some");
            path = next.header("location").unwrap().to_owned();
            assert!(edge.sender.as_mut().unwrap().rest().unwrap());
        }
    }
}

#[tokio::test]
async fn chunks_come_in_slots_or_over_the_socket_in_any_order() {
    let rig = Rig::new();
    let (mut edge, path) = Edge::begin(&rig).await;
    let content = content((4 << 20) + 12_345);
    let (first, rest) = content.split_at(1_000_001);
    let (second, third) = rest.split_at(2 << 20);
    edge.head(&format!("PATCH {path}"), "unknown").await;
    edge.body(first, SLOT_BYTES).await;
    assert_eq!(edge.end().await.header("range"), Some("0-1000000"));
    assert_eq!(rig.send(&format!("PATCH {path}"), second).await.status, 202);
    let digest = sha256(&content);
    edge.head(
        &format!("PUT {path}?digest={digest}"),
        &third.len().to_string(),
    )
    .await;
    edge.body(third, SLOT_BYTES).await;
    assert_eq!(edge.end().await.status, 201);
    assert!(rig.get(&format!("/v2/a/blobs/{digest}")).await.body == content);
}

#[tokio::test]
async fn a_body_is_as_long_as_its_head_says() {
    let rig = Rig::new();
    let (mut edge, path) = Edge::begin(&rig).await;
    let content = content(2 * SLOT_BYTES);
    for length in [0, content.len() - 1, content.len() + 1] {
        edge.head(&format!("PATCH {path}"), &length.to_string())
            .await;
        edge.body(&content, SLOT_BYTES).await;
        let reply = edge.end().await;
        assert_eq!((reply.status, &*reply.code()), (400, "SIZE_INVALID"));
    }
    let status = rig.get(&path).await;
    assert_eq!(status.header("range"), Some("0-0"), "{status}");
}

#[tokio::test]
async fn of_a_body_that_is_cut_all_that_was_told_is_kept() {
    let rig = Rig::new();
    let (mut edge, path) = Edge::begin(&rig).await;
    let content = content(2 * SLOT_BYTES + 1000);
    edge.head(&format!("PATCH {path}"), "unknown").await;
    edge.body(&content, SLOT_BYTES).await;
    drop(edge);
    let digest = sha256(&content);
    let put = format!("PUT {path}?digest={digest}");
    let mut reply = rig.send(&put, "").await;
    while reply.status == 409 {
        reply = rig.send(&put, "").await; // the other request is still under way
    }
    assert_eq!(reply.status, 201, "{reply}");
}

#[tokio::test]
async fn what_is_stored_is_what_was_hashed_whatever_the_client_does_to_a_slot() {
    let rig = Rig::new();
    let (mut edge, path) = Edge::begin(&rig).await;
    let memory = edge.memory.take().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let spoiling = tokio::task::spawn_blocking({
        let done = Arc::clone(&done);
        let mut places = (0..SLOT_BYTES as u64).step_by(100).cycle();
        move || {
            while !done.load(Ordering::Relaxed) {
                let place = places.next().unwrap();
                memory.write_all_at(b"spoiled", place).unwrap();
            }
        }
    });
    let content = content(48 << 20);
    edge.head(&format!("PATCH {path}"), "unknown").await;
    edge.body(&content, SLOT_BYTES).await;
    assert_eq!(edge.end().await.status, 202);
    done.store(true, Ordering::Relaxed);
    spoiling.await.unwrap();
    let id = path.rsplit('/').next().unwrap();
    let stored = std::fs::read(rig.path(&format!("repositories/a/_uploads/{id}/data"))).unwrap();
    assert!(stored.len() == content.len() && stored != content);
    let put = format!("PUT {path}?digest={}", sha256(&stored));
    let reply = rig.send(&put, "").await;
    assert_eq!(reply.status, 201, "{reply}");
}

#[tokio::test]
async fn notes_that_cannot_be_are_refused() {
    let rig = Rig::new();
    for notes in [&[0, 0, 0, 0][..], &[99, 0, 0, 1], &[0, 255, 0, 0], &[0, 0]] {
        let (mut edge, path) = Edge::begin(&rig).await;
        edge.head(&format!("PATCH {path}"), "unknown").await;
        send_chunk(&mut edge.stream, notes).await;
        let reply = edge.end().await;
        let told = (reply.status, reply.code());
        assert_eq!(told, (500, "UNKNOWN".to_owned()), "{notes:?}");
    }
    // Where none was offered.
    let path = rig.begin("a").await;
    let mut stream = rig.connect().await;
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\nx-tidegate-slots: 1\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    send_chunk(&mut stream, &[0, 0, 0, 1]).await;
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    assert_eq!(Reply::parse(&reply).code(), "UNKNOWN");
}
