//! HTTP/2 clients that ask for much and take nothing: what they can make Tidegate hold.

use std::time::{Duration, Instant};

use crate::harness::h2::{self, H2};
use crate::harness::{
    MANIFEST, Rig, Setup, digest, eventually, heavy, image, memory_peak_bytes, noise, open_files,
    pause, push_blob, push_image, push_manifest,
};

const MIB: u64 = 1 << 20;
const STREAMS: usize = 100;

/// Asks for `path` on each stream of a connection with these settings, and takes nothing.
fn reader(rig: &Rig, settings: &[(u16, u32)], path: &str) -> (H2, Vec<u32>) {
    let mut connection = H2::connect_with(rig, settings).unwrap();
    let mut streams = Vec::new();
    let mut heads = Vec::new();
    for _ in 0..STREAMS {
        let (stream, head) = connection.open("GET", path, true);
        streams.push(stream);
        heads.extend(head);
    }
    connection.send(&heads).unwrap();
    (connection, streams)
}

/// The median time that an honest client's small pull takes, from its connection to its end.
fn latency(rig: &Rig, path: &str) -> Duration {
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let begin = Instant::now();
            let mut connection = H2::connect(rig).unwrap();
            let (stream, head) = connection.open("GET", path, true);
            connection.send(&head).unwrap();
            let frames = connection.receive_all(stream).unwrap();
            assert!(frames.iter().any(|frame| frame.kind == h2::DATA));
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// Reads the body of `stream` from here on, letting the server send it.
fn rest_of(connection: &mut H2, stream: u32, size: usize) -> Vec<u8> {
    let grant = u32::try_from(size).unwrap();
    connection.send(&h2::window(0, grant)).unwrap();
    connection.send(&h2::window(stream, grant)).unwrap();
    let frames = connection.receive_all(stream).unwrap();
    let data = frames.into_iter().filter(|frame| frame.kind == h2::DATA);
    data.flat_map(|frame| frame.payload).collect()
}

/// What a crowd of readers, each of which has `settings`, is seen to cost.
#[derive(Debug)]
struct Cost {
    descriptors: usize,
    edge_bytes: u64,
    registry_bytes: u64,
    quiet: Duration,
    beside: Duration,
}

/// Has `connections` readers ask for `path`; waits until `answered` of their streams have a reply.
fn crowd(
    rig: &Rig,
    connections: usize,
    settings: &[(u16, u32)],
    path: &str,
) -> (Vec<(H2, Vec<u32>)>, Cost) {
    let [edge, registry] = rig.pids()[..] else {
        panic!("two roles")
    };
    let honest = "/v2/honest/manifests/v1";
    let quiet = latency(rig, honest);
    let mut descriptors = 0;
    let readers: Vec<_> = (0..connections)
        .map(|_| {
            let reader = reader(rig, settings, path);
            descriptors = descriptors.max(open_files(edge));
            reader
        })
        .collect();
    // While they come to rest, and after that.
    let mut beside = Vec::new();
    for _ in 0..5 {
        beside.push(latency(rig, honest));
        descriptors = descriptors.max(open_files(edge));
        pause(Duration::from_millis(300));
    }
    beside.sort();
    let cost = Cost {
        descriptors,
        edge_bytes: memory_peak_bytes(edge),
        registry_bytes: memory_peak_bytes(registry),
        quiet,
        beside: beside[2],
    };
    (readers, cost)
}

fn assert_bounded(cost: &Cost) {
    assert!(cost.descriptors < 1500, "{} descriptors", cost.descriptors);
    // Of a release build less; this one is larger before it has done anything.
    assert!(cost.edge_bytes < 152 * MIB, "edge: {}", cost.edge_bytes);
    let registry = cost.registry_bytes;
    assert!(registry < 128 * MIB, "registry: {registry}");
    // Far more than it takes, and far less than where others had to wait for their turn.
    let slow = cost.quiet * 2 + Duration::from_secs(1);
    assert!(cost.beside < slow, "{:?}", cost.beside);
}

#[test]
fn readers_that_take_nothing_of_a_blob_cost_little_and_may_go_on() {
    let _one = heavy();
    let rig = Rig::start();
    let client = rig.client();
    push_image(&client, "honest", "v1", &image(7, &[1000]));
    let content = noise(1, 8 << 20);
    let path = format!(
        "/v2/hostile/blobs/{}",
        push_blob(&client, "hostile", &content)
    );
    let (mut readers, cost) = crowd(&rig, 50, &[(h2::INITIAL_WINDOW, 0)], &path);
    println!("{cost:?}");
    assert_bounded(&cost);
    // One of those that waited longest, and one that asked last.
    for number in [0, 49] {
        let (connection, streams) = &mut readers[number];
        for stream in [streams[0], streams[STREAMS - 1]] {
            let body = rest_of(connection, stream, content.len());
            assert!(body == content, "connection {number}, stream {stream}");
        }
    }
}

#[test]
fn readers_that_take_a_byte_at_a_time_cost_little() {
    let _one = heavy();
    let rig = Rig::start();
    let client = rig.client();
    push_image(&client, "honest", "v1", &image(7, &[1000]));
    let content = noise(2, 8 << 20);
    let path = format!(
        "/v2/hostile/blobs/{}",
        push_blob(&client, "hostile", &content)
    );
    let (mut readers, cost) = crowd(&rig, 20, &[(h2::INITIAL_WINDOW, 1)], &path);
    println!("{cost:?}");
    assert_bounded(&cost);
    for _ in 0..3 {
        for (connection, streams) in &mut readers {
            let more: Vec<u8> = streams
                .iter()
                .flat_map(|stream| h2::window(*stream, 1))
                .collect();
            connection.send(&more).unwrap();
        }
        pause(Duration::from_millis(200));
        let beside = latency(&rig, "/v2/honest/manifests/v1");
        assert!(beside < Duration::from_secs(2), "{beside:?}");
    }
}

#[test]
fn readers_with_windows_that_never_close_fill_no_memory() {
    let _one = heavy();
    let rig = Rig::start();
    let client = rig.client();
    push_image(&client, "honest", "v1", &image(7, &[1000]));
    let content = noise(3, 8 << 20);
    let path = format!(
        "/v2/hostile/blobs/{}",
        push_blob(&client, "hostile", &content)
    );
    // HTTP/2 lets everything through, and nobody reads from the socket.
    let settings = [(h2::INITIAL_WINDOW, i32::MAX.cast_unsigned())];
    let [edge, _] = rig.pids()[..] else {
        panic!("two roles")
    };
    let mut readers = Vec::new();
    for _ in 0..50 {
        let (mut connection, streams) = reader(&rig, &settings, &path);
        connection.send(&h2::window(0, 1 << 30)).unwrap();
        readers.push((connection, streams));
    }
    let beside = latency(&rig, "/v2/honest/manifests/v1");
    assert!(beside < Duration::from_secs(2), "{beside:?}");
    pause(Duration::from_secs(2));
    let peak = memory_peak_bytes(edge);
    println!(
        "50 connections with open windows: edge {} MiB at most",
        peak / MIB
    );
    assert!(peak < 224 * MIB, "edge: {peak}");
    assert!(open_files(edge) < 1500);
}

#[test]
fn readers_that_take_nothing_of_a_large_manifest_cost_little_and_may_go_on() {
    let _one = heavy();
    let rig = Rig::start();
    let client = rig.client();
    push_image(&client, "honest", "v1", &image(7, &[1000]));
    push_blob(&client, "hostile", b"{}");
    let config = digest(b"{}");
    let filling = "x".repeat((4 << 20) - 1000);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[],"annotations":{{"a":"{filling}"}}}}"#
    );
    let manifest = manifest.as_bytes();
    push_manifest(&client, "hostile", "big", MANIFEST, manifest).expect(201);
    let (mut readers, cost) = crowd(
        &rig,
        50,
        &[(h2::INITIAL_WINDOW, 0)],
        "/v2/hostile/manifests/big",
    );
    println!("{cost:?}");
    assert_bounded(&cost);
    // The tag goes on to another manifest, and who has begun with the first gets the rest of it.
    let other = String::from_utf8(manifest.to_vec())
        .unwrap()
        .replace("xx", "yy");
    push_manifest(&client, "hostile", "big", MANIFEST, other.as_bytes()).expect(201);
    let (connection, streams) = &mut readers[0];
    let body = rest_of(connection, streams[0], manifest.len());
    assert!(body == manifest);
}

