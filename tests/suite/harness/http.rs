//! An HTTP/1.1 client that does exactly what a test says, rude things included.
//!
//! One connection per request. A body may be sent by hand, slowly, wrongly or not to its end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openssl::base64;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod};
use serde_json::Value;

use super::Pair;

/// Long enough for a busy machine, short enough to be a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(120);

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

#[derive(Clone)]
enum Endpoint {
    Plain(SocketAddr),
    Tls {
        address: SocketAddr,
        trust: PathBuf,
        certificate: Option<Pair>,
    },
    Unix(PathBuf),
}

/// Whom requests go to, and as whom.
#[derive(Clone)]
pub(crate) struct Client {
    endpoint: Endpoint,
    host: String,
    authorization: Option<String>,
    /// What a load balancer would say before the client does.
    header: Vec<u8>,
}

impl Client {
    /// Speaks TLS to `address` under the name `host`, trusting the certificates in `trust`.
    pub(crate) fn tls(address: SocketAddr, host: &str, trust: &Path) -> Self {
        let endpoint = Endpoint::Tls {
            address,
            trust: trust.to_owned(),
            certificate: None,
        };
        Self {
            endpoint,
            host: host.to_owned(),
            authorization: None,
            header: Vec::new(),
        }
    }

    pub(crate) fn plain(address: SocketAddr, host: &str) -> Self {
        Self {
            endpoint: Endpoint::Plain(address),
            host: host.to_owned(),
            authorization: None,
            header: Vec::new(),
        }
    }

    pub(crate) fn unix(socket: &Path) -> Self {
        let endpoint = Endpoint::Unix(socket.to_owned());
        Self {
            endpoint,
            host: "localhost".to_owned(),
            authorization: None,
            header: Vec::new(),
        }
    }

    /// The same client with credentials.
    pub(crate) fn as_user(&self, user: &str, password: &str) -> Self {
        let token = base64::encode_block(format!("{user}:{password}").as_bytes());
        Self {
            authorization: Some(format!("Basic {token}")),
            ..self.clone()
        }
    }

    /// The same client behind a load balancer that sends `header` before all else.
    pub(crate) fn behind(&self, header: &[u8]) -> Self {
        Self {
            header: header.to_vec(),
            ..self.clone()
        }
    }

    /// The same client with a certificate to show.
    pub(crate) fn with_certificate(&self, pair: &Pair) -> Self {
        let mut client = self.clone();
        if let Endpoint::Tls { certificate, .. } = &mut client.endpoint {
            *certificate = Some(pair.clone());
        }
        client
    }

    /// The same client at another address.
    pub(crate) fn at(&self, other: SocketAddr) -> Self {
        let mut client = self.clone();
        if let Endpoint::Plain(address) | Endpoint::Tls { address, .. } = &mut client.endpoint {
            *address = other;
        }
        client
    }

    /// The same client with a token.
    pub(crate) fn as_bearer(&self, token: &str) -> Self {
        Self {
            authorization: Some(format!("Bearer {token}")),
            ..self.clone()
        }
    }

    /// The same client asking for another host.
    pub(crate) fn for_host(&self, host: &str) -> Self {
        Self {
            host: host.to_owned(),
            ..self.clone()
        }
    }

    /// What it calls the server.
    pub(crate) fn name(&self) -> &str {
        &self.host
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path).send()
    }

    pub(crate) fn head(&self, path: &str) -> Response {
        self.request("HEAD", path).send()
    }

    pub(crate) fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path).send()
    }

    pub(crate) fn post(&self, path: &str) -> Response {
        self.request("POST", path).send()
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Request<'_> {
        let mut headers = vec![("Host".to_owned(), self.host.clone())];
        if let Some(authorization) = &self.authorization {
            headers.push(("Authorization".to_owned(), authorization.clone()));
        }
        Request {
            client: self,
            method: method.to_owned(),
            target: path.to_owned(),
            headers,
            body: None,
        }
    }

    /// A connection on which the test writes every byte itself.
    pub(crate) fn connect(&self) -> io::Result<Exchange> {
        let stream: Box<dyn Duplex> = match &self.endpoint {
            Endpoint::Plain(address) => Box::new(self.tcp(*address)?),
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Endpoint::Tls {
                address,
                trust,
                certificate,
            } => {
                let mut connector = SslConnector::builder(SslMethod::tls_client())?;
                connector.set_ca_file(trust)?;
                if let Some(pair) = certificate {
                    connector.set_certificate_chain_file(&pair.cert)?;
                    connector.set_private_key_file(&pair.key, SslFiletype::PEM)?;
                }
                let name = self.host.split(':').next().unwrap_or_default();
                let stream = connector.build().connect(name, self.tcp(*address)?);
                Box::new(stream.map_err(io::Error::other)?)
            }
        };
        Ok(Exchange {
            stream: BufReader::new(stream),
            head: false,
        })
    }

    fn tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.header)?;
        Ok(stream)
    }
}

