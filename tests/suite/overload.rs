//! Too much and too slow: what is limited, and that nobody else pays for it.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

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
fn a_client_that_goes_away_before_the_answer_is_missed_at_once() {
    let mut rig = limited("principal = { concurrent = 2 }");
    rig.client().get("/v2/").expect(200);
    rig.registry().signal(Signal::STOP);
    let client = rig.client();
    let asked = [(); 2].map(|()| client.request("GET", "/v2/").open().unwrap());
    drop(asked);
    // The registry says nothing yet, and need not.
    eventually("both to be missed", || {
        (rig.edge_lines(&["status=499"]).len() == 2).then_some(())
    });
    rig.registry().signal(Signal::CONT);
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
