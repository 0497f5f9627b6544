//! Requests that two programs could read in two ways: what reaches the registry is what the edge has
//! authorised, each request once, and nothing between.
//!
//! Each case is a connection of its own. In the texts of the [`cases`], `AUTH` stands for the right
//! credentials, `SMUGGLED` for a request without any, and `LEN` for its length.

mod cases;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslMethod, SslStream};
use serde_json::Value;

use self::cases::all;
use crate::harness::{Answers, PASSWORD, Recorder, Rig, Seen, Setup, USER, eventually};

/// How long a case may take; the edge's own timeouts end it sooner.
const CASE_MAX: Duration = Duration::from_secs(12);

/// How many connections there are at once: most of the time of a case is waiting for its end.
pub(crate) const AT_ONCE: usize = 16;

/// What must never be served: it has no credentials, and it names what no case may touch.
const SMUGGLED: &str =
    "POST /v2/smuggled/app/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";

/// A rig whose timeouts are short and whose access log is JSON.
fn setup() -> Setup {
    Setup {
        tables: "[limits]\nheader_timeout = \"20s\"\nkeepalive_timeout = \"1s\"\n\
                 read_timeout = \"1s\"\nupstream_read_timeout = \"5s\"\n\
                 [log]\nformat = \"json\"\naccess_file = \"access.log\"\n"
            .to_owned(),
        ..Setup::default()
    }
}

pub(crate) fn authorization() -> String {
    let token = openssl::base64::encode_block(format!("{USER}:{PASSWORD}").as_bytes());
    format!("Basic {token}")
}

/// A TLS connection to the edge, with `alpn` if it is not empty.
pub(crate) fn connect(edge: SocketAddr, trust: &Path, alpn: &[u8]) -> SslStream<TcpStream> {
    let tcp = TcpStream::connect(edge).unwrap();
    tcp.set_read_timeout(Some(CASE_MAX)).unwrap();
    tcp.set_write_timeout(Some(CASE_MAX)).unwrap();
    tcp.set_nodelay(true).unwrap();
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_ca_file(trust).unwrap();
    if !alpn.is_empty() {
        connector.set_alpn_protos(alpn).unwrap();
    }
    connector.build().connect("localhost", tcp).unwrap()
}

/// Sends the bytes and reads until the edge ends the connection.
fn exchange(edge: SocketAddr, trust: &Path, bytes: &[u8]) {
    let mut stream = connect(edge, trust, b"");
    // The edge may have heard enough, and be gone.
    drop(stream.write_all(bytes));
    let mut piece = [0; 4096];
    let deadline = Instant::now() + CASE_MAX;
    while Instant::now() < deadline && stream.read(&mut piece).is_ok_and(|count| count > 0) {}
}

/// The access log, a value per line.
pub(crate) fn access_log(rig: &Rig) -> Vec<Value> {
    let text = std::fs::read_to_string(rig.path("access.log")).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn id_of(seen: &Seen) -> &str {
    match seen.all("X-Request-Id")[..] {
        [id] => id,
        _ => panic!("not one request id: {seen:?}"),
    }
}

/// Compares what the edge says that it let through with what came: the same requests, each once.
fn assert_same(rig: &Rig, recorder: &Recorder) {
    let logged = eventually("a line for each request that arrived", || {
        let logged = access_log(rig);
        let known = |seen: &Seen| logged.iter().any(|line| line["request_id"] == id_of(seen));
        recorder.requests().iter().all(known).then_some(logged)
    });
    assert_eq!(recorder.ambiguities(), Vec::<String>::new());
    let seen = recorder.requests();
    for request in &seen {
        let id = id_of(request);
        let same: Vec<&Seen> = seen.iter().filter(|other| id_of(other) == id).collect();
        assert_eq!(same.len(), 1, "{same:#?}");
        let lines: Vec<&Value> = logged
            .iter()
            .filter(|line| line["request_id"] == id)
            .collect();
        let [line] = lines[..] else {
            panic!("{request:#?} is in {lines:#?}")
        };
        let path = request.target.split('?').next().unwrap();
        assert_eq!(line["method"], request.method.as_str(), "{line}");
        assert_eq!(line["path"], path, "{line}");
        assert_eq!(line["principal"], USER, "{line}");
        assert_eq!(request.all("X-Tidegate-User"), [USER], "{request:?}");
        assert!(!path.contains("smuggled"), "{request:#?}");
        assert!(request.all("Authorization").is_empty(), "{request:?}");
    }
    for line in logged.iter().filter(|line| !line["upstream_ms"].is_null()) {
        let arrived = seen
            .iter()
            .any(|request| line["request_id"] == id_of(request));
        assert!(arrived, "{line} never arrived");
    }
}

/// Sends every case, some at a time.
fn send_all(rig: &Rig, cases: &[String]) {
    let (edge, trust) = (rig.https, rig.certificate.cert.as_path());
    let auth = format!("Authorization: {}", authorization());
    thread::scope(|scope| {
        for share in 0..AT_ONCE {
            let auth = &auth;
            scope.spawn(move || {
                for case in cases.iter().skip(share).step_by(AT_ONCE) {
                    let text = case
                        .replace("SMUGGLED", SMUGGLED)
                        .replace("LEN", &SMUGGLED.len().to_string())
                        .replace("AUTH", auth);
                    exchange(edge, trust, text.as_bytes());
                }
            });
        }
    });
}

fn recorded(answers: Answers) {
    compare(answers, &all(), send_all);
}

/// Sends cases to an edge in front of a recorder: what arrives there is what was authorised, and
/// not too little.
pub(crate) fn compare<C>(answers: Answers, cases: &[C], send: impl FnOnce(&Rig, &[C])) {
    let mut rig = setup().prepare();
    let recorder = Recorder::listen(&rig.socket(), answers);
    rig.start_edge();
    rig.wait_until_ready();
    let before = recorder.requests().len();
    send(&rig, cases);
    assert_same(&rig, &recorder);
    let seen = recorder.requests().len() - before;
    assert!(
        seen > cases.len() / 8,
        "little came through: {seen} of {}",
        cases.len()
    );
}

#[test]
fn the_registry_sees_each_authorised_request_once_and_nothing_else() {
    recorded(Answers::AtItsEnd);
}

#[test]
fn an_early_answer_leaves_no_rest_of_a_body_for_the_next_request() {
    recorded(Answers::AtOnce);
}

#[test]
fn no_hidden_request_changes_the_registry() {
    let rig = setup().start();
    send_all(&rig, &all());
    rig.client().get("/v2/").expect(200);
    let repositories = rig.tree().join("repositories");
    let names: Vec<_> = std::fs::read_dir(repositories)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["a"]);
}
