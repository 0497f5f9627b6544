//! What HTTP/2 can say and HTTP/1.1 cannot, frame by frame: none of it becomes another request on
//! the way to the registry.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;

use openssl::ssl::SslStream;

use crate::harness::{Answers, Rig};
use crate::smuggling::{AT_ONCE, authorization, compare, connect};

/// A second request, for where a line could begin.
const HIDDEN: &str =
    "POST /v2/smuggled/app/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";

pub(crate) const HEADERS: u8 = 1;
pub(crate) const DATA: u8 = 0;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;

pub(crate) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

type Header = (Vec<u8>, Vec<u8>);

/// Encodes headers as they are: no table, no Huffman (RFC 7541, section 6.2.2).
fn block(headers: &[Header]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            let mut length = text.len();
            if length < 127 {
                block.push(u8::try_from(length).unwrap());
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push(u8::try_from(length % 128).unwrap() | 128);
                    length /= 128;
                }
                block.push(u8::try_from(length).unwrap());
            }
            block.extend_from_slice(text);
        }
    }
    block
}

/// A request on a connection of its own.
#[derive(Clone)]
pub(crate) struct Case {
    headers: Vec<Header>,
    data: Vec<Vec<u8>>,
    trailers: Vec<Header>,
}

impl Case {
    /// One that is as it should be.
    pub(crate) fn good() -> Self {
        let case = Self {
            headers: Vec::new(),
            data: Vec::new(),
            trailers: Vec::new(),
        };
        case.with(":method", "POST")
            .with(":scheme", "https")
            .with(":authority", "localhost")
            .with(":path", "/v2/a/blobs/uploads/")
            .with("authorization", &authorization())
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn first(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(0, (name.into(), value.into()));
        self
    }

    /// Another value for what is there.
    fn set(mut self, name: &str, value: &str) -> Self {
        let named = |header: &&mut Header| header.0 == name.as_bytes();
        for header in self.headers.iter_mut().filter(named) {
            header.1 = value.into();
        }
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|header| header.0 != name.as_bytes());
        self
    }

    pub(crate) fn get(self, path: &str) -> Self {
        self.set(":method", "GET").set(":path", path)
    }

    fn body(mut self, pieces: &[&str]) -> Self {
        self.data = pieces
            .iter()
            .map(|piece| piece.as_bytes().to_vec())
            .collect();
        self
    }

    fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.into(), value.into()));
        self
    }

    /// What it is on the wire, as the stream `id`.
    pub(crate) fn frames(&self, id: u32) -> Vec<u8> {
        let end = |last: bool| if last { END_STREAM } else { 0 };
        let only = self.data.is_empty() && self.trailers.is_empty();
        let flags = END_HEADERS | end(only);
        let mut bytes = frame(HEADERS, flags, id, &block(&self.headers));
        for (at, piece) in self.data.iter().enumerate() {
            let last = at + 1 == self.data.len() && self.trailers.is_empty();
            bytes.extend(frame(DATA, end(last), id, piece));
        }
        if !self.trailers.is_empty() {
            let flags = END_HEADERS | END_STREAM;
            bytes.extend(frame(HEADERS, flags, id, &block(&self.trailers)));
        }
        bytes
    }
}

const PATHS: &[&str] = &[
    "/v2/a/tags/list HTTP/1.1\r\nX: y",
    "/v2/a/tags/list HTTP/1.1",
    "/v2/a b/tags/list",
    "/v2/a\tb/tags/list",
    "/v2/a\r\nX: y",
    "/v2/a\n/tags/list",
    "/v2/a\0/tags/list",
    "",
    "*",
    "v2/a/tags/list",
    "//evil/v2/",
    "http://evil/v2/a/tags/list",
    "https://localhost/v2/a/tags/list",
    "/v2/a/tags/list#x",
    "/v2/a/tags/list?x y",
    "/v2/\u{e4}/tags/list",
    "/v2/a/tags/list?\u{e4}",
    " /v2/a/tags/list",
    "/v2/a/tags/list ",
    "/v2/a/tags/list?x\r\n\r\nGET /v2/smuggled/app/tags/list HTTP/1.1",
    "/v2/a\x7f/tags/list",
    "/v2/a\\b/tags/list",
];

const METHODS: &[&str] = &[
    "GET /v2/smuggled/app/tags/list HTTP/1.1\r\nHost: localhost\r\n\r\nGET",
    "GET ",
    " GET",
    "",
    "get",
    "GET\r\nX: y",
    "PRI",
    "CONNECT",
    "TRACE",
    "DELETE\0",
    "POST\u{e4}",
];

const AUTHORITIES: &[&str] = &[
    "evil.example",
    "localhost\r\nX: y",
    "localhost evil",
    "",
    "evil@localhost",
    "localhost@evil",
    "localhost/v2",
    "localhost:1",
    "localhost:99999",
    "localhost, evil",
    "localhost\0",
    "[::1]",
];

const SCHEMES: &[&str] = &[
    "http",
    "",
    "https\r\nX: y",
    "https://evil/?",
    "unix",
    "HTTPS",
];

