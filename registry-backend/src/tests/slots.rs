//! Bodies in memory that the client has filled.

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slots::{SLOT_BYTES, Sender};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::failures::rig as failing_rig;
use super::{Reply, Rig, blob_path, receive, sha256};

/// A connection as the edge has it.
struct Edge {
    stream: UnixStream,
    sender: Option<Sender>,
    /// The memory, as a file, and the socket that takes notes.
    shared: Option<(File, File)>,
}

impl Edge {
    /// Connects, and begins an upload on the way; returns its path as well.
    async fn begin(rig: &Rig) -> (Self, String) {
        let mut edge = Self {
            stream: rig.connect().await,
            sender: None,
            shared: None,
        };
        let reply = edge.offer().await;
        assert_eq!(reply.header("x-tidegate-slots"), Some("taken/2"));
        assert!(edge.sender.is_some());
        (edge, reply.header("location").unwrap().to_owned())
    }

    /// Begins an upload, and offers memory.
    async fn offer(&mut self) -> Reply {
        let (offer, files) = Sender::offer().unwrap();
        let memory = format!("/proc/self/fd/{}", files[0].as_raw_fd());
        let memory = File::options().write(true).open(memory).unwrap();
        let head =
            "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\nx-tidegate-slots: offered/2\r\n\r\n";
        send_with(&self.stream, head, &files).await;
        let (reply, taken) = self.reply_with_files().await;
        assert_eq!(reply.status, 202, "{reply}");
        if let Ok([notes]) = <[OwnedFd; 1]>::try_from(taken) {
            self.shared = Some((memory, notes.try_clone().unwrap().into()));
            self.sender = Some(offer.taken(notes).unwrap());
        }
        reply
    }

    /// Reads a reply.
    async fn reply(&self) -> Reply {
        let (reply, files) = self.reply_with_files().await;
        assert!(files.is_empty(), "nobody has asked for any");
        reply
    }

    async fn reply_with_files(&self) -> (Reply, Vec<OwnedFd>) {
        let (mut reply, mut files) = (Vec::new(), Vec::new());
        while !is_whole(&reply) {
            let (bytes, more) = receive(&self.stream).await;
            assert!(!bytes.is_empty(), "{}", String::from_utf8_lossy(&reply));
            reply.extend(bytes);
            files.extend(more);
        }
        (Reply::parse(&reply), files)
    }

