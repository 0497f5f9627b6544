//! Both sides, and what either can do to the other.

use std::io::{self, ErrorKind, IoSlice, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::sockopt::set_socket_linger;

use super::*;

/// Longer than anything takes that does not wait.
const PATIENCE: Duration = Duration::from_secs(20);

fn both() -> (Sender, Receiver) {
    let (offer, files) = Sender::offer().unwrap();
    let (receiver, notes) = Receiver::open(files).unwrap();
    (offer.taken(notes).unwrap(), receiver)
}

/// A receiver, and what the process that sends to it has.
struct Evil {
    receiver: Receiver,
    _offer: Offer,
    /// The end of the socket for notes that the receiver has handed over.
    notes: OwnedFd,
    /// The end of the other that it was handed, which both have.
    freed: OwnedFd,
}

impl Evil {
    fn new() -> Self {
        let (offer, files) = Sender::offer().unwrap();
        let freed = files[1].try_clone().unwrap();
        let (receiver, notes) = Receiver::open(files).unwrap();
        Self {
            receiver,
            _offer: offer,
            notes,
            freed,
        }
    }

    /// Sends a note as no sender would.
    fn note(&self, note: &[u8]) -> io::Result<Next> {
        rustix::io::write(&self.notes, note).unwrap();
        self.receiver.take()
    }
}

/// Fills a socket, and has whoever relies on its flags wait for room.
fn block(socket: &OwnedFd) {
    let mut flags = fcntl_getfl(socket).unwrap();
    fcntl_setfl(socket, flags | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(socket, &[0]).is_ok() {}
    flags.remove(OFlags::NONBLOCK);
    fcntl_setfl(socket, flags).unwrap();
}

/// Does `work` on a thread, which must not wait for anything.
fn at_once<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    let result = result.recv_timeout(PATIENCE);
    result.unwrap_or_else(|_| panic!("{what} waits"))
}

/// A connection whose last reference takes an hour to close; what keeps it so is returned as well.
fn lingering() -> (OwnedFd, impl Sized) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 64 << 10]).is_ok() {}
    set_socket_linger(&stream, Some(Duration::from_secs(3600))).unwrap();
    (stream.into(), listener)
}

fn send_file(socket: impl std::os::fd::AsFd, bytes: &[u8], file: OwnedFd) {
    let sent = descriptors::send(socket, &[IoSlice::new(bytes)], &[file.as_fd()]);
    assert_eq!(sent.unwrap(), bytes.len());
}

/// Sends what fits into a slot.
async fn send(sender: &mut Sender, bytes: &[u8]) {
    let mut filling = sender.slot().await.unwrap();
    assert!(sender.fill(&mut filling, bytes).is_empty());
    sender.send(filling).unwrap();
}

