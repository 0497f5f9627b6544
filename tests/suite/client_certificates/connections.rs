//! Sessions and connections carry no identity to where it was not shown.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Doors, Wallet};
use crate::harness::{eventually, need, try_run};

/// `openssl s_client` that asks for `/v2/` of `host` after a handshake for `name`.
fn s_client(doors: &Doors, name: &str, host: &str, more: &[&str]) -> String {
    let script = format!(
        "printf 'GET /v2/ HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n' | \
         openssl s_client -connect {} -servername {name} -CAfile {} -ign_eof \"$@\" 2>&1",
        doors.rig.https,
        doors.rig.path("cert.pem").display(),
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).args(more);
    try_run(&mut command).stdout
}

#[test]
fn a_resumed_session_carries_no_identity_anywhere() {
    need!("openssl");
    let doors = Doors::open();
    let wallet = Wallet::of(&doors);
    let file = doors.rig.path("session");
    let file = file.to_str().unwrap();
    let (cert, key) = (
        wallet.good.cert.to_str().unwrap(),
        wallet.good.key.to_str().unwrap(),
    );
    let me = ["-cert", cert, "-cert_chain", cert, "-key", key];
    for version in ["-tls1_2", "-tls1_3"] {
        let shake = |name: &str, more: &[&str]| {
            let flags = [&[version], more].concat();
            s_client(&doors, name, name, &flags)
        };
        // Sessions as such can be resumed.
        let first = shake("localhost", &["-sess_out", file]);
        assert!(first.contains("401 Unauthorized"), "{first}");
        let second = shake("localhost", &["-sess_in", file]);
        assert!(second.contains("Reused, "), "{version}: {second}");

        // One of a site that asks for nothing gets nowhere at one that does.
        for host in ["required.test", "optional.test"] {
            let crossed = shake(host, &["-sess_in", file]);
            let resumed = crossed.contains("Reused, ");
            let in_handshake = host == "required.test" && crossed.contains("alert");
            let (misdirected, unknown) = (
                crossed.contains("421 Misdirected"),
                !resumed && crossed.contains("401 Unauthorized"),
            );
            assert!(
                in_handshake || misdirected || unknown,
                "{version} {host}: {crossed}"
            );
        }

        // One at which a certificate was asked for does not go on.
        fs::remove_file(file).unwrap();
        let flags = [&me[..], &["-sess_out", file]].concat();
        let known = shake("required.test", &flags);
        assert!(known.contains("200 OK"), "{version}: {known}");
        if version == "-tls1_3" {
            assert!(!PathBuf::from(file).exists() || fs::read(file).unwrap().is_empty());
            continue;
        }
        for host in ["required.test", "optional.test", "email.test", "localhost"] {
            for name in [host, "required.test"] {
                let crossed = s_client(&doors, name, host, &[version, "-sess_in", file]);
                assert!(!crossed.contains("Reused, "), "{name} {host}: {crossed}");
                assert!(!crossed.contains("200 OK"), "{name} {host}: {crossed}");
            }
        }
    }
}

#[test]
fn a_session_does_not_outlive_what_was_asked_for_at_its_handshake() {
    need!("openssl", "curl");
    let mut doors = Doors::open();
    let wallet = Wallet::of(&doors);
    let file = doors.rig.path("session");
    let file = file.to_str().unwrap();
    let first = s_client(&doors, "localhost", "localhost", &["-sess_out", file]);
    assert!(first.contains("401 Unauthorized"), "{first}");
    let client = doors.rig.client();
    let mut kept = client.connect().unwrap();
    kept.write(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    assert_eq!(kept.reply().unwrap().status, 401);

    let text = fs::read_to_string(doors.rig.config()).unwrap();
    let text = text.replace(
        "realm = \"Registry\"",
        "realm = \"Registry\"\nclient_ca_file = \"clients/root.pem\"",
    );
    fs::write(doors.rig.config(), text).unwrap();
    doors.rig.reload_edge();
    eventually("a certificate to be asked for", || {
        (doors.status("localhost", "", Some(&wallet.good)) == "200").then_some(())
    });

    let resumed = s_client(&doors, "localhost", "localhost", &["-sess_in", file]);
    assert!(
        !resumed.contains("Reused, ") && resumed.contains("alert"),
        "{resumed}"
    );
    // A connection of before is sent away, to come back on one that is asked.
    kept.write(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let reply = kept.reply().unwrap().expect(421);
    assert_eq!(reply.header("Connection"), Some("close"));
}

#[test]
fn a_connection_is_for_the_site_that_its_handshake_was_for() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let wallet = Wallet::of(&doors);
    let (cert, key) = (
        wallet.good.cert.to_str().unwrap(),
        wallet.good.key.to_str().unwrap(),
    );
    for (name, host, expected) in [
        ("localhost", "localhost", "401"),
        // Two hosts of one site.
        ("localhost", "registry.test", "401"),
        ("LOCALHOST", "localhost", "401"),
        ("localhost", "required.test", "421"),
        ("localhost", "optional.test", "421"),
        ("required.test", "localhost", "421"),
        ("required.test", "optional.test", "421"),
        ("unknown.test", "localhost", "421"),
        ("unknown.test", "required.test", "421"),
        ("localhost", "unknown.test", "421"),
    ] {
        let reply = s_client(
            &doors,
            name,
            host,
            &["-cert", cert, "-cert_chain", cert, "-key", key],
        );
        assert!(
            reply.contains(&format!("HTTP/1.1 {expected} ")),
            "{name} {host}: {reply}"
        );
    }
    // Without a name the handshake is as for the first site.
    for (host, expected) in [("localhost", "401"), ("required.test", "421")] {
        let script = format!(
            "printf 'GET /v2/ HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n' | \
             openssl s_client -connect {} -noservername -ign_eof 2>&1",
            doors.rig.https
        );
        let reply = try_run(Command::new("sh").args(["-c", &script])).stdout;
        assert!(reply.contains(&format!("HTTP/1.1 {expected} ")), "{reply}");
    }
    // Over HTTP/2, where clients use one connection for all names of a certificate, it is the same.
    let port = doors.rig.https.port();
    let output = doors.curl(
        "localhost",
        "",
        None,
        &["--http2", "-H", &format!("Host: required.test:{port}")],
    );
    assert!(output.stdout.ends_with("421"), "{output}");
}
