//! A second site: any plain HTTP service behind the edge, with users of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::harness::{Client, PASSWORD, Pair, Rig, Setup, USER, free_port};

/// A plain HTTP service that tells the test the head of every request, and says so.
pub(crate) struct Echo {
    address: SocketAddr,
    heads: Receiver<Vec<String>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
        let address = listener.local_addr().unwrap();
        let (told, heads) = channel();
        // It lives as long as the suite; every connection is one request.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let told = told.clone();
                thread::spawn(move || Self::answer(stream.ok()?, &told));
            }
        });
        Self { address, heads }
    }

    fn answer(stream: TcpStream, told: &Sender<Vec<String>>) -> Option<()> {
        let mut out = stream.try_clone().ok()?;
        let mut stream = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let upgrade = head
            .iter()
            .any(|line| line.eq_ignore_ascii_case("upgrade: websocket"));
        told.send(head).ok()?;
        if upgrade {
            out.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            )
            .ok()?;
            let mut frame = [0; 5];
            stream.read_exact(&mut frame).ok()?;
            frame.reverse();
            return out.write_all(&frame).ok();
        }
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
            .ok()
    }

    fn table(&self) -> String {
        format!(
            "[[upstream]]\nname = \"echo\"\npeers = [\"{}\"]\n",
            self.address
        )
    }

    /// The head of the next request that arrived, line by line.
    pub(crate) fn head(&self) -> Vec<String> {
        self.heads.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    /// The values of a header in the next request that arrived.
    pub(crate) fn next(&self) -> impl Fn(&str) -> Vec<String> {
        let head = self.head();
        move |name: &str| {
            head.iter()
                .filter_map(|line| line.split_once(": "))
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
                .collect()
        }
    }
}

/// A rig with the echo as a second site, `echo.test`, behind credentials of its own.
fn with_echo(top: &str) -> (Rig, Echo, Client) {
    with_echo_and(top, "")
}

/// [`with_echo`], with more keys of its site.
pub(crate) fn with_echo_and(top: &str, site: &str) -> (Rig, Echo, Client) {
    let echo = Echo::start();
    let folder = tempfile::TempDir::new().unwrap().keep();
    let pair = Pair::create(&folder, "echo", &["echo.test"]);
    let hashed = bcrypt::hash("sesame", 4).unwrap();
    std::fs::write(folder.join("htpasswd"), format!("ali:{hashed}\n")).unwrap();
    let tables = format!(
        "[[site]]\nhosts = [\"echo.test\"]\nupstream = \"echo\"\n\
         certificate = {{ cert_file = \"{cert}\", key_file = \"{key}\" }}\n{site}\n\
         [site.auth]\nrealm = \"Echo\"\nhtpasswd_file = \"{folder}/htpasswd\"\n{upstream}",
        cert = pair.cert.display(),
        key = pair.key.display(),
        folder = folder.display(),
        upstream = echo.table(),
    );
    let rig = Setup {
        top: top.to_owned(),
        tables,
        ..Setup::default()
    }
    .start();
    let client = Client::tls(rig.https, "echo.test", &pair.cert).as_user("ali", "sesame");
    (rig, echo, client)
}

#[test]
fn a_second_site_has_an_upstream_and_users_of_its_own() {
    let (rig, _echo, client) = with_echo("");
    assert_eq!(client.get("/any/path?x=1").expect(200).text(), "hi");
    let refused = client.as_user(USER, PASSWORD).get("/").expect(401);
    assert_eq!(
        refused.header("WWW-Authenticate"),
        Some("Basic realm=\"Echo\", charset=\"UTF-8\"")
    );
    rig.anonymous()
        .as_user("ali", "sesame")
        .get("/v2/")
        .expect(401);
}

#[test]
fn an_upstream_learns_who_asked_from_the_edge_alone() {
    let (_rig, echo, client) = with_echo("");
    let forged = [
        "X-Forwarded-User",
        "X-Remote-User",
        "Remote-User",
        "X-Auth-User",
        "X-Tidegate-User",
        "X-Tidegate-Anything",
    ];
    let mut request = client.request("GET", "/");
    for name in forged {
        request = request.header(name, "root");
    }
    request
        .header("x_forwarded_user", "root")
        .header("X-Forwarded-For", "6.6.6.6")
        .header("X-Forwarded-Proto", "gopher")
        .header("X-Forwarded-Host", "evil.example")
        .header("X-Real-IP", "6.6.6.6")
        .header("Forwarded", "for=6.6.6.6;proto=gopher")
        .send()
        .expect(200);

    let seen = echo.next();
    assert_eq!(seen("X-Forwarded-User"), ["ali"]);
    for name in forged {
        assert!(!seen(name).contains(&"root".to_owned()), "{name}");
    }
    assert_eq!(seen("X-Forwarded-For"), ["127.0.0.1"]);
    assert_eq!(seen("X-Real-IP"), ["127.0.0.1"]);
    assert_eq!(seen("X-Forwarded-Proto"), ["https"]);
    assert_eq!(seen("X-Forwarded-Host"), ["echo.test"]);
    assert_eq!(seen("Host"), ["echo.test"]);
    let forwarded = seen("Forwarded").join(", ");
    assert!(
        forwarded.contains("for=127.0.0.1") && forwarded.contains("proto=https"),
        "{forwarded}"
    );
    assert!(!forwarded.contains("6.6.6.6"), "{forwarded}");
    assert_eq!(seen("X-Request-Id").len(), 1);
}

#[test]
fn a_trusted_proxy_is_believed_about_the_address_in_front_of_it() {
    let (_rig, echo, client) = with_echo("trusted_proxies = [\"127.0.0.0/8\"]");
    client
        .request("GET", "/")
        .header("X-Forwarded-For", "203.0.113.7")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-User", "root")
        .send()
        .expect(200);
    let seen = echo.next();
    assert_eq!(seen("X-Forwarded-For"), ["203.0.113.7, 127.0.0.1"]);
    assert_eq!(seen("X-Real-IP"), ["203.0.113.7"]);
    assert_eq!(seen("X-Forwarded-User"), ["ali"]);
}

#[test]
fn a_header_named_by_connection_goes_no_further_and_takes_no_identity_with_it() {
    let (_rig, echo, client) = with_echo("");
    client
        .request("GET", "/")
        .header("Connection", "X-Forwarded-User, X-Private")
        .header("X-Private", "1")
        .send()
        .expect(200);
    assert_eq!(echo.next()("X-Forwarded-User"), ["ali"]);
}

#[test]
fn a_websocket_passes_through_a_second_site() {
    let (_rig, echo, client) = with_echo("");
    let mut socket = client
        .request("GET", "/socket")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13")
        .open()
        .unwrap();
    let reply = socket.reply_head().unwrap().expect(101);
    assert_eq!(
        reply.header("Upgrade").map(str::to_lowercase).as_deref(),
        Some("websocket")
    );
    assert_eq!(echo.next()("Upgrade"), ["websocket"]);

    socket.write(b"hello").unwrap();
    let mut answer = Vec::new();
    while answer.len() < 5 {
        let mut piece = [0; 5];
        let count = socket.read_some(&mut piece).unwrap();
        assert!(count > 0, "the socket closed early");
        answer.extend_from_slice(&piece[..count]);
    }
    assert_eq!(answer, b"olleh");
}