fn take(receiver: &Receiver) -> Slot {
    match receiver.take().unwrap() {
        Next::Slot(slot) => slot,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bytes_go_through_slots_that_are_used_again() {
    let (mut sender, receiver) = both();
    for number in 0..50_u8 {
        let bytes = vec![number; usize::from(number) * 10_000 + 1];
        send(&mut sender, &bytes).await;
        assert!(take(&receiver).to_vec() == bytes);
    }
}

#[tokio::test]
async fn a_slot_takes_what_fits() {
    let (mut sender, receiver) = both();
    let bytes: Vec<u8> = (0..=250).cycle().take(SLOT_BYTES + 77).collect();
    let mut filling = sender.slot().await.unwrap();
    assert!(sender.fill(&mut filling, &bytes[..5]).is_empty());
    assert!(!filling.is_full());
    assert_eq!(sender.fill(&mut filling, &bytes[5..]).len(), 77);
    assert!(filling.is_full());
    sender.send(filling).unwrap();
    let slot = take(&receiver);
    assert!(slot.to_vec() == bytes[..SLOT_BYTES]);
    let mut part = [0; 7];
    slot.copy_to(SLOT_BYTES - 7, &mut part);
    assert_eq!(part, bytes[SLOT_BYTES - 7..SLOT_BYTES]);
}

#[tokio::test]
async fn who_fills_waits_for_who_reads() {
    let (mut sender, receiver) = both();
    let mut taken = Vec::new();
    for _ in 0..SLOTS {
        send(&mut sender, b"x").await;
        taken.push(take(&receiver));
    }
    let patience = Duration::from_millis(50);
    let waited = tokio::time::timeout(patience, sender.slot()).await;
    assert!(waited.is_err(), "there is one slot more");
    assert!(!sender.rest().unwrap(), "all is said to be free");
    taken.remove(2);
    drop(sender.slot().await.unwrap());
    drop((receiver, taken));
    while sender.slot().await.is_ok() {}
}

#[tokio::test]
async fn who_reads_waits_for_who_fills() {
    let (mut sender, receiver) = both();
    assert!(matches!(receiver.take().unwrap(), Next::Nothing));
    let patience = Duration::from_millis(50);
    receiver.ready_within(patience).unwrap();
    let waited = tokio::time::timeout(patience, receiver.ready()).await;
    assert!(waited.is_err(), "there is a note");
    let waiting = receiver.clone();
    let (waited, ()) = tokio::join!(waiting.ready(), send(&mut sender, b"in the runtime"));
    waited.unwrap();
    assert_eq!(take(&receiver).to_vec(), b"in the runtime");
    let waiting = receiver.clone();
    let long = Duration::from_secs(60);
    let waited = tokio::task::spawn_blocking(move || waiting.ready_within(long));
    send(&mut sender, b"on a thread").await;
    waited.await.unwrap().unwrap();
    assert_eq!(take(&receiver).to_vec(), b"on a thread");
}

#[tokio::test]
async fn an_end_comes_after_what_was_sent_before() {
    let (mut sender, receiver) = both();
    send(&mut sender, b"the last").await;
    receiver.tell_end().unwrap();
    assert_eq!(take(&receiver).to_vec(), b"the last");
    assert!(matches!(receiver.take().unwrap(), Next::End));
    assert!(matches!(receiver.take().unwrap(), Next::Nothing));
}

#[tokio::test]
async fn who_waits_hears_of_the_end() {
    let (_sender, receiver) = both();
    let waiting = receiver.clone();
    let waits = async {
        waiting.ready().await.unwrap();
        assert!(matches!(waiting.take().unwrap(), Next::End));
    };
    let (told, ()) = tokio::join!(async { receiver.tell_end() }, waits);
    told.unwrap();
    let waiting = receiver.clone();
    let waited = tokio::task::spawn_blocking(move || waiting.ready_within(PATIENCE * 3));
    receiver.tell_end().unwrap();
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    waited.expect("it was not woken").unwrap().unwrap();
    assert!(matches!(receiver.take().unwrap(), Next::End));
    let patience = Duration::from_millis(50);
    receiver.ready().await.unwrap(); // it was told twice, and has waited once
    let waited = tokio::time::timeout(patience, receiver.ready()).await;
    assert!(waited.is_err(), "an end is told once");
}

#[tokio::test]
async fn what_a_sender_sent_before_it_went_is_taken() {
    let (mut sender, receiver) = both();
    send(&mut sender, b"the last").await;
    drop(sender);
    receiver.ready_within(PATIENCE).unwrap();
    receiver.ready().await.unwrap();
    assert_eq!(take(&receiver).to_vec(), b"the last");
    assert!(matches!(receiver.take().unwrap(), Next::Gone));
    receiver.tell_end().unwrap();
    assert!(matches!(receiver.take().unwrap(), Next::End));
}

#[tokio::test]
async fn what_rests_takes_no_memory() {
    let (mut sender, receiver) = both();
    for _ in 0..SLOTS {
        send(&mut sender, &vec![7; SLOT_BYTES]).await;
        drop(take(&receiver));
    }
    // One that is free again is filled before one that never was.
    assert_eq!(sender.memory_bytes(), SLOT_BYTES as u64);
    assert!(sender.rest().unwrap());
    assert_eq!(sender.memory_bytes(), 0);
    send(&mut sender, b"again").await;
    assert_eq!(take(&receiver).to_vec(), b"again");
}

#[tokio::test]
async fn a_note_that_cannot_be_is_refused() {
    let evil = Evil::new();
    let slot = evil.note(&[0, 0, 0, 1]).unwrap();
    let again = evil.note(&[0, 0, 0, 1]);
    assert!(again.is_err(), "it was not given back");
    drop(slot);
    let too_many = u8::try_from(SLOTS).unwrap();
    for note in [
        &[too_many, 0, 0, 1][..],
        &[u8::MAX, 0, 0, 0],
        &[0; 4],
        &[0, 8, 0, 1],
        &[0, 0],
    ] {
        assert!(evil.note(note).is_err(), "{note:?}");
    }
    assert!(matches!(evil.note(&[0, 8, 0, 0]), Ok(Next::Slot(_))));
}

#[tokio::test]
async fn memory_that_may_shrink_or_is_none_is_not_opened() {
    let file = tempfile::tempfile().unwrap();
    file.set_len((SLOTS * SLOT_BYTES) as u64).unwrap();
    let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&memory, (SLOTS * SLOT_BYTES) as u64).unwrap();
    for not_as_agreed in [file.into(), memory, lingering().0] {
        let (_offer, [_, freed]) = Sender::offer().unwrap();
        let opened = at_once("it", move || Receiver::open([not_as_agreed, freed]));
        assert!(opened.is_err());
    }
}

#[tokio::test]
async fn sockets_of_another_kind_are_not_opened() {
    let not_as_agreed = || -> [OwnedFd; 4] {
        [
            rustix::pipe::pipe().unwrap().1,
            tempfile::tempfile().unwrap().into(),
            std::os::unix::net::UnixDatagram::unbound().unwrap().into(),
            lingering().0,
        ]
    };
    for socket in not_as_agreed() {
        let (_offer, [memory, _]) = Sender::offer().unwrap();
        let opened = at_once("it", move || Receiver::open([memory, socket]));
        assert!(opened.is_err());
    }
    for socket in not_as_agreed() {
        let (offer, _files) = Sender::offer().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let opened = at_once("it", move || {
            let _runtime = runtime.enter();
            offer.taken(socket)
        });
        assert!(opened.is_err());
    }
}

#[tokio::test]
async fn who_reads_cannot_write_to_the_memory() {
    let (_offer, [memory, _]) = Sender::offer().unwrap();
    let mapped = memmap2::MmapOptions::new().map_raw(&memory);
    assert_eq!(mapped.unwrap_err().kind(), ErrorKind::PermissionDenied);
    rustix::io::pwrite(&memory, b"x", 0).unwrap_err();
    let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&memory, flags, 0, 1).unwrap_err();
}