/// What has a meaning in HTTP/1.1, or would have with another end of a line.
const FIELDS: &[(&str, &str)] = &[
    ("transfer-encoding", "chunked"),
    ("transfer-encoding", "identity"),
    ("transfer_encoding", "chunked"),
    ("Transfer-Encoding", "chunked"),
    ("connection", "close"),
    ("connection", "transfer-encoding"),
    ("connection", "x-tidegate-user"),
    ("keep-alive", "1"),
    ("proxy-connection", "x"),
    ("upgrade", "websocket"),
    ("upgrade", "h2c"),
    ("te", "trailers"),
    ("te", "trailers, chunked"),
    ("te", "gzip"),
    ("http2-settings", "AAMAAABkAAQAAP__"),
    ("expect", "100-continue"),
    ("trailer", "content-length"),
    ("x", "y\r\nTransfer-Encoding: chunked"),
    ("x", "y\nTransfer-Encoding: chunked"),
    ("x", "y\rTransfer-Encoding: chunked"),
    ("x", "y\0"),
    ("x", " y "),
    ("x", "\u{e4}"),
    ("x\r\ntransfer-encoding", "chunked"),
    ("x: y\r\ntransfer-encoding", "chunked"),
    ("transfer-encoding: chunked\r\nx", "y"),
    ("x y", "z"),
    ("x:", "y"),
    ("", "y"),
    ("X", "y"),
    ("x\0", "y"),
    ("x\u{e4}", "y"),
    ("transfer-encoding ", "chunked"),
    (" transfer-encoding", "chunked"),
    ("x-tidegate-user", "root"),
    ("x-tidegate-catalog", "+**"),
    ("x_tidegate_user", "root"),
    ("x-request-id", "stolen"),
    ("content-length", "x"),
    ("content-length", "+5"),
    ("content-length", "5,5"),
    ("content-length", "5, 5"),
    ("content-length", "-1"),
    ("content-length", ""),
    ("content-length", "18446744073709551616"),
    ("content-length", "0"),
    ("content-length", "4"),
    ("content-length", "5"),
    ("content-length", "6"),
    ("content-length", "500"),
    ("content-length", "05"),
    ("content-length", "5\r\nX: y"),
];

fn cases() -> Vec<Case> {
    let good = Case::good;
    let mut cases = vec![
        good(),
        good().body(&["hello"]),
        good().body(&["", "", "hello", ""]),
    ];
    for path in PATHS {
        cases.push(good().set(":path", path));
        cases.push(good().get(path));
    }
    cases.extend(METHODS.iter().map(|method| good().set(":method", method)));
    for authority in AUTHORITIES {
        cases.push(good().set(":authority", authority));
        cases.push(good().with("host", authority));
        cases.push(good().without(":authority").with("host", authority));
    }
    cases.push(good().with("host", "localhost").with("host", "localhost"));
    cases.extend(SCHEMES.iter().map(|scheme| good().set(":scheme", scheme)));
    for name in [":method", ":scheme", ":authority", ":path"] {
        cases.push(good().without(name));
        cases.push(good().first(name, "/v2/smuggled/app/tags/list"));
        cases.push(good().without(name).with(name, "/v2/a/tags/list"));
        cases.push(
            good()
                .body(&["x"])
                .trailer(name, "/v2/smuggled/x/tags/list"),
        );
    }
    for (name, value) in [
        (":protocol", "websocket"),
        (":status", "200"),
        (":smuggled", "x"),
    ] {
        cases.push(good().first(name, value));
        cases.push(good().set(":method", "CONNECT").first(name, value));
    }
    for (name, value) in FIELDS {
        cases.push(good().with(name, value));
        cases.push(good().with(name, value).body(&["hel", "lo"]));
        cases.push(good().with(name, value).body(&["0\r\n\r\n", HIDDEN]));
        cases.push(good().get("/v2/a/tags/list").with(name, value));
        cases.push(good().body(&["hello"]).trailer(name, value));
    }
    for (first, second) in [("5", "5"), ("5", "6"), ("0", "5"), ("5", "0")] {
        let lengths = good()
            .with("content-length", first)
            .with("content-length", second);
        cases.push(lengths.body(&["hello"]));
    }
    cases.push(good().body(&[HIDDEN]));
    cases.push(good().get("/v2/a/tags/list").body(&[HIDDEN]));
    cases.push(
        good()
            .get("/v2/a/tags/list")
            .set(":method", "HEAD")
            .body(&[HIDDEN]),
    );
    cases.push(good().without("authorization").body(&[HIDDEN]));
    cases
}

/// What a client says first.
pub(crate) fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, b""));
    bytes
}

/// Sends a case and reads until its stream, or the connection, has ended.
fn exchange(edge: SocketAddr, trust: &Path, case: &Case) {
    let mut stream = connect(edge, trust, b"\x02h2");
    assert_eq!(stream.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
    drop(stream.write_all(&[preface(), case.frames(1)].concat()));
    while let Some(Frame {
        kind, flags, id, ..
    }) = next_frame(&mut stream)
    {
        let ends = matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0;
        if kind == GOAWAY || (id == 1 && (kind == RST_STREAM || ends)) {
            return;
        }
    }
}

/// A frame as it arrived.
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    id: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn next_frame(stream: &mut SslStream<TcpStream>) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).ok()?;
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some(Frame {
        kind: head[3],
        flags: head[4],
        id: id & 0x7fff_ffff,
        payload,
    })
}

fn recorded(answers: Answers) {
    compare(answers, &cases(), send_all);
}

fn send_all(rig: &Rig, cases: &[Case]) {
    let (edge, trust) = (rig.https, &rig.certificate.cert);
    thread::scope(|scope| {
        for share in 0..AT_ONCE {
            scope.spawn(move || {
                for case in cases.iter().skip(share).step_by(AT_ONCE) {
                    exchange(edge, trust, case);
                }
            });
        }
    });
}

#[test]
fn nothing_that_http2_can_say_becomes_another_request() {
    recorded(Answers::AtItsEnd);
}

#[test]
fn an_early_answer_leaves_no_rest_of_a_stream_for_the_next_request() {
    recorded(Answers::AtOnce);
}
