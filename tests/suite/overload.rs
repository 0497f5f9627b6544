//! Too much and too slow: what is limited, and that nobody else pays for it.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::h2::{self, H2};
use crate::harness::{
    Exchange, PASSWORD, Rig, Setup, USER, eventually, free_port, need, noise, pause,
};

const TRUSTING: &str = "trusted_proxies = [\"127.0.0.1\"]\n";

/// Starts a rig whose site has these limits.
fn limited(limits: &str) -> Rig {
    Setup {
        top: TRUSTING.to_owned(),
        // The tables of a site end with the site.
        tables: format!("[site.limits]\n{limits}\n"),
        ..Setup::default()
    }
    .start()
}

fn status(rig: &Rig, address: &str) -> u16 {
    let request = rig.client();
    let request = request.request("GET", "/v2/");
    request.header("X-Forwarded-For", address).send().status
}

#[test]
fn an_address_that_asks_too_often_is_told_when_to_come_back() {
    let rig = limited("address = { rate = 1, burst = 5 }");
    let statuses: Vec<u16> = (0..8).map(|_| status(&rig, "198.51.100.1")).collect();
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert!((5..=7).contains(&passed), "{statuses:?}");
    let request = rig.client();
    let request = request.request("GET", "/v2/");
    let refused = request.header("X-Forwarded-For", "198.51.100.1").send();
    let refused = refused.expect_error(429, "TOOMANYREQUESTS");
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert_eq!(status(&rig, "198.51.100.2"), 200);
    eventually("the log to name the limit", || {
        rig.edge_log()
            .contains("site[0].limits.address.rate")
            .then_some(())
    });
    eventually("the address to be let in again", || {
        (status(&rig, "198.51.100.1") == 200).then_some(())
    });
}

/// An upload that has begun and not ended.
fn unfinished(rig: &Rig, repository: &str) -> Exchange {
    let path = rig
        .client()
        .post(&format!("/v2/{repository}/blobs/uploads/"));
    let path = path.expect(202).location();
    let client = rig.client();
    let request = client.request("PATCH", &path);
    let mut upload = request
        .header("Transfer-Encoding", "chunked")
        .open()
        .unwrap();
    upload.chunk(b"a beginning").unwrap();
    upload
}

#[test]
fn a_place_is_free_again_when_its_request_is_broken_off() {
    let rig = limited("principal = { concurrent = 3 }");
    let mut uploads: Vec<Exchange> = (0..3).map(|_| unfinished(&rig, "a/b")).collect();
    eventually("the places to be taken", || {
        (rig.client().get("/v2/").status == 429).then_some(())
    });
    let refused = rig.client().get("/v2/");
    let refused = refused.expect_error(429, "TOOMANYREQUESTS");
    assert_eq!(refused.header("Retry-After"), Some("1"));
    uploads.pop();
    eventually("a place to be free", || {
        (rig.client().get("/v2/").status == 200).then_some(())
    });
    // One that ends as it should gives its place back too.
    let mut last = uploads.pop().unwrap();
    last.chunk(b"").unwrap();
    assert_eq!(last.reply().unwrap().status, 202);
    let _other = unfinished(&rig, "a/b");
    rig.client().get("/v2/").expect(200);
}

#[test]
fn a_site_that_is_busy_says_so_to_everyone() {
    let rig = limited("site = { concurrent = 1 }");
    let upload = unfinished(&rig, "a/b");
    let refused = eventually("the place to be taken", || {
        let reply = rig.client().get("/v2/");
        (reply.status == 503).then_some(reply)
    });
    assert_eq!(refused.error_code(), "TOOMANYREQUESTS");
    assert_eq!(refused.header("Retry-After"), Some("1"));
    drop(upload);
    eventually("the place to be free", || {
        (rig.client().get("/v2/").status == 200).then_some(())
    });
}

/// A rig that has two seconds of patience with a body.
fn impatient() -> Rig {
    Setup {
        tables: "[limits]\nread_timeout = \"2s\"\nmin_body_rate = \"1KiB\"\n".to_owned(),
        ..Setup::default()
    }
    .start()
}

#[test]
fn a_body_that_drips_is_cut_off() {
    let rig = impatient();
    let mut upload = unfinished(&rig, "a/b");
    let begin = Instant::now();
    let reply = loop {
        // A piece each time that is worth far less than the wait for it.
        if upload.chunk(&[7; 20]).is_err() || begin.elapsed() > Duration::from_secs(20) {
            break upload.reply();
        }
        pause(Duration::from_millis(200));
    };
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    if let Ok(reply) = reply {
        reply.expect_error(408, "UNKNOWN");
    }
    eventually("the log to say so", || {
        rig.edge_log()
            .lines()
            .any(|line| line.contains("limits.min_body_rate") && line.contains("408"))
            .then_some(())
    });
}