#[tokio::test]
async fn flags_that_a_sender_changes_do_not_make_the_receiver_wait() {
    let evil = Evil::new();
    let slot = evil.note(&[0, 0, 0, 1]).unwrap();
    block(&evil.freed);
    block(&evil.notes);
    at_once("to free a slot", move || drop(slot));
    let receiver = evil.receiver.clone();
    at_once("to tell the end", move || receiver.tell_end()).unwrap();
    at_once("to take a note", move || evil.receiver.take()).unwrap_err();
}

#[tokio::test]
async fn flags_that_a_receiver_changes_do_not_make_the_sender_wait() {
    let (offer, files) = Sender::offer().unwrap();
    let freed = files[1].try_clone().unwrap();
    let (_receiver, notes) = Receiver::open(files).unwrap();
    let shared = notes.try_clone().unwrap();
    let mut sender = offer.taken(notes).unwrap();
    let filling = sender.slot().await.unwrap();
    block(&shared);
    let (mut sender, sent) = at_once("to send", move || {
        let sent = sender.send(filling);
        (sender, sent)
    });
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::WouldBlock);
    block(&freed);
    at_once("to collect", move || sender.rest()).unwrap_err();
}

#[tokio::test]
async fn descriptors_among_messages_are_an_error_and_closed_by_another() {
    let evil = Evil::new();
    let (file, _kept) = lingering();
    send_file(&evil.notes, &[0, 0, 0, 1], file);
    let receiver = evil.receiver.clone();
    at_once("to take a note", move || receiver.take()).unwrap_err();
    // What nobody has read is closed with the socket.
    let (file, _kept) = lingering();
    send_file(&evil.notes, &[0, 0, 0, 1], file);
    at_once("to close", move || drop(evil));

    let (offer, files) = Sender::offer().unwrap();
    let freed = files[1].try_clone().unwrap();
    let (_receiver, notes) = Receiver::open(files).unwrap();
    let mut sender = offer.taken(notes).unwrap();
    for _ in 0..2 {
        let (file, _kept) = lingering();
        send_file(&freed, &[0], file);
    }
    at_once("to collect", move || sender.rest()).unwrap_err();
}

#[test]
fn what_is_discarded_gets_closed_whatever_its_kind() {
    let (near, far) = UnixStream::pair().unwrap();
    let (kept, inner) = UnixStream::pair().unwrap();
    let (file, _kept) = lingering();
    let (mut read, write) = rustix::pipe::pipe()
        .map(|(read, write)| (std::fs::File::from(read), write))
        .unwrap();
    // In the queue of a socket that is in the queue of a socket.
    send_file(&kept, b"x", write);
    send_file(&kept, b"x", file);
    drop(kept);
    send_file(&far, b"x", inner.into());
    at_once("to close", move || descriptors::discard([near.into()]));
    let end = at_once("the end of the pipe", move || {
        io::Read::read(&mut read, &mut [0])
    });
    assert_eq!(end.unwrap(), 0);
}