/// A request being put together.
pub(crate) struct Request<'a> {
    client: &'a Client,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends `body` with its length.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends it whole and returns the reply.
    pub(crate) fn send(self) -> Response {
        let line = format!("{} {}", self.method, self.target);
        self.try_send()
            .unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Sends it whole; an error is a connection that was refused or broke.
    pub(crate) fn try_send(mut self) -> io::Result<Response> {
        let body = self.body.take();
        let length = body.as_ref().map_or(0, Vec::len);
        if body.is_some() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            self = self.header("Content-Length", &length.to_string());
        }
        let mut exchange = self.header("Connection", "close").open()?;
        if let Some(body) = body {
            // An early refusal may close the connection while the body is still under way.
            let sent = exchange.write(&body);
            return exchange
                .reply()
                .map_err(|error| sent.err().unwrap_or(error));
        }
        exchange.reply()
    }

    /// Sends the head alone; the body and the reply are up to the caller.
    pub(crate) fn open(self) -> io::Result<Exchange> {
        let mut exchange = self.client.connect()?;
        exchange.write_head(&self)?;
        Ok(exchange)
    }
}

/// A connection with a request under way. Dropped, it is cut.
pub(crate) struct Exchange {
    stream: BufReader<Box<dyn Duplex>>,
    head: bool,
}

impl Exchange {
    /// Sends a request without a body on this connection and returns the reply.
    pub(crate) fn ask(&mut self, request: Request<'_>) -> io::Result<Response> {
        self.write_head(&request)?;
        self.reply()
    }

    fn write_head(&mut self, request: &Request<'_>) -> io::Result<()> {
        let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
        for (name, value) in &request.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.head = request.method == "HEAD";
        self.write(head.as_bytes())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()
    }

    /// One chunk of a body with `Transfer-Encoding: chunked`; an empty one ends it.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.write(&framed)
    }

    pub(crate) fn read_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }

    /// The final reply, interim ones passed over.
    pub(crate) fn reply(&mut self) -> io::Result<Response> {
        loop {
            let mut response = self.reply_head()?;
            if response.status >= 200 || response.status == 101 {
                self.read_body(&mut response)?;
                return Ok(response);
            }
        }
    }

    /// The next reply's status and headers, its body left unread.
    pub(crate) fn reply_head(&mut self) -> io::Result<Response> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Response {
                    status,
                    headers,
                    body: Vec::new(),
                });
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| io::Error::other("no colon"))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn read_body(&mut self, response: &mut Response) -> io::Result<()> {
        if self.head || matches!(response.status, 101 | 204 | 304) {
            return Ok(());
        }
        let coding = response.header("Transfer-Encoding").unwrap_or_default();
        if coding.eq_ignore_ascii_case("chunked") {
            return self.read_chunks(&mut response.body);
        }
        match response.header("Content-Length").map(str::parse::<usize>) {
            Some(length) => {
                response.body.resize(length.map_err(io::Error::other)?, 0);
                self.stream.read_exact(&mut response.body)
            }
            None => match self.stream.read_to_end(&mut response.body) {
                // A peer that closes without a TLS goodbye has still sent all of this.
                Err(error) if response.body.is_empty() => Err(error),
                _ => Ok(()),
            },
        }
    }

    fn read_chunks(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let start = into.len();
            into.resize(start + length, 0);
            self.stream.read_exact(&mut into[start..])?;
            self.line()?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// A reply.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a header, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .filter(named)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in a {}: {}", self.status, self.text()))
    }

    /// The code of the first error in a spec's error body.
    pub(crate) fn error_code(&self) -> String {
        let json = self.json();
        let code = json["errors"][0]["code"].as_str();
        code.unwrap_or_else(|| panic!("no error in {json}"))
            .to_owned()
    }

    /// Panics, showing the reply, unless it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }

    /// Panics unless it is the spec's JSON error with this status and code.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, code: &str) -> Self {
        let reply = self.expect(status);
        assert_eq!(reply.error_code(), code, "{}", reply.text());
        reply
    }

    /// Where it points, as a path.
    #[track_caller]
    pub(crate) fn location(&self) -> String {
        let location = self
            .header("Location")
            .unwrap_or_else(|| panic!("no Location: {self:?}"));
        match location.split_once("://") {
            Some((_, rest)) => rest
                .find('/')
                .map_or("/", |start| &rest[start..])
                .to_owned(),
            None => location.to_owned(),
        }
    }
}
