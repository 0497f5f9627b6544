//! Whatever clients do, and however often: the log grows by a bounded number of lines a second, says
//! how many it left out, and others are served meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use openssl::base64;

use crate::harness::h2::{self, H2, frame};
use crate::harness::{PASSWORD, Rig, Setup, USER, eventually, heavy, pause};

/// What the log grew by during a flood, without the lines of those who are served meanwhile.
struct Growth {
    lines: Vec<String>,
    took: Duration,
}

/// Sets a flag once it is dropped.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The lines of both roles' logs.
fn log(rig: &Rig) -> Vec<String> {
    let log = rig.edge_log() + &rig.registry_log();
    log.lines().map(str::to_owned).collect()
}

/// Lets `flood` happen, with a bystander who must be served all the while.
fn during(rig: &Rig, flood: impl FnOnce()) -> Growth {
    let before = [rig.edge_log().len(), rig.registry_log().len()];
    let begin = Instant::now();
    let over = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        // However the flood ends.
        let at_end = AtEnd(&over);
        let bystander = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            loop {
                let begin = Instant::now();
                rig.client().get("/v2/").expect(200);
                slowest = slowest.max(begin.elapsed());
                if over.load(Ordering::Relaxed) {
                    return slowest;
                }
                // What is under test is the flood.
                pause(Duration::from_millis(50));
            }
        });
        flood();
        drop(at_end);
        bystander.join().unwrap()
    });
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let took = begin.elapsed();
    let after = [rig.edge_log(), rig.registry_log()];
    let grown = after.iter().zip(before).map(|(log, before)| &log[before..]);
    let lines = grown.flat_map(str::lines);
    let lines = lines.filter(|line| !line.contains("principal=\"docker\""));
    Growth {
        lines: lines.map(str::to_owned).collect(),
        took,
    }
}

impl Growth {
    /// Of all kinds that a flood has: a burst of the access log and one or two others, and so many a
    /// second of each.
    fn assert_bounded(&self) {
        let seconds = usize::try_from(self.took.as_secs()).unwrap() + 1;
        let bound = 120 + 60 * seconds;
        let (lines, took) = (&self.lines, self.took);
        let last = lines.last();
        assert!(
            lines.len() <= bound,
            "{} lines in {took:?}: {last:?}",
            lines.len()
        );
        let bytes: usize = lines.iter().map(String::len).sum();
        assert!(bytes <= bound * 500, "{bytes} bytes in {took:?}: {last:?}");
    }
}

/// Waits until the log accounts for each of `sent` events: by a line of its own, or in the counts of
/// the lines that hold all of `told`.
fn account(rig: &Rig, sent: usize, own: impl Fn(&&String) -> bool, told: &[&str]) {
    eventually("the log to account for all", || {
        let lines = log(rig);
        let told = |line: &&String| told.iter().all(|part| line.contains(part));
        let counts = lines.iter().filter(told).filter_map(|line| {
            let (_, count) = line.split_once(" left_out=")?;
            count.split(' ').next()?.parse::<usize>().ok()
        });
        let left_out: usize = counts.sum();
        let written = lines.iter().filter(&own).count();
        (left_out + written == sent).then_some(())
    });
}

/// Sends this frame again and again, in portions that are each read before the next is sent.
fn frames(rig: &Rig, frame: &[u8], at_once: usize, count: usize) {
    let mut connection = H2::connect(rig).unwrap();
    for _ in 0..count / at_once {
        connection.send(&frame.repeat(at_once)).unwrap();
        connection.settle().unwrap();
    }
}

#[test]
fn ping_acks_that_nobody_asked_for() {
    let _alone = heavy();
    let rig = Rig::start();
    let sent = 100_000;
    let ack = frame(h2::PING, h2::ACK, 0, b"unasked!");
    let growth = during(&rig, || frames(&rig, &ack, 5_000, sent));
    growth.assert_bounded();
    let own = |line: &&String| line.contains("PING ack") && !line.contains("left_out");
    let written = growth.lines.iter().filter(own).count();
    assert!(written >= 20, "{:#?}", growth.lines);
    let told = [" WARN ", "of=\"h2::proto::ping_pong\"", "PING ack"];
    account(&rig, sent, own, &told);
}

