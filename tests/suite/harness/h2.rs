//! An HTTP/2 client that writes its own frames, rude ones included.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use openssl::base64;
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};

use super::{PASSWORD, Rig, USER};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;

/// Of SETTINGS and PING: an answer.
pub(crate) const ACK: u8 = 1;

/// The setting that says how much the server may send on a stream at first.
pub(crate) const INITIAL_WINDOW: u16 = 4;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection.
pub(crate) struct H2 {
    stream: SslStream<TcpStream>,
    authority: String,
    next: u32,
}

/// What the server has sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl H2 {
    /// Connects and says hello.
    pub(crate) fn connect(rig: &Rig) -> io::Result<Self> {
        Self::connect_with(rig, &[])
    }

    /// [`Self::connect`] with these settings.
    pub(crate) fn connect_with(rig: &Rig, settings: &[(u16, u32)]) -> io::Result<Self> {
        let mut connector = SslConnector::builder(SslMethod::tls_client())?;
        connector.set_alpn_protos(b"\x02h2")?;
        connector.set_verify(SslVerifyMode::NONE);
        let tcp = TcpStream::connect(rig.https)?;
        tcp.set_read_timeout(Some(Duration::from_secs(60)))?;
        tcp.set_write_timeout(Some(Duration::from_secs(60)))?;
        tcp.set_nodelay(true)?;
        let stream = connector.build().connect("localhost", tcp);
        let mut connection = Self {
            stream: stream.map_err(io::Error::other)?,
            authority: rig.name(),
            next: 1,
        };
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        connection.send(&frame(SETTINGS, 0, 0, &settings))?;
        Ok(connection)
    }

    /// The frame that opens the next stream, with the right credentials, and the stream's number.
    pub(crate) fn open(&mut self, method: &str, path: &str, ends: bool) -> (u32, Vec<u8>) {
        let credentials = base64::encode_block(format!("{USER}:{PASSWORD}").as_bytes());
        self.open_with(
            method,
            path,
            ends,
            &[("authorization", &format!("Basic {credentials}"))],
        )
    }

    /// [`Self::open`] with these headers and no others.
    pub(crate) fn open_with(
        &mut self,
        method: &str,
        path: &str,
        ends: bool,
        headers: &[(&str, &str)],
    ) -> (u32, Vec<u8>) {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", method),
            (":scheme", "https"),
            (":authority", &self.authority),
            (":path", path),
        ] {
            literal(&mut block, name, value);
        }
        for (name, value) in headers {
            literal(&mut block, name, value);
        }
        let stream = self.next;
        self.next += 2;
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        (stream, frame(HEADERS, flags, stream, &block))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub(crate) fn receive(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload,
        })
    }

    /// Waits until the server has read all that was sent.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        const OURS: &[u8] = b"settled?";
        self.send(&frame(PING, 0, 0, OURS))?;
        loop {
            let frame = self.receive()?;
            if frame.kind == PING && frame.flags & ACK != 0 && frame.payload == OURS {
                return Ok(());
            }
        }
    }

    /// Everything up to the end of `stream`: its frames alone.
    pub(crate) fn receive_all(&mut self, stream: u32) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            let frame = self.receive()?;
            if frame.stream != stream {
                continue;
            }
            let ends = frame.kind == RESET
                || matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
            frames.push(frame);
            if ends {
                return Ok(frames);
            }
        }
    }
}

/// A frame, ready to be sent.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frame that gives a stream up: CANCEL.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &8_u32.to_be_bytes())
}

/// The frame that lets the server send so much more, on a stream or (0) on the connection.
pub(crate) fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(8, 0, stream, &bytes.to_be_bytes())
}

/// Appends a header as HPACK writes it without any table (RFC 7541, section 6.2.2).
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(length @ 0..127) => block.push(length),
            _ => {
                block.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).unwrap());
            }
        }
        block.extend(text.as_bytes());
    }
}
