//! Memory does not grow with the size of blobs, and little with their number.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{
    PASSWORD, Rig, USER, digest, eventually, heavy, memory_peak_bytes, need, noise, pause, run,
    tar_of, with_query,
};

const MIB: u64 = 1 << 20;

/// Pushes the same `size` of other bytes by `clients` at once; returns the peaks of edge and
/// registry.
fn peaks(clients: u32, size: u64) -> [u64; 2] {
    let rig = Rig::start();
    let folder = rig.path("blobs");
    std::fs::create_dir(&folder).unwrap();
    // One file for all: what is under test is the server's memory, and the digests must differ
    // only in that each client has a repository of its own.
    let blob = folder.join("blob");
    tar_of(&blob, "noise", 1, size);
    let digest = run(Command::new("sha256sum").arg(&blob));
    let digest = format!("sha256:{}", digest.split(' ').next().unwrap());
    let pushes: Vec<Child> = (0..clients)
        .map(|number| push(&rig, number, &blob, &digest))
        .collect();
    for (number, push) in pushes.into_iter().enumerate() {
        let output = push.wait_with_output().unwrap();
        let code = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            code,
            "201",
            "client {number}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let pids = rig.pids();
    [memory_peak_bytes(pids[0]), memory_peak_bytes(pids[1])]
}

fn push(rig: &Rig, number: u32, blob: &std::path::Path, digest: &str) -> Child {
    let repository = format!("/v2/many/r{number}/blobs/uploads/");
    let location = rig.client().post(&repository).expect(202).location();
    let location = with_query(&location, &format!("digest={digest}"));
    let version = if number.is_multiple_of(2) {
        "--http1.1"
    } else {
        "--http2"
    };
    Command::new("curl")
        .args(["-sS", version, "--cacert"])
        .arg(&rig.certificate.cert)
        .args([
            "-u",
            &format!("{USER}:{PASSWORD}"),
            "-H",
            "Expect:",
            "-w",
            "%{http_code}",
            "-T",
        ])
        .arg(blob)
        .arg(format!("https://{}{location}", rig.name()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start curl")
}

#[test]
fn memory_is_flat_in_the_size_of_blobs() {
    need!("curl", "sha256sum");
    let _one = heavy();
    let small = peaks(8, 96 * MIB);
    let large = peaks(8, 192 * MIB);
    println!("8 pushes at once: of 96 MiB {small:?} bytes at most, of 192 MiB {large:?}");
    for (role, small, large) in [
        ("edge", small[0], large[0]),
        ("registry", small[1], large[1]),
    ] {
        // Windows and buffers are full in both; one that held a blob whole would show.
        assert!(
            large < small + 32 * MIB,
            "{role}: {small} bytes, then {large}"
        );
    }
}

#[test]
fn memory_stays_small_with_32_pushes_at_once() {
    need!("curl", "sha256sum");
    let _one = heavy();
    let gib = std::env::var_os("TIDEGATE_HEAVY").is_some();
    let size = if gib { 1024 * MIB } else { 64 * MIB };
    let [edge, registry] = peaks(32, size);
    println!(
        "32 pushes of {} MiB at once: edge {} MiB, registry {} MiB at most",
        size / MIB,
        edge / MIB,
        registry / MIB
    );
    assert!(edge < 256 * MIB, "edge: {edge} bytes");
    assert!(registry < 256 * MIB, "registry: {registry} bytes");
}

#[test]
fn memory_is_flat_in_the_size_of_downloads() {
    need!("curl", "sha256sum");
    let _one = heavy();
    let rig = Rig::start();
    let blob = rig.path("blob");
    tar_of(&blob, "noise", 2, 256 * MIB);
    let digest_of = run(Command::new("sha256sum").arg(&blob));
    let name = format!("sha256:{}", digest_of.split(' ').next().unwrap());
    let output = push(&rig, 0, &blob, &name).wait_with_output().unwrap();
    assert_eq!(output.stdout, b"201");
    // A reader that takes the head and then nothing: what it does not read must not pile up.
    let path = format!("/v2/many/r0/blobs/{name}");
    let mut readers: Vec<_> = (0..16)
        .map(|_| {
            let mut reader = rig.client().request("GET", &path).open().unwrap();
            reader.reply_head().unwrap().expect(200);
            reader
        })
        .collect();
    let whole = rig.client().get(&path).expect(200);
    assert_eq!(digest(&whole.body), name);
    for (pid, role) in rig.pids().into_iter().zip(["edge", "registry"]) {
        let peak = memory_peak_bytes(pid);
        assert!(peak < 256 * MIB, "{role}: {peak} bytes");
    }
    let mut piece = noise(1, 10);
    for reader in &mut readers {
        assert!(reader.read_some(&mut piece).unwrap() > 0);
    }
}

#[test]
fn a_registry_that_stalls_holds_its_clients_back_and_fills_no_memory() {
    let mut rig = Rig::start();
    let client = rig.client();
    let piece = noise(3, 1 << 20);
    let pieces: Vec<u8> = piece.repeat(512);
    let digest = digest(&pieces);
    let location = client
        .post("/v2/stalled/blobs/uploads/")
        .expect(202)
        .location();
    let location = with_query(&location, &format!("digest={digest}"));
    let mut push = client
        .request("PUT", &location)
        .header("Content-Length", &pieces.len().to_string())
        .open()
        .unwrap();
    push.write(&piece).unwrap();
    // Stopped, the registry is as slow as a disk can be.
    rig.registry().signal(Signal::STOP);
    let sent = AtomicU64::new(1);
    let reply = thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            for _ in 1..512 {
                push.write(&piece).unwrap();
                sent.fetch_add(1, Ordering::Relaxed);
            }
            push.reply().unwrap()
        });
        let held = eventually("the client to be held back", || {
            let before = sent.load(Ordering::Relaxed);
            pause(Duration::from_millis(500));
            (sent.load(Ordering::Relaxed) == before).then_some(before)
        });
        rig.registry().signal(Signal::CONT);
        assert!(held < 64, "{held} MiB were taken that nobody had read");
        pushing.join().unwrap()
    });
    reply.expect(201);
    let edge = memory_peak_bytes(rig.pids()[0]);
    assert!(edge < 128 * MIB, "the edge held {edge} bytes");
}

