//! What is asked of a connection before its handshake: who it is from, and how many there are.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::harness::{Exchange, Rig, Setup, eventually, free_port, need, run};

/// Whether a connection is closed without a byte having been said.
fn is_dropped(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// A rig with one more listener with TLS, of these keys, and a log in JSON.
fn with_listener(keys: &str, limits: &str) -> (Rig, SocketAddr) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let tables = format!(
        "[[listener]]\naddress = \"{address}\"\ntls = true\n{keys}\n\
         [limits]\n{limits}\n[log]\nformat = \"json\"\n"
    );
    let setup = Setup {
        tables,
        ..Setup::default()
    };
    (setup.start(), address)
}

#[test]
fn a_denied_address_is_dropped_before_the_handshake_and_the_log_says_by_what() {
    let (mut rig, address) = with_listener("deny_from = [\"127.0.0.0/8\"]", "");
    assert!(is_dropped(address));
    let lines = eventually("a line about it", || {
        let lines = rig.edge_lines(&["connection refused"]);
        (!lines.is_empty()).then_some(lines)
    });
    for part in ["listener[3].deny_from", "127.0.0.1"] {
        assert!(lines[0].contains(part), "{lines:?}");
    }
    // The others are as open as ever.
    rig.client().get("/v2/").expect(200);

    // A flood of them is no flood of lines.
    for _ in 0..200 {
        drop(TcpStream::connect(address).unwrap());
    }
    assert!(is_dropped(address));
    assert!(rig.edge_lines(&["connection refused"]).len() <= 60);

    // The lists come with a reload.
    let text = std::fs::read_to_string(rig.config()).unwrap();
    let text = text.replace("deny_from = [\"127.0.0.0/8\"]", "allow_from = [\"::1\"]");
    std::fs::write(rig.config(), &text).unwrap();
    rig.reload_edge();
    eventually("the other list to keep it out", || {
        is_dropped(address).then_some(())?;
        let lines = rig.edge_lines(&["listener[3].allow_from"]);
        (!lines.is_empty()).then_some(())
    });
    let text = text.replace("allow_from = [\"::1\"]", "allow_from = [\"127.0.0.1\"]");
    std::fs::write(rig.config(), text).unwrap();
    rig.reload_edge();
    eventually("the address to be let in", || {
        let reply = rig.client().at(address).request("GET", "/v2/").try_send();
        (reply.ok()?.status == 200).then_some(())
    });
}

#[test]
fn one_address_has_so_many_connections_and_no_more() {
    let rig = Setup {
        tables: "[limits]\nmax_connections_per_address = 3\n[log]\nformat = \"json\"\n".to_owned(),
        ..Setup::default()
    }
    .start();
    // Those of the start are gone.
    let open = |client: &crate::harness::Client| -> Vec<Exchange> {
        eventually("three places", || {
            (0..3).map(|_| client.connect().ok()).collect()
        })
    };
    let client = rig.client();
    let mut kept = open(&client);
    assert!(is_dropped(rig.https));
    // On each of the three a request is answered; another address is none of this one's matter.
    for exchange in &mut kept {
        exchange
            .write(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        assert_eq!(exchange.reply().unwrap().status, 401);
    }
    let other = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, rig.https.port()));
    client.at(other).get("/v2/").expect(200);
    drop(kept);
    eventually("a place to be free again", || {
        let reply = client.request("GET", "/v2/").try_send().ok()?;
        (reply.status == 200).then_some(())
    });
    assert!(
        !rig.edge_lines(&["limits.max_connections_per_address"])
            .is_empty()
    );
}

#[test]
fn all_together_have_so_many_connections_and_no_more() {
    let (rig, address) = with_listener("", "max_connections = 2");
    let client = rig.client();
    let kept: Vec<Exchange> = eventually("two places", || {
        [rig.https, address]
            .into_iter()
            .map(|address| client.at(address).connect().ok())
            .collect()
    });
    assert!(is_dropped(rig.https));
    assert!(is_dropped(rig.http));
    drop(kept);
    eventually("a place to be free again", || {
        let reply = client.request("GET", "/v2/").try_send().ok()?;
        (reply.status == 200).then_some(())
    });
}

#[test]
fn a_failed_handshake_is_one_line_that_says_why() {
    need!("openssl");
    let rig = Setup {
        tables: "[log]\nformat = \"json\"\n".to_owned(),
        ..Setup::default()
    }
    .start();
    // A client that does not trust the certificate says so.
    let mut client = Command::new("openssl");
    client
        .args(["s_client", "-verify_return_error", "-servername"])
        .args(["registry.test", "-connect", &rig.https.to_string()]);
    assert!(!crate::harness::try_run(&mut client).success);
    let line = eventually("a line about it", || {
        rig.edge_lines(&["handshake failed", "registry.test"]).pop()
    });
    for part in ["127.0.0.1", "alert unknown ca", "INFO"] {
        assert!(line.contains(part), "{line}");
    }
    // Plain HTTP is none of TLS.
    let plain = format!("http://{}/", rig.https);
    drop(crate::harness::try_run(
        Command::new("curl").args(["-s", "-m", "5", &plain]),
    ));
    eventually("a line about it", || {
        let line = rig.edge_lines(&["plain HTTP on a port for HTTPS", "400"]);
        line.into_iter().next()
    });
    // Nor is nonsense of what was agreed on, or half a head, an error of ours.
    for (protocol, nonsense) in [("h2", "nonsense\r\n\r\n"), ("http/1.1", "GET / HTT")] {
        let mut client = Command::new("sh");
        client.args([
            "-c",
            &format!(
                "printf '{nonsense}' | openssl s_client -connect {} -alpn {protocol}",
                rig.https
            ),
        ]);
        drop(crate::harness::try_run(&mut client));
    }
    // Who goes away without a word is nobody's news.
    drop(TcpStream::connect(rig.https).unwrap());
    rig.client().get("/v2/").expect(200);
    assert_eq!(rig.edge_lines(&["handshake failed"]).len(), 1);
    assert!(rig.edge_lines(&["ERROR"]).is_empty(), "{}", rig.edge_log());
}

#[test]
fn handshakes_do_not_wait_for_each_other() {
    need!("curl");
    let rig = Rig::start();
    // These say nothing at all.
    let silent: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(rig.https).unwrap())
        .collect();
    let url = format!("https://{}/v2/", rig.name());
    let code = run(Command::new("curl")
        .args(["-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"])
        .arg("--cacert")
        .arg(&rig.certificate.cert)
        .arg(url));
    assert_eq!(code, "401");
    drop(silent);
}
