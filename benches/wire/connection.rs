//! One kept connection and the requests on it.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use openssl::ssl::{SslConnector, SslMethod, SslStream};

pub(crate) const PIECE: usize = 256 * 1024;

/// Whom to ask, and as whom.
pub(crate) struct Server {
    connector: SslConnector,
    authorization: String,
    authority: String,
    host: String,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn new(
        ca: &str,
        authorization: &str,
        origin: &str,
        address: IpAddr,
    ) -> Result<Self> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        builder.set_ca_file(ca)?;
        // As Go's clients offer them where the processor has AES instructions.
        builder.set_ciphersuites("TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384")?;
        let authority = origin.strip_prefix("https://").context("not an origin")?;
        let (host, port) = authority.split_once(':').context("no port")?;
        Ok(Self {
            connector: builder.build(),
            authorization: authorization.to_owned(),
            authority: authority.to_owned(),
            host: host.to_owned(),
            address: SocketAddr::new(address, port.parse()?),
        })
    }

    pub(crate) fn connect(&self) -> Result<Connection> {
        let socket = TcpStream::connect(self.address).context("connect")?;
        Ok(Connection {
            stream: self.connector.connect(&self.host, Socket::new(socket)?)?,
            piece: vec![0; PIECE],
        })
    }

    /// A request's first lines; the blank one that ends them is not there yet.
    pub(crate) fn head(&self, method: &str, path: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nAccept: */*\r\n\
             Accept: application/vnd.oci.image.manifest.v1+json\r\n",
            self.authority, self.authorization
        )
    }

    /// The path of a `Location`, which may be absolute.
    pub(crate) fn path_of<'a>(&self, location: &'a str) -> &'a str {
        location
            .strip_prefix("https://")
            .and_then(|rest| rest.strip_prefix(self.authority.as_str()))
            .unwrap_or(location)
    }
}

/// A socket that is asked for many TLS records at once, and given many.
#[derive(Debug)]
pub(crate) struct Socket {
    input: BufReader<TcpStream>,
    output: BufWriter<TcpStream>,
}

impl Socket {
    pub(crate) fn new(socket: TcpStream) -> Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self {
            input: BufReader::with_capacity(PIECE, socket.try_clone()?),
            output: BufWriter::with_capacity(PIECE, socket),
        })
    }
}

impl Read for Socket {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        self.output.flush()?;
        self.input.read(piece)
    }
}

impl Write for Socket {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.output.write(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

pub(crate) struct Connection {
    stream: SslStream<Socket>,
    piece: Vec<u8>,
}

/// A reply whose body has been counted and, if it is a small one, kept.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) location: String,
    pub(crate) bytes: usize,
    pub(crate) body: Vec<u8>,
    /// When its first bytes were here.
    pub(crate) began: Instant,
}

impl Connection {
    /// Sends everything given, in one piece with what was sent before.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.stream.flush()?)
    }

    /// A whole request, and its reply.
    pub(crate) fn ask(&mut self, head: &str, body: &[u8]) -> Result<Reply> {
        self.send(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes())?;
        self.send(body)?;
        self.receive(head.starts_with("HEAD "))
    }

    /// The reply; one to a HEAD has no body, whatever its head says.
    pub(crate) fn receive(&mut self, bodiless: bool) -> Result<Reply> {
        self.flush()?;
        let mut head = Vec::new();
        let mut began = None;
        let mut body = loop {
            let length = self.stream.read(&mut self.piece)?;
            ensure!(length > 0, "the connection ended before the reply's head");
            began.get_or_insert_with(Instant::now);
            head.extend_from_slice(self.piece.get(..length).unwrap_or_default());
            if let Some(at) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break head.split_off(at + 4);
            }
        };
        let head = String::from_utf8(head)?;
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let status = head.split_whitespace().nth(1).context("no status")?;
        let status = status.parse()?;
        // Only lists come without a length, and they have no line ends in them.
        let chunked = field("transfer-encoding").is_some();
        let expected: usize = match field("content-length") {
            Some(length) if !bodiless && status != 304 => length.parse()?,
            _ => 0,
        };
        let mut bytes = body.len();
        while bytes < expected || chunked && !body.ends_with(b"0\r\n\r\n") {
            let length = self.stream.read(&mut self.piece)?;
            ensure!(length > 0, "{bytes} bytes of {expected}, then the end");
            if chunked || expected <= PIECE {
                body.extend_from_slice(self.piece.get(..length).unwrap_or_default());
            }
            bytes += length;
        }
        Ok(Reply {
            status,
            location: field("location").unwrap_or("-").to_owned(),
            bytes,
            body,
            began: began.context("no reply")?,
        })
    }
}