#[test]
fn bytes_go_through_memory_that_both_share_and_give_back() {
    let rig = Rig::start();
    let client = rig.client();
    let content = noise(4, 3 << 20);
    let begun = client.post("/v2/shared/blobs/uploads/").expect(202);
    let location = with_query(&begun.location(), &format!("digest={}", digest(&content)));
    let mut push = client
        .request("PUT", &location)
        .header("Content-Length", &content.len().to_string())
        .open()
        .unwrap();
    let [edge, registry] = rig.pids()[..] else {
        panic!("there are two roles");
    };
    push.write(&content[..2 << 20]).unwrap();
    eventually("bytes in shared memory", || {
        (shared_bytes(edge) > 0 && reads_shared(registry)).then_some(())
    });
    push.write(&content[2 << 20..]).unwrap();
    push.reply().unwrap().expect(201);
    eventually("the memory to be given back", || {
        (shared_bytes(edge) == 0).then_some(())
    });
}

/// Whether a process has mapped the memory for bodies, to read and not to write.
fn reads_shared(pid: i32) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let shared = maps
        .lines()
        .filter(|line| line.contains("memfd:tidegate-slots"));
    let access: Vec<_> = shared.map(|line| line.split(' ').nth(1)).collect();
    access == [Some("r--s")]
}

/// How much of the memory for bodies, as a process has it open, is in use.
fn shared_bytes(pid: i32) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let shared = files.flatten().filter(|file| {
        let target = std::fs::read_link(file.path()).unwrap_or_default();
        target.to_string_lossy().contains("memfd:tidegate-slots")
    });
    shared
        .filter_map(|file| std::fs::metadata(file.path()).ok())
        .map(|file| file.blocks() * 512)
        .sum()
}