#[test]
fn a_body_that_stops_is_cut_off_over_both_versions() {
    let rig = impatient();
    let mut upload = unfinished(&rig, "a/b");
    let begin = Instant::now();
    upload.reply().unwrap().expect_error(408, "UNKNOWN");
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );

    let path = rig
        .client()
        .post("/v2/a/b/blobs/uploads/")
        .expect(202)
        .location();
    let mut connection = H2::connect(&rig).unwrap();
    let (stream, head) = connection.open("PATCH", &path, false);
    connection.send(&head).unwrap();
    connection
        .send(&h2::frame(h2::DATA, 0, stream, &[7; 100]))
        .unwrap();
    let begin = Instant::now();
    let frames = connection.receive_all(stream).unwrap();
    assert_eq!(frames.last().unwrap().kind, h2::RESET, "{frames:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    eventually("the log to say so", || {
        rig.edge_log()
            .lines()
            .any(|line| line.contains("limits.min_body_rate") && line.contains("HTTP/2"))
            .then_some(())
    });
    // The connection goes on, and what has arrived of the upload can be continued.
    let (stream, head) = connection.open("GET", "/v2/", true);
    connection.send(&head).unwrap();
    let frames = connection.receive_all(stream).unwrap();
    assert_eq!(frames[0].kind, h2::HEADERS, "{frames:?}");
}

/// Begins to send standard input to `path`.
fn curl(rig: &Rig, version: &str, more: &[&str], url: &str) -> Child {
    Command::new("curl")
        .args([
            "-sS",
            version,
            "-X",
            "PATCH",
            "-H",
            "Expect:",
            "-o",
            "/dev/null",
        ])
        .args(["-w", "%{http_code}", "--cacert"])
        .arg(&rig.certificate.cert)
        .args(["-u", &format!("{USER}:{PASSWORD}")])
        .args(more)
        .args(["-T", "-", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn code(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    format!("{}{said}", String::from_utf8_lossy(&output.stdout))
}

#[test]
fn a_body_that_is_slow_and_moves_is_left_alone() {
    need!("curl");
    let rig = impatient();
    for version in ["--http1.1", "--http2"] {
        let path = rig
            .client()
            .post("/v2/a/b/blobs/uploads/")
            .expect(202)
            .location();
        let url = format!("https://{}{path}", rig.name());
        let mut upload = curl(&rig, version, &["--no-buffer"], &url);
        let mut input = upload.stdin.take().unwrap();
        let begin = Instant::now();
        // Three times as long as a pause may be.
        while begin.elapsed() < Duration::from_secs(6) {
            input.write_all(&[7; 1024]).unwrap();
            pause(Duration::from_millis(500));
        }
        drop(input);
        assert_eq!(code(upload), "202", "{version}");
    }
}

/// A service that reads the first of a body, nothing for `pause_for`, and then the rest.
fn slow_service(pause_for: Duration) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_slowly(stream, pause_for));
        }
    });
    address
}

fn answer_slowly(mut stream: TcpStream, pause_for: Duration) -> io::Result<()> {
    let mut piece = vec![0; 1 << 16];
    let mut read = stream.read(&mut piece[..4096])?;
    pause(pause_for);
    while !piece[..read].ends_with(b"0\r\n\r\n") {
        read = stream.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

#[test]
fn a_slow_upstream_is_not_held_against_the_client() {
    need!("curl");
    let service = slow_service(Duration::from_secs(6));
    let pair = "certificate = { cert_file = \"cert.pem\", key_file = \"cert-key.pem\" }";
    let rig = Setup {
        tables: format!(
            "[limits]\nread_timeout = \"2s\"\n[[upstream]]\nname = \"slow\"\n\
             peers = [\"{service}\"]\n[[site]]\nhosts = [\"slow.test\"]\n{pair}\nupstream = \"slow\"\n"
        ),
        ..Setup::default()
    }
    .start();
    let body = noise(3, 24 << 20);
    for version in ["--http1.1", "--http2"] {
        let port = rig.https.port();
        let resolve = format!("slow.test:{port}:127.0.0.1");
        let more = ["-k", "--resolve", &resolve];
        let mut upload = curl(&rig, version, &more, &format!("https://slow.test:{port}/"));
        let begin = Instant::now();
        let mut input = upload.stdin.take().unwrap();
        input.write_all(&body).unwrap();
        drop(input);
        assert_eq!(code(upload), "200", "{version}");
        assert!(begin.elapsed() > Duration::from_secs(5), "nobody was slow");
    }
}

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

#[test]
fn a_flood_of_resets_ends_the_connection_and_hurts_nobody() {
    let rig = Setup {
        tables: "[limits]\nhttp2_max_resets = 50\n".to_owned(),
        ..Setup::default()
    }
    .start();
    // As fast as they can be written; and slowly enough that each has begun when it is reset.
    for patience in [Duration::ZERO, Duration::from_millis(200)] {
        let mut connection = H2::connect(&rig).unwrap();
        let mut opened = 0;
        let begin = Instant::now();
        loop {
            let mut opens = Vec::new();
            let mut resets = Vec::new();
            for _ in 0..25 {
                let (stream, head) = connection.open("POST", "/v2/a/b/blobs/uploads/", false);
                opens.extend(head);
                resets.extend(h2::reset(stream));
            }
            opened += 25;
            let sent = connection.send(&opens).and_then(|()| {
                pause(patience);
                connection.send(&resets)
            });
            if sent.is_err() {
                break;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "{opened} and no end"
            );
            rig.client().get("/v2/").expect(200);
        }
        assert!(patience.is_zero() || opened >= 50, "cut after {opened}");
    }
    // Uploads that nobody finishes are all that is left.
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