#[test]
fn a_stream_waits_for_those_before_it_and_is_told_when_they_take_too_long() {
    let rig = Setup {
        tables: "[limits]\nhttp2_max_transfers = 1\n".to_owned(),
        ..Setup::default()
    }
    .start();
    let client = rig.client();
    let content = noise(4, 1 << 20);
    let path = format!("/v2/a/blobs/{}", push_blob(&client, "a", &content));
    let mut connection = H2::connect_with(&rig, &[(h2::INITIAL_WINDOW, 1 << 20)]).unwrap();
    connection.send(&h2::window(0, 8 << 20)).unwrap();
    let opened: Vec<(u32, Vec<u8>)> = (0..5)
        .map(|_| connection.open("GET", &path, true))
        .collect();
    for (_, head) in &opened {
        connection.send(head).unwrap();
    }
    let mut left: Vec<(u32, usize)> = opened.iter().map(|(stream, _)| (*stream, 0)).collect();
    eventually("all streams to end", || {
        let frame = connection.receive().unwrap();
        let (_, seen) = left
            .iter_mut()
            .find(|(stream, _)| *stream == frame.stream)?;
        if frame.kind == h2::DATA {
            *seen += frame.payload.len();
        }
        assert_ne!(frame.kind, h2::RESET);
        left.iter()
            .all(|(_, seen)| *seen == content.len())
            .then_some(())
    });
}