    /// Sends the head of a request whose body is in slots.
    async fn head(&mut self, line: &str, length: &str) {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nx-tidegate-slots: {length}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// Sends bytes, each `part` of them in a slot.
    async fn body(&mut self, content: &[u8], part: usize) {
        let sender = self.sender.as_mut().unwrap();
        for part in content.chunks(part) {
            let mut filling = sender.slot().await.unwrap();
            assert!(sender.fill(&mut filling, part).is_empty());
            sender.send(filling).unwrap();
        }
    }

    /// Sends a note as no sender would.
    fn note(&self, note: &[u8]) {
        let (_, notes) = self.shared.as_ref().unwrap();
        (&*notes).write_all(note).unwrap();
    }

    async fn end(&mut self) -> Reply {
        self.stream.write_all(b"0\r\n\r\n").await.unwrap();
        self.reply().await
    }
}

/// Sends the head of a request, and descriptors with it.
async fn send_with(stream: &UnixStream, head: &str, files: &[OwnedFd]) {
    stream.writable().await.unwrap();
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let sent = slots::descriptors::send(stream, &[IoSlice::new(head.as_bytes())], &files);
    assert_eq!(sent.unwrap(), head.len());
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
            let next = edge.offer().await;
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
    for slots in [2, 12] {
        let content = content(slots * SLOT_BYTES);
        for length in [0, 1, content.len() - 1, content.len() + 1] {
            let (mut edge, path) = Edge::begin(&rig).await;
            edge.head(&format!("PATCH {path}"), &length.to_string())
                .await;
            edge.body(&content, SLOT_BYTES).await;
            let reply = edge.end().await;
            assert_eq!((reply.status, &*reply.code()), (400, "SIZE_INVALID"));
            let closes = reply.header("connection") == Some("close");
            assert_eq!(closes, length < content.len(), "it was not read to its end");
            let status = rig.get(&path).await;
            assert_eq!(status.header("range"), Some("0-0"), "{status}");
        }
    }
}

#[tokio::test]
async fn a_body_may_come_slowly() {
    let rig = Rig::new();
    let (mut edge, path) = Edge::begin(&rig).await;
    let content = content(8 * SLOT_BYTES);
    let digest = sha256(&content);
    edge.head(&format!("PUT {path}?digest={digest}"), "unknown")
        .await;
    for part in content.chunks(SLOT_BYTES) {
        edge.body(part, SLOT_BYTES).await;
        // Longer than a thread waits for the next.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(edge.end().await.status, 201);
    assert!(rig.get(&format!("/v2/a/blobs/{digest}")).await.body == content);
}

#[tokio::test]
async fn a_disk_that_fills_up_under_a_body_is_told_at_once() {
    let (rig, faults) = failing_rig();
    let (mut edge, path) = Edge::begin(&rig).await;
    edge.head(&format!("PATCH {path}"), "unknown").await;
    edge.body(&content(4 * SLOT_BYTES), SLOT_BYTES).await;
    faults.set_full(true);
    // What waits for the disk frees no slot, what is discarded does.
    edge.body(&content(20 * SLOT_BYTES), SLOT_BYTES).await;
    let reply = edge.reply().await;
    assert_eq!(reply.status, 507, "{reply}");
    assert_eq!(reply.header("connection"), Some("close"));
}

/// Another body on the same connection could take the slots of one that was left unread.
#[tokio::test]
async fn a_body_that_is_refused_is_the_last_on_its_connection() {
    let rig = Rig::new();
    let (mut edge, path) = Edge::begin(&rig).await;
    let (upload, _) = path.rsplit_once('/').unwrap();
    let unknown = format!("{upload}/00000000-0000-4000-8000-000000000000");
    edge.head(&format!("PATCH {unknown}"), "unknown").await;
    edge.body(&content(2 * SLOT_BYTES), SLOT_BYTES).await;
    let reply = edge.end().await;
    assert_eq!(reply.status, 404, "{reply}");
    assert_eq!(reply.header("connection"), Some("close"));
}

#[tokio::test]
async fn of_a_body_that_is_cut_all_that_was_told_is_kept() {
    let rig = Rig::new();
    for len in [1000, 2 * SLOT_BYTES + 1000, 20 * SLOT_BYTES] {
        let (mut edge, path) = Edge::begin(&rig).await;
        let content = content(len);
        edge.head(&format!("PATCH {path}"), "unknown").await;
        edge.body(&content, SLOT_BYTES).await;
        drop(edge);
        let digest = sha256(&content);
        let put = format!("PUT {path}?digest={digest}");
        let mut reply = rig.send(&put, "").await;
        while reply.status == 409 {
            reply = rig.send(&put, "").await; // the other request is still under way
        }
        assert_eq!(reply.status, 201, "{len}: {reply}");
    }
}

#[tokio::test]
async fn of_a_body_that_is_too_long_nothing_is_kept_though_it_is_cut() {
    let rig = Rig::new();
    for length in [1, 5 * SLOT_BYTES + 1] {
        let (mut edge, path) = Edge::begin(&rig).await;
        edge.head(&format!("PATCH {path}"), &length.to_string())
            .await;
        edge.body(&content(8 * SLOT_BYTES), SLOT_BYTES).await;
        drop(edge);
        let mut reply = rig.send(&format!("PATCH {path}"), "").await;
        while reply.status == 409 {
            reply = rig.send(&format!("PATCH {path}"), "").await; // the other is still under way
        }
        assert_eq!(reply.header("range"), Some("0-0"), "{length}: {reply}");
    }
}

#[tokio::test]
async fn what_is_stored_is_what_was_hashed_whatever_the_client_does_to_a_slot() {
    let rig = Rig::new();
    let (mut edge, path) = Edge::begin(&rig).await;
    let (memory, _) = edge.shared.take().unwrap();
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
    for before in [0, 2, 5] {
        for note in [
            &[0, 0, 0, 0][..],
            &[99, 0, 0, 1],
            &[0, 255, 0, 0],
            &[255, 0, 0, 0],
            &[0, 0],
        ] {
            let (mut edge, path) = Edge::begin(&rig).await;
            edge.head(&format!("PATCH {path}"), "unknown").await;
            edge.body(&content(before * SLOT_BYTES), SLOT_BYTES).await;
            edge.note(note);
            let reply = edge.reply().await;
            let told = (reply.status, reply.code());
            assert_eq!(told, (500, "UNKNOWN".to_owned()), "{note:?}");
            assert_eq!(reply.header("connection"), Some("close"));
        }
    }
}

#[tokio::test]
async fn bytes_beside_the_slots_are_refused() {
    let rig = Rig::new();
    for before in [0, 4] {
        let (mut edge, path) = Edge::begin(&rig).await;
        edge.head(&format!("PATCH {path}"), "unknown").await;
        edge.body(&content(before * SLOT_BYTES), SLOT_BYTES).await;
        edge.stream.write_all(b"1\r\nx\r\n").await.unwrap();
        let reply = edge.end().await;
        assert_eq!(reply.code(), "UNKNOWN");
        assert_eq!(reply.header("connection"), Some("close"));
    }
}

#[tokio::test]
async fn a_body_in_slots_that_were_never_offered_is_refused() {
    let rig = Rig::new();
    let path = rig.begin("a").await;
    let mut stream = rig.connect().await;
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nx-tidegate-slots: unknown\r\n\r\n0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    assert_eq!(Reply::parse(&reply).code(), "UNKNOWN");
}

/// What an edge of another version says, and one that does not keep to what it says.
#[tokio::test]
async fn memory_that_is_not_offered_as_agreed_is_not_taken() {
    let rig = Rig::new();
    let (_offer, files) = Sender::offer().unwrap();
    let [memory, freed] = &files;
    for (said, files) in [
        ("wanted", vec![]),
        ("offered", vec![memory, freed]),
        ("offered/3", vec![memory, freed]),
        ("unknown/2", vec![memory, freed]),
        ("offered/2", vec![]),
        ("offered/2", vec![memory]),
        ("offered/2", vec![freed, memory]),
        ("offered/2", vec![memory, memory]),
    ] {
        let mut edge = Edge {
            stream: rig.connect().await,
            sender: None,
            shared: None,
        };
        let head = format!("GET /v2/ HTTP/1.1\r\nhost: x\r\nx-tidegate-slots: {said}\r\n\r\n");
        let files: Vec<OwnedFd> = files.iter().map(|file| file.try_clone().unwrap()).collect();
        send_with(&edge.stream, &head, &files).await;
        let reply = edge.reply().await;
        assert_eq!(reply.status, 200, "{said}");
        assert_eq!(reply.header("x-tidegate-slots"), None, "{said}");
        assert_eq!(reply.header("connection"), None, "{said}");
        // It goes on without, and can be offered some later.
        edge.offer().await;
        assert!(edge.sender.is_some(), "{said}");
    }
}

#[tokio::test]
async fn a_message_with_more_descriptors_than_are_offered_ends_the_connection() {
    let rig = Rig::new();
    let (_offer, [memory, freed]) = Sender::offer().unwrap();
    let stream = rig.connect().await;
    // Sent in two parts, so that there are three when the request is there.
    send_with(
        &stream,
        "GET /v2/ HTTP/1.1\r\n",
        &[memory.try_clone().unwrap(), freed],
    )
    .await;
    send_with(&stream, "host: x\r\n\r\n", &[memory]).await;
    let (bytes, files) = receive(&stream).await;
    assert!(bytes.is_empty() && files.is_empty());
}
