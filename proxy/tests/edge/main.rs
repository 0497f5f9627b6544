//! A real edge in front of a service that says what it was asked, over real connections.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod rig;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use proxy::{Drained, Edge};

use crate::rig::{Rig, config, echo_service, read, read_head, shouts};

const GET: &str = "GET /x?y=%20z HTTP/1.1\r\nHost: a.test:8443\r\nConnection: close\r\n";

#[test]
fn a_service_sees_who_is_asking_and_nothing_a_client_made_up() {
    let rig = Rig::start(&[echo_service()], "");
    let reply = rig.ask(&format!(
        "{GET}X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nForwarded: for=6.6.6.6\r\n\
         X-Real-IP: 6.6.6.6\r\nX-Tidegate-User: admin\r\nRemote_User: admin\r\nX-Request-Id: mine\r\n\
         Authorization: Bearer its-own\r\nAccept-Encoding: gzip\r\n\r\n"
    ));
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    let reply = reply.to_ascii_lowercase();
    for line in [
        "get /x?y=%20z http/1.1",
        "host: a.test:8443",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: https",
        "x-forwarded-host: a.test:8443",
        "x-real-ip: 127.0.0.1",
        "forwarded: for=127.0.0.1;host=\"a.test:8443\";proto=https",
        "authorization: bearer its-own",
        "accept-encoding: gzip",
    ] {
        let found = reply.contains(&format!("{line}\r\n"));
        assert!(found, "{line}\n--- is not in\n{reply}");
    }
    for word in ["6.6.6.6", "gopher", "admin", "mine"] {
        assert!(!reply.contains(word), "{word} was passed on\n{reply}");
    }
}

#[test]
fn an_absolute_target_reaches_the_service_as_a_path() {
    let rig = Rig::start(&[echo_service()], "");
    let reply =
        rig.ask("GET https://a.test/x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    assert!(reply.contains("GET /x HTTP/1.1\r\n"), "{reply}");
}

#[test]
fn a_path_that_is_no_text_is_refused() {
    let rig = Rig::start(&[echo_service()], "");
    let mut stream = rig.connect();
    let request = b"GET /\xff HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut reply = String::new();
    drop(stream.read_to_string(&mut reply));
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
}

#[test]
fn a_websocket_is_carried_both_ways() {
    let rig = Rig::start(&[echo_service()], "");
    let mut connection = rig.websocket();
    shouts(&mut connection, b"ping");
    shouts(&mut connection, b"pong");
}

#[test]
fn a_peer_that_cannot_be_reached_is_passed_over() {
    // Bound and dropped: nobody listens there now.
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = bound.local_addr().unwrap();
    drop(bound);
    let rig = Rig::start(&[gone, echo_service()], "");
    for _ in 0..4 {
        let reply = rig.ask(&format!("{GET}\r\n"));
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    }
    let rig = Rig::start(&[gone], "");
    let reply = rig.ask(&format!("{GET}\r\n")).to_ascii_lowercase();
    assert!(reply.starts_with("http/1.1 503 "), "{reply}");
    assert!(reply.contains("retry-after: 5\r\n"), "{reply}");
}

#[test]
fn a_dripping_head_is_cut_and_a_slow_body_is_not() {
    let limits = "[limits]\nheader_timeout = \"1s\"\nkeepalive_timeout = \"1s\"\n";
    let rig = Rig::start(&[echo_service()], limits);
    let began = Instant::now();
    let mut stream = rig.connect();
    let cut = (0..100).any(|_| {
        thread::park_timeout(Duration::from_millis(100));
        stream.write_all(b"X").is_err()
    });
    assert!(cut, "still there after {:?}", began.elapsed());

    let mut stream = rig.connect();
    let head = "PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..8 {
        thread::park_timeout(Duration::from_millis(300));
        stream.write_all(b"X").unwrap();
    }
    let mut reply = Vec::new();
    drop(stream.read_to_end(&mut reply));
    let reply = String::from_utf8_lossy(&reply);
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}

/// Returns the kind of the next HTTP/2 frame; `None` at the connection's end.
fn read_frame(stream: &mut impl Read) -> Option<u8> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let [a, b, c, kind, ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(kind)
}

/// `GET /` of a host on the first stream, by a client that lets nothing be sent to it.
fn http2_request_without_window(host: &str) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS: an initial window of 0 bytes.
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    // HEADERS: GET, https and / by their numbers, the host as a literal.
    let length = u8::try_from(host.len()).unwrap();
    bytes.extend([0, 0, length + 5, 1, 5, 0, 0, 0, 1]);
    bytes.extend([0x82, 0x87, 0x84, 0x41, length]);
    bytes.extend(host.as_bytes());
    bytes
}

#[test]
fn an_http2_client_that_takes_nothing_holds_no_stream_for_ever() {
    let limits = "[limits]\nheader_timeout = \"1s\"\nwrite_timeout = \"1s\"\n";
    let rig = Rig::start(&[echo_service()], limits);
    for host in ["a.test", "refused.test"] {
        let mut stream = rig.connect_http2();
        let request = http2_request_without_window(host);
        stream.write_all(&request).unwrap();
        let mut kinds = Vec::new();
        while let Some(kind) = read_frame(&mut stream) {
            kinds.push(kind);
            // RST_STREAM
            if kind == 3 {
                break;
            }
        }
        assert!(
            kinds.contains(&1) && kinds.contains(&3),
            "{host}: {kinds:?}"
        );
    }
}

