//! Behind a load balancer: the PROXY protocol, written by hand and by curl.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::harness::{Client, Rig, Setup, eventually, free_port, need, run};

/// A rig with two more listeners that expect a header, one with TLS and one without.
struct Behind {
    rig: Rig,
    tls: SocketAddr,
    plain: SocketAddr,
}

impl Behind {
    fn new(trusted: &str, limits: &str) -> Self {
        let [tls, plain] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let tables = format!(
            "[[listener]]\naddress = \"{tls}\"\ntls = true\nproxy_protocol = true\n\
             deny_from = [\"198.51.100.0/24\"]\n\
             [[listener]]\naddress = \"{plain}\"\nproxy_protocol = true\n\
             [limits]\n{limits}\n[log]\nformat = \"json\"\n"
        );
        let setup = Setup {
            top: format!("trusted_proxies = [{trusted}]"),
            tables,
            ..Setup::default()
        };
        Self {
            rig: setup.start(),
            tls,
            plain,
        }
    }

    fn client(&self, header: &[u8]) -> Client {
        self.rig.client().at(self.tls).behind(header)
    }

    /// The client of the one request for `path`, by the access log.
    fn logged(&self, path: &str) -> String {
        let line = eventually("the access log", || {
            self.rig.edge_lines(&["\"access\"", path]).pop()
        });
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let nested = &line["fields"]["client"];
        let client = if nested.is_null() {
            &line["client"]
        } else {
            nested
        };
        client.as_str().unwrap().to_owned()
    }

    /// Whether a connection that begins so is closed without an answer.
    fn is_dropped(address: SocketAddr, begin: &[u8]) -> bool {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        drop(stream.write_all(begin));
        !matches!(stream.read(&mut [0; 1]), Ok(1..))
    }
}

/// A header of version 2 for a client of this address.
fn version_2(client: Ipv4Addr, more: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    let length = u16::try_from(12 + more.len()).unwrap();
    header.extend(length.to_be_bytes());
    header.extend(client.octets());
    header.extend([127, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb]);
    header.extend(more);
    header
}

#[test]
fn the_client_is_the_one_that_the_balancer_names() {
    let behind = Behind::new("\"127.0.0.1\"", "");
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
    for (path, header, client) in [
        (
            "v1v4",
            b"PROXY TCP4 203.0.113.7 127.0.0.1 4660 443\r\n".to_vec(),
            "203.0.113.7",
        ),
        (
            "v1v6",
            b"PROXY TCP6 2001:db8::7 ::1 4660 443\r\n".to_vec(),
            "2001:db8::7",
        ),
        ("v1unknown", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (
            "v2v4",
            version_2(Ipv4Addr::new(203, 0, 113, 9), &[]),
            "203.0.113.9",
        ),
        (
            "v2more",
            version_2(Ipv4Addr::new(203, 0, 113, 10), &[4, 0, 3, 1, 2, 3]),
            "203.0.113.10",
        ),
        ("v2local", local.to_vec(), "127.0.0.1"),
    ] {
        let path = format!("/v2/{path}/tags/list");
        let reply = behind.client(&header).get(&path);
        reply.expect_error(404, "NAME_UNKNOWN");
        assert_eq!(behind.logged(&path), client, "{path}");
    }
    // A header in front of plain HTTP is read as well.
    let plain = behind.rig.plain().at(behind.plain);
    let plain = plain.behind(b"PROXY TCP4 203.0.113.8 127.0.0.1 4660 80\r\n");
    plain.get("/v2/plain/tags/list").expect(308);
    assert_eq!(behind.logged("/v2/plain/tags/list"), "203.0.113.8");
}

#[test]
fn what_a_named_client_claims_in_its_headers_is_not_believed() {
    let behind = Behind::new("\"127.0.0.1\", \"10.0.0.0/8\"", "");
    let ask = |client: &str, path: &str| {
        let header = format!("PROXY TCP4 {client} 127.0.0.1 4660 443\r\n");
        let path = format!("/v2/{path}/tags/list");
        behind
            .client(header.as_bytes())
            .request("GET", &path)
            .header("X-Forwarded-For", "192.0.2.99")
            .send()
            .expect(404);
        behind.logged(&path)
    };
    assert_eq!(ask("203.0.113.7", "stranger"), "203.0.113.7");
    // A proxy behind the balancer that is trusted itself is followed.
    assert_eq!(ask("10.0.0.7", "inner"), "192.0.2.99");
}

#[test]
fn without_a_header_nobody_comes_in() {
    let behind = Behind::new("\"127.0.0.1\"", "header_timeout = \"1s\"");
    assert!(behind.rig.client().at(behind.tls).connect().is_err());
    for begin in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"PROXY TCP4 203.0.113.7\r\n",
        b"PROXY TCP9 203.0.113.7 127.0.0.1 1 1\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
        // Half of one is waited for as long as for the head of a request.
        b"PROXY TCP4 203.0.1",
    ] {
        for address in [behind.tls, behind.plain] {
            assert!(Behind::is_dropped(address, begin), "{begin:?}");
        }
    }
    for because in ["no header of the PROXY protocol", "limits.header_timeout"] {
        eventually("a line about it", || {
            behind
                .rig
                .edge_lines(&["connection refused", because])
                .pop()
        });
    }
}

#[test]
fn a_header_of_a_stranger_is_not_believed_and_the_stranger_is_not_served() {
    let behind = Behind::new("\"192.0.2.1\"", "");
    let header = b"PROXY TCP4 203.0.113.7 127.0.0.1 4660 443\r\n";
    assert!(behind.client(header).connect().is_err());
    assert!(Behind::is_dropped(behind.plain, header));
    eventually("a line about it", || {
        behind
            .rig
            .edge_lines(&["connection refused", "not one of trusted_proxies"])
            .pop()
    });
    // And where no header is expected, one is no HTTP.
    assert!(behind.rig.client().behind(header).connect().is_err());
}

#[test]
fn lists_and_limits_are_about_the_named_client() {
    let behind = Behind::new("\"127.0.0.1\"", "max_connections_per_address = 2");
    let named = |client: &str| format!("PROXY TCP6 {client} ::1 4660 443\r\n").into_bytes();
    let denied = b"PROXY TCP4 198.51.100.7 127.0.0.1 4660 443\r\n";
    assert!(Behind::is_dropped(behind.tls, denied));
    eventually("a line about who was denied", || {
        let told = ["listener[3].deny_from", "198.51.100.7"];
        behind.rig.edge_lines(&told).pop()
    });

    // The addresses of one IPv6 network of 64 bits are one client's.
    let first = behind.client(&named("2001:db8::1")).connect().unwrap();
    let second = behind.client(&named("2001:db8::2")).connect().unwrap();
    let third = behind.client(&named("2001:db8::3"));
    assert!(third.connect().is_err());
    behind
        .client(&named("2001:db8:0:1::1"))
        .get("/v2/")
        .expect(200);
    drop((first, second));
    eventually("a place to be free again", || {
        third.request("GET", "/v2/").try_send().ok()
    });
}

#[test]
fn curl_speaks_it() {
    need!("curl");
    let behind = Behind::new("\"127.0.0.1\"", "");
    for version in ["--http1.1", "--http2"] {
        let code = run(Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", version])
            .args(["--haproxy-protocol", "--cacert"])
            .arg(&behind.rig.certificate.cert)
            .arg(format!("https://localhost:{}/v2/", behind.tls.port())));
        assert_eq!(code, "401");
    }
}
