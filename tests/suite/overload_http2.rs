//! Too much over HTTP/2: heads, streams and resets without end, and that nobody else pays for it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::h2::{self, H2};
use crate::harness::{Rig, Setup, eventually, need, pause};

#[test]
fn heads_have_the_same_bounds_over_http_2() {
    let rig = Rig::start();
    let answer = |headers: &[(&str, &str)], path: &str| {
        let mut connection = H2::connect(&rig).unwrap();
        let (stream, head) = connection.open_with("GET", path, true, headers);
        // What is larger than a frame cannot be sent as one.
        assert!(head.len() < 64 << 10);
        connection.send(&head).unwrap();
        connection.receive_all(stream).unwrap()
    };
    let long = "x".repeat(33 << 10);
    let path = format!("/v2/{}", "a".repeat(9 << 10));
    let many: Vec<(String, &str)> = (0..101).map(|at| (format!("x-{at}"), "y")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, *value)).collect();
    for (frames, code) in [
        (answer(&[("x", &long)], "/v2/"), "UNSUPPORTED"),
        (answer(&many, "/v2/"), "UNSUPPORTED"),
        (answer(&[], &path), "UNSUPPORTED"),
    ] {
        let body: Vec<u8> = frames
            .iter()
            .filter(|frame| frame.kind == h2::DATA)
            .flat_map(|frame| frame.payload.clone())
            .collect();
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(body.contains(code), "{body}");
    }
    let log = eventually("the lines of all three", || {
        let log = rig.edge_log();
        (log.matches("status=431").count() >= 2 && log.contains("status=414")).then_some(log)
    });
    assert!(!log.contains(&long[..100]));
}

/// Whether the server ends the connection within some seconds.
fn ends(connection: &mut H2) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        if connection.receive().is_err() {
            return true;
        }
    }
    false
}

#[test]
fn a_head_without_end_is_cut_off_over_http_2() {
    let rig = Setup {
        tables: "[limits]\nheader_timeout = \"1s\"\nkeepalive_timeout = \"1s\"\n".to_owned(),
        ..Setup::default()
    }
    .start();
    // One that stops, on a new connection and on one that has carried a request.
    for kept in [false, true] {
        let mut connection = H2::connect(&rig).unwrap();
        if kept {
            let (stream, head) = connection.open("GET", "/v2/", true);
            connection.send(&head).unwrap();
            connection.receive_all(stream).unwrap();
        }
        let (_, mut head) = connection.open("GET", "/v2/", true);
        // END_STREAM alone: the rest of the head is still to come.
        head[4] = 1;
        connection.send(&head).unwrap();
        assert!(ends(&mut connection), "kept: {kept}");
    }
    // One that goes on and on.
    let mut connection = H2::connect(&rig).unwrap();
    let (stream, mut head) = connection.open("GET", "/v2/", true);
    head[4] = 1;
    connection.send(&head).unwrap();
    let more = h2::frame(9, 0, stream, &[0; 8 << 10]);
    let begin = Instant::now();
    while connection.send(&more).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(20), "and on");
    }
    rig.client().get("/v2/").expect(200);
}

#[test]
fn streams_at_once_are_as_many_as_configured() {
    let rig = Setup {
        tables: "[limits]\nhttp2_max_streams = 7\n".to_owned(),
        ..Setup::default()
    }
    .start();
    let mut connection = H2::connect(&rig).unwrap();
    let settings = loop {
        let frame = connection.receive().unwrap();
        if frame.kind == h2::SETTINGS && frame.flags == 0 {
            break frame.payload;
        }
    };
    // MAX_CONCURRENT_STREAMS is setting 3.
    let streams = settings
        .chunks_exact(6)
        .find(|setting| setting[..2] == [0, 3])
        .map(|setting| setting[5]);
    assert_eq!(streams, Some(7));
    // What goes beyond is refused by itself.
    for _ in 0..7 {
        let (_, head) = connection.open("POST", "/v2/a/b/blobs/uploads/", false);
        connection.send(&head).unwrap();
    }
    let (stream, head) = connection.open("GET", "/v2/", true);
    connection.send(&head).unwrap();
    let frames = connection.receive_all(stream).unwrap();
    assert_eq!(frames.last().unwrap().kind, h2::RESET, "{frames:?}");
}

/// Opens streams and resets them, after a while, until the server ends the connection, doing
/// something else in between; returns how many it took.
fn flood(
    rig: &Rig,
    open: impl Fn(&mut H2) -> (u32, Vec<u8>),
    patience: Duration,
    meanwhile: impl Fn(),
) -> usize {
    let mut connection = H2::connect(rig).unwrap();
    let mut opened = 0;
    let begin = Instant::now();
    loop {
        let mut opens = Vec::new();
        let mut resets = Vec::new();
        for _ in 0..25 {
            let (stream, head) = open(&mut connection);
            opens.extend(head);
            resets.extend(h2::reset(stream));
        }
        opened += 25;
        let sent = connection.send(&opens).and_then(|()| {
            pause(patience);
            connection.send(&resets)
        });
        if sent.is_err() {
            return opened;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{opened} and no end"
        );
        meanwhile();
    }
}

fn rig_for_floods() -> Rig {
    Setup {
        tables: "[limits]\nhttp2_max_resets = 50\n".to_owned(),
        ..Setup::default()
    }
    .start()
}

#[test]
fn a_flood_of_resets_ends_the_connection_and_hurts_nobody() {
    let rig = rig_for_floods();
    // As fast as they can be written; and slowly enough that each has begun when it is reset.
    for patience in [Duration::ZERO, Duration::from_millis(200)] {
        let open = |connection: &mut H2| connection.open("POST", "/v2/a/b/blobs/uploads/", false);
        let opened = flood(&rig, open, patience, || {
            rig.client().get("/v2/").expect(200);
        });
        assert!(patience.is_zero() || opened >= 50, "cut after {opened}");
    }
    // Uploads that nobody finishes are all that is left.
    rig.client().get("/v2/").expect(200);
}

#[test]
fn a_flood_of_resets_is_seen_while_the_registry_is_silent() {
    let mut rig = rig_for_floods();
    rig.client().get("/v2/").expect(200);
    rig.registry().signal(Signal::STOP);
    let open = |connection: &mut H2| connection.open("GET", "/v2/", true);
    let opened = flood(&rig, open, Duration::from_millis(200), || {});
    assert!(opened >= 50, "cut after {opened}");
    rig.registry().signal(Signal::CONT);
    rig.client().get("/v2/").expect(200);
}

#[test]
fn a_flood_of_streams_leaves_others_as_fast_as_they_were() {
    need!("h2load");
    let rig = Rig::start();
    let mut flood = Command::new("h2load")
        .args(["-c", "20", "-m", "100", "-D", "3"])
        .arg(format!("https://{}/v2/", rig.name()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while flood.try_wait().unwrap().is_none() {
        let begin = Instant::now();
        rig.client().get("/v2/").expect(200);
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "{:?}",
            begin.elapsed()
        );
    }
}