#[test]
fn an_http2_connection_without_a_request_ends() {
    let limits = "[limits]\nheader_timeout = \"1s\"\n";
    let rig = Rig::start(&[echo_service()], limits);
    for said in [
        &b""[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let began = Instant::now();
        let mut stream = rig.connect_http2();
        stream.write_all(said).unwrap();
        while read_frame(&mut stream).is_some() {}
        let lasted = began.elapsed();
        assert!(lasted < Duration::from_secs(15), "open for {lasted:?}");
    }
}

#[test]
fn heads_that_are_too_large_and_bodies_that_are_too_long_are_refused() {
    let limits = "[limits]\nmax_uri_size = \"64B\"\nmax_headers = 10\n";
    let rig = Rig::start(
        &[echo_service()],
        &format!("max_body_size = \"1KiB\"\n{limits}"),
    );
    let ending = "Host: a.test\r\nConnection: close\r\n";
    let long = "a".repeat(70);
    let many: String = (0..12).map(|n| format!("X-{n}: 1\r\n")).collect();
    let body = "b".repeat(2048);
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\n{ending}\r\n"), 414),
        (format!("{GET}{many}\r\n"), 431),
        (
            format!("PUT / HTTP/1.1\r\n{ending}Content-Length: 2048\r\n\r\n{body}"),
            413,
        ),
        (
            format!(
                "PUT / HTTP/1.1\r\n{ending}Transfer-Encoding: chunked\r\n\r\n800\r\n{body}\r\n0\r\n\r\n"
            ),
            413,
        ),
        (
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
            400,
        ),
        (GET.replace("a.test", "b.test") + "\r\n", 421),
    ] {
        let reply = rig.ask(&request);
        let expected = format!("HTTP/1.1 {status} ");
        assert!(reply.starts_with(&expected), "{status}: {reply}");
    }
}

#[test]
fn a_connection_is_kept_over_a_refusal_of_a_small_body() {
    let rig = Rig::start(&[echo_service()], "max_body_size = \"4B\"\n");
    let mut reader = BufReader::new(rig.connect());
    for _ in 0..3 {
        let request = b"PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n12345";
        reader.get_mut().write_all(request).unwrap();
        let head = read_head(&mut reader);
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
        let mut body = String::new();
        reader.read_line(&mut body).unwrap();
        assert_eq!(body, "the body may have 4 bytes at most\n");
    }
}

#[test]
fn requests_sent_at_once_are_answered_one_after_the_other() {
    let rig = Rig::start(&[echo_service()], "max_body_size = \"4B\"\n");
    let first = "PUT /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc";
    let second = "PUT /2 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n12345";
    let third = "GET /3 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let reply = rig.ask(&[first, second, third].concat());
    let at = |text| reply.find(text);
    let order = [
        at("HTTP/1.1 200 "),
        at("PUT /1 HTTP/1.1"),
        at("HTTP/1.1 413 "),
        at("GET /3 HTTP/1.1"),
    ];
    assert!(order.iter().all(Option::is_some), "{reply}");
    assert!(order.is_sorted(), "{reply}");
}

#[test]
fn a_reload_changes_sites_and_names_what_waits_for_a_restart() {
    let echo = [echo_service()];
    let rig = Rig::start(&echo, "");
    let text = config(&echo, "").replace("[\"a.test\"]", "[\"b.test\"]");
    rig.handle.reload(read(&rig.folder, &text)).unwrap();
    let reply = rig.ask(&format!("{GET}\r\n"));
    assert!(reply.starts_with("HTTP/1.1 421 "), "{reply}");
    let moved = text
        .replace("127.0.0.1:0", "127.0.0.2:0")
        .replace("workers = 2", "workers = 1");
    let moved = moved.replace("[\"b.test\"]", "[\"a.test\"]");
    let keys = rig.handle.reload(read(&rig.folder, &moved)).unwrap();
    assert_eq!(keys, ["listener", "workers"]);
    let reply = rig.ask(&format!("{GET}\r\n"));
    assert!(
        !reply.starts_with("HTTP/1.1 421 "),
        "the rest is in force: {reply}"
    );
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let rig = Rig::start(&[echo_service()], "");
    let text = config(&[rig.tls], "").replace("127.0.0.1:0", &address);
    let error = Edge::bind(read(&rig.folder, &text), Vec::new(), Duration::ZERO)
        .err()
        .unwrap();
    let told = error.to_string();
    assert!(
        told.starts_with(&format!("listen at {address}: ")),
        "{told}"
    );
}

#[test]
fn a_drain_waits_for_what_is_under_way_and_not_for_what_is_idle() {
    let mut rig = Rig::start(&[echo_service()], "");
    let idle = rig.connect();
    let mut connection = rig.websocket();
    rig.handle.drain();
    while TcpStream::connect(rig.tls).is_ok() {
        thread::yield_now();
    }
    shouts(&mut connection, b"more");
    assert!(!rig.running.as_ref().unwrap().is_finished());
    drop(connection);
    let drained = rig.running.take().unwrap().join().unwrap();
    assert_eq!(drained, Drained { abandoned: 0 });
    drop(idle);
}