#[test]
fn pings_and_settings() {
    let _alone = heavy();
    let rig = Rig::start();
    let ping = frame(h2::PING, 0, 0, b"and ever");
    let settings = frame(h2::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    for flood in [ping, settings] {
        during(&rig, || frames(&rig, &flood, 100, 10_000)).assert_bounded();
    }
}

/// Opens streams with these frames, on as many connections as it takes.
fn streams(rig: &Rig, count: usize, open: impl Fn(&mut H2) -> Vec<u8>) {
    let mut opened = 0;
    while opened < count {
        let mut connection = H2::connect(rig).unwrap();
        // Until the server has enough of it.
        while opened < count {
            let portion: Vec<u8> = (0..20).flat_map(|_| open(&mut connection)).collect();
            opened += 20;
            if connection
                .send(&portion)
                .and_then(|()| connection.settle())
                .is_err()
            {
                break;
            }
        }
    }
}

#[test]
fn streams_that_are_reset() {
    let _alone = heavy();
    let rig = Rig::start();
    // Whose answer is on its way, and that were never opened.
    let growth = during(&rig, || {
        streams(&rig, 4_000, |connection| {
            let (stream, mut frames) = connection.open_with("GET", "/v2/flood/", true, &[]);
            frames.extend(h2::reset(stream));
            frames
        });
        streams(&rig, 400, |_| h2::reset(1_000_001));
    });
    growth.assert_bounded();
}

#[test]
fn heads_that_are_malformed_over_http_2() {
    let _alone = heavy();
    let rig = Rig::start();
    // The first of these ends its connection, the others only their stream.
    for (path, header, count) in [
        ("/v2/", Some(("UPPER", "case")), 400),
        ("no/slash", None, 4_000),
        ("/v2/", Some(("connection", "close")), 4_000),
        ("/v2/", Some(("content-length", "minus one")), 4_000),
    ] {
        let growth = during(&rig, || {
            streams(&rig, count, |connection| {
                connection.open_with("GET", path, true, header.as_slice()).1
            });
        });
        growth.assert_bounded();
    }
}

/// Sends these bytes to `address` and waits until the server is done with them; again and again.
fn connections(address: SocketAddr, bytes: &[u8], count: usize) {
    for _ in 0..count {
        let mut connection = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(60));
        connection.set_read_timeout(patience).unwrap();
        // It may be closed before all is sent.
        let sent = connection.write_all(bytes);
        let sent = sent.and_then(|()| connection.shutdown(Shutdown::Write));
        drop(sent.and_then(|()| connection.read_to_end(&mut Vec::new())));
    }
}

#[test]
fn heads_that_are_malformed_over_http_1() {
    let _alone = heavy();
    let rig = Rig::start();
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: -1\r\nHost: localhost\r\n\r\n",
        "\0\u{1}\u{2}nonsense\r\n\r\n",
    ] {
        let flood = || connections(rig.http, head.as_bytes(), 2_000);
        during(&rig, flood).assert_bounded();
    }
}

#[test]
fn handshakes_that_fail() {
    let _alone = heavy();
    let rig = Rig::start();
    let sent = 2_000;
    let growth = during(&rig, || {
        // A record of TLS 1.2 with a handshake of a type that there is none of.
        connections(rig.https, b"\x16\x03\x03\x00\x05nones", sent);
    });
    growth.assert_bounded();
    let own = |line: &&String| line.contains(": handshake failed client=");
    assert!(growth.lines.iter().any(|line| own(&line)));
    account(&rig, sent, own, &[" INFO ", "like=\"handshake failed\""]);
}

/// Sends requests one behind the other, so many on one connection, and reads the replies, which are all
/// to have this status.
fn requests(
    rig: &Rig,
    count: usize,
    at_once: usize,
    status: u16,
    request: impl Fn(usize) -> String,
) {
    for first in (0..count).step_by(at_once) {
        let mut exchange = rig.anonymous().connect().unwrap();
        let portion: String = (first..first + at_once).map(&request).collect();
        exchange.write(portion.as_bytes()).unwrap();
        for number in first..first + at_once {
            let reply = exchange.reply();
            let reply = reply.unwrap_or_else(|error| panic!("request {number}: {error}"));
            assert_eq!(reply.status, status);
        }
    }
}

#[test]
fn passwords_that_are_wrong_and_hosts_that_are_unknown() {
    let _alone = heavy();
    let setup = Setup {
        // Not one of them is told to wait: whoever guesses from many addresses is not, either.
        tables: "[limits.logins]\nper_address = 0\nper_user = 0\n".to_owned(),
        // What takes no time is guessed more often.
        htpasswd: Some(format!(
            "{USER}:{{SHA}}{}\n",
            base64::encode_block(&openssl::sha::sha1(PASSWORD.as_bytes()))
        )),
        ..Setup::default()
    };
    let rig = setup.start();
    let (guesses, strays) = (1_000, 400);
    let guess = |number: usize| {
        let guess = base64::encode_block(format!("docker:guess {number}").as_bytes());
        format!(
            "GET /v2/guessed HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {guess}\r\n\r\n"
        )
    };
    let astray = |_| "GET /v2/ HTTP/1.1\r\nHost: elsewhere\r\n\r\n".to_owned();
    let growth = during(&rig, || {
        requests(&rig, guesses, 50, 401, guess);
        // Another connection is what those need, so theirs ends.
        requests(&rig, strays, 1, 421, astray);
    });
    growth.assert_bounded();
    // Enough for those who block addresses by what they read here.
    let guessed = |line: &&String| line.contains("/v2/guessed");
    let seen = growth.lines.iter().filter(guessed).count();
    assert!(seen >= 50, "{seen}");
    let own = |line: &&String| {
        line.contains(" INFO access: client=127.0.0.1") && !line.contains("principal=")
    };
    let told = [" INFO access: ", "refused requests", "client=127.0.0.1"];
    account(&rig, guesses + strays, own, &told);
}
