//! A stand-in for the registry that takes nothing on trust: it reads what the edge sends byte by
//! byte, by the strictest reading of RFC 9112 there is, and remembers all of it.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Longer than the edge's timeouts in any test that uses this.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    /// As much of it as came.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// Every value of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        let values = self.headers.iter().filter(named);
        values.map(|(_, value)| value.as_str()).collect()
    }
}

/// When the stand-in answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answers {
    /// Once it has the whole request.
    AtItsEnd,
    /// As soon as it has the head, whatever of the body is still to come.
    AtOnce,
}

/// What arrived.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) requests: Vec<Seen>,
    /// What can be read in more than one way, and so should not have been sent.
    pub(crate) ambiguities: Vec<String>,
}

/// A running stand-in. It lives as long as the suite.
#[derive(Clone)]
pub(crate) struct Recorder {
    record: Arc<Mutex<Record>>,
}

impl Recorder {
    /// Listens on the registry's socket.
    pub(crate) fn listen(socket: &Path, answers: Answers) -> Self {
        let listener = UnixListener::bind(socket).expect("bind the registry's socket");
        let recorder = Self {
            record: Arc::default(),
        };
        let served = recorder.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                thread::spawn(move || served.serve(stream, answers));
            }
        });
        recorder
    }

    /// What has arrived so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.lock().requests.clone()
    }

    pub(crate) fn ambiguities(&self) -> Vec<String> {
        self.lock().ambiguities.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: UnixStream, answers: Answers) {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut connection = Connection {
            stream,
            buffer: Vec::new(),
        };
        while let Some(head) = connection.until(b"\r\n\r\n") {
            let (seen, framing) = match read_head(&head) {
                Ok(read) => read,
                Err(why) => {
                    let head = String::from_utf8_lossy(&head).into_owned();
                    self.lock().ambiguities.push(format!("{why}: {head:?}"));
                    return;
                }
            };
            // The edge's own offer, which this does not take.
            if seen.all("x-tidegate-slots") == ["offered/2"] {
                assert_eq!((&*seen.method, &*seen.target), ("GET", "/v2/"));
                if connection.answer().is_none() {
                    return;
                }
                continue;
            }
            let at = {
                let mut record = self.lock();
                record.requests.push(seen);
                record.requests.len() - 1
            };
            if answers == Answers::AtOnce && connection.answer().is_none() {
                return;
            }
            let whole = connection.body(framing, |piece| {
                let mut record = self.lock();
                record.requests[at].body.extend_from_slice(piece);
            });
            match whole {
                Ok(true) => {}
                Ok(false) => return,
                Err(why) => {
                    self.lock().ambiguities.push(why);
                    return;
                }
            }
            if answers == Answers::AtItsEnd && connection.answer().is_none() {
                return;
            }
        }
        if !connection.buffer.is_empty() {
            let left = String::from_utf8_lossy(&connection.buffer).into_owned();
            let ambiguity = format!("left at the end of a connection: {left:?}");
            self.lock().ambiguities.push(ambiguity);
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    Chunked,
    Length(usize),
}

/// Reads a head that can be read in one way only.
fn read_head(head: &[u8]) -> Result<(Seen, Framing), &'static str> {
    let text = str::from_utf8(head).map_err(|_binary| "bytes that are no text")?;
    let text = text.strip_suffix("\r\n\r\n").ok_or("no end")?;
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let [method, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err("no plain request line");
    };
    let token = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(plain)
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let visible = |text: &str| text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    // What is no ASCII can be read in one way only, wherever nobody compares it.
    let no_control = |text: &str| text.bytes().all(|byte| byte > 0x20 && byte != 0x7f);
    if !token(method)
        || !path.starts_with('/')
        || !visible(path)
        || !no_control(query)
        || target.contains('#')
    {
        return Err("no plain method or target");
    }
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("a line that is no header")?;
        let printable = |byte: u8| byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
        if !token(name) || !value.bytes().all(printable) || value.trim() != value {
            return Err("no plain header");
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    let seen = Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: Vec::new(),
    };
    if seen.all("Host").len() != 1 {
        return Err("not one Host");
    }
    let framing = match (
        &seen.all("Transfer-Encoding")[..],
        &seen.all("Content-Length")[..],
    ) {
        ([], []) => Framing::Length(0),
        (["chunked"], []) => Framing::Chunked,
        ([], [length]) if length.bytes().all(|byte| byte.is_ascii_digit()) => Framing::Length(
            length
                .parse()
                .map_err(|_overflow| "a length beyond counting")?,
        ),
        _ => return Err("no single framing"),
    };
    Ok((seen, framing))
}

struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Takes everything up to and with `end`; nothing where the connection ends before.
    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.buffer.windows(end.len()).position(|part| part == end);
            if let Some(at) = found {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Option<()> {
        let mut piece = [0; 4096];
        let count = self
            .stream
            .read(&mut piece)
            .ok()
            .filter(|count| *count > 0)?;
        self.buffer.extend_from_slice(&piece[..count]);
        Some(())
    }

    /// Takes as many bytes, in pieces; returns whether all came.
    fn exactly(&mut self, count: usize, mut take: impl FnMut(&[u8])) -> bool {
        let mut left = count;
        while left > 0 {
            if self.buffer.is_empty() && self.more().is_none() {
                return false;
            }
            let some = left.min(self.buffer.len());
            let piece: Vec<u8> = self.buffer.drain(..some).collect();
            take(&piece);
            left -= some;
        }
        true
    }

    /// Reads a body; returns whether it came to its end.
    fn body(&mut self, framing: Framing, mut take: impl FnMut(&[u8])) -> Result<bool, String> {
        if let Framing::Length(length) = framing {
            return Ok(self.exactly(length, take));
        }
        loop {
            let Some(line) = self.until(b"\r\n") else {
                return Ok(false);
            };
            let size = String::from_utf8_lossy(&line).trim_end().to_owned();
            let is_hex = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
            let parsed = usize::from_str_radix(&size, 16).ok().filter(|_| is_hex);
            let Some(length) = parsed else {
                return Err(format!("no plain size of a chunk: {size:?}"));
            };
            if !self.exactly(length, &mut take) {
                return Ok(false);
            }
            match self.until(b"\r\n") {
                Some(end) if end == b"\r\n" => {}
                Some(more) => return Err(format!("behind a chunk: {more:?}")),
                None => return Ok(false),
            }
            if length == 0 {
                return Ok(true);
            }
        }
    }

    fn answer(&mut self) -> Option<()> {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        self.stream.write_all(reply).ok()
    }
}
