//! What the edge does to every request, whatever stands behind it.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{
    Client, PASSWORD, Response, Rig, Setup, USER, digest, eventually, need, noise, push_blob, run,
    try_run,
};

#[test]
fn the_plain_listener_redirects_to_https_and_does_nothing_else() {
    let rig = Rig::start();
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
        let reply = rig
            .plain()
            .request(method, "/v2/a/tags/list?n=1")
            .send()
            .expect(308);
        let target = reply.header("Location").unwrap();
        assert!(target.starts_with("https://localhost"), "{target}");
        assert!(target.ends_with("/v2/a/tags/list?n=1"), "{target}");
    }
    // Credentials sent in the clear buy nothing.
    rig.plain().as_user(USER, PASSWORD).get("/v2/").expect(308);
}

#[test]
fn a_challenge_nobody_expects_is_not_redirected_to_where_it_cannot_be() {
    let rig = Rig::start();
    let reply = rig.plain().get("/.well-known/acme-challenge/token");
    assert!(matches!(reply.status, 308 | 404), "{reply:?}");
}

#[test]
fn a_redirect_never_carries_what_the_request_smuggled() {
    let rig = Rig::start();
    let mut raw = rig.plain().connect().unwrap();
    raw.write(b"GET /%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let reply = raw.reply().unwrap();
    assert_eq!(reply.header("X-Evil"), None);
}

/// Runs curl against the rig and returns its output.
fn curl(rig: &Rig, arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "--max-time", "60", "--cacert"])
        .arg(&rig.certificate.cert);
    run(command
        .args(["-u", &format!("{USER}:{PASSWORD}")])
        .args(arguments))
}

#[test]
fn a_blob_goes_in_and_out_over_both_versions_of_http() {
    need!("curl");
    let rig = Rig::start();
    let bytes = noise(60, 5_000_000);
    let file = rig.path("blob");
    std::fs::write(&file, &bytes).unwrap();
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let url = format!("https://{}/v2/a{}/blobs", rig.name(), flag.len());
        let digest = digest(&bytes);
        let post = format!("{url}/uploads/?digest={digest}");
        let file = format!("@{}", file.display());
        let kind = "Content-Type: application/octet-stream";
        let format = "%{http_code} %{http_version}";
        let pushed = curl(
            &rig,
            &[
                flag,
                "-H",
                kind,
                "--data-binary",
                &file,
                &post,
                "-o",
                "/dev/null",
                "-w",
                format,
            ],
        );
        assert_eq!(pushed, format!("201 {version}"));

        let back = rig.path("back");
        let back = back.to_str().unwrap();
        let pulled = curl(
            &rig,
            &[flag, &format!("{url}/{digest}"), "-o", back, "-w", format],
        );
        assert_eq!(pulled, format!("200 {version}"));
        assert!(
            std::fs::read(back).unwrap() == bytes,
            "the bytes differ over {flag}"
        );
    }
}

#[test]
fn a_host_nobody_serves_is_misdirected() {
    let rig = Rig::start();
    let reply = rig
        .client()
        .for_host("localhost")
        .request("GET", "/v2/")
        .send();
    reply.expect(200);
    let mut raw = rig.client().connect().unwrap();
    raw.write(b"GET /v2/ HTTP/1.1\r\nHost: nobody.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    let reply = raw.reply().unwrap().expect(421);
    assert_eq!(
        reply.all("Docker-Distribution-Api-Version"),
        ["registry/2.0"]
    );
}

#[test]
fn every_reply_under_v2_names_the_api_exactly_once() {
    let mut rig = Rig::start();
    let (client, anonymous) = (rig.client(), rig.anonymous());
    let once = |reply: Response| {
        let names = reply.all("Docker-Distribution-Api-Version");
        assert_eq!(names, ["registry/2.0"], "{reply:?}");
        reply.status
    };
    push_blob(&client, "a", b"x");
    assert_eq!(once(client.get("/v2/")), 200);
    assert_eq!(once(anonymous.get("/v2/")), 401);
    assert_eq!(
        once(client.as_user(USER, "wrong").get("/v2/a/tags/list")),
        401
    );
    assert_eq!(once(client.get("/v2/nobody/tags/list")), 404);
    assert_eq!(
        once(client.get(&format!("/v2/a/blobs/{}", digest(b"x")))),
        200
    );
    assert_eq!(once(client.get("/v2/UPPER/tags/list")) / 100, 4);
    assert_eq!(once(client.post("/v2/a/blobs/uploads/")), 202);
    let range = client.request("GET", &format!("/v2/a/blobs/{}", digest(b"x")));
    assert_eq!(once(range.header("Range", "bytes=9-").send()), 416);
    rig.registry().kill();
    assert_eq!(once(client.get("/v2/")), 503);
}

#[test]
fn when_the_registry_is_down_the_edge_says_when_to_come_back_and_recovers() {
    let mut rig = Rig::start();
    let client = rig.client();
    rig.registry().kill();

    let reply = client.get("/v2/").expect_error(503, "UNAVAILABLE");
    let seconds: u64 = reply.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    rig.anonymous().get("/v2/").expect(401);

    rig.start_registry();
    eventually("the registry to be found again", || {
        (client.get("/v2/").status == 200).then_some(())
    });
}

#[test]
fn the_registry_takes_connections_from_its_edge_alone() {
    need!("setpriv");
    let rig = Rig::start();
    // Its own user may; another may not, whatever the socket's mode.
    Client::unix(&rig.socket()).get("/v2/").expect(200);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(rig.socket()).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o660);
    if !rustix::process::getuid().is_root() {
        crate::harness::skip("only root can be somebody else");
        return;
    }
    open_to_all(&rig);
    let mut stranger = Command::new("setpriv");
    stranger
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args([
            "curl",
            "-sS",
            "--max-time",
            "10",
            "-w",
            "%{http_code}",
            "--unix-socket",
        ])
        .arg(rig.socket())
        .arg("http://localhost/v2/")
        .stdin(Stdio::null());
    let output = try_run(&mut stranger);
    assert!(
        !output.stdout.ends_with("200"),
        "a stranger was served: {output}"
    );
    assert!(
        output.stdout.ends_with("403") || !output.success,
        "{output}"
    );
}

/// Takes the file system's protection away, so that only the registry's own is left.
fn open_to_all(rig: &Rig) {
    let folder = rig.socket().parent().unwrap().to_owned();
    for (path, mode) in [(folder, "755"), (rig.socket(), "777")] {
        run(Command::new("chmod").arg(mode).arg(path));
    }
}

#[test]
fn ambiguous_requests_are_refused_and_reach_nobody() {
    let rig = Rig::start();
    let authorization = {
        let token = openssl::base64::encode_block(format!("{USER}:{PASSWORD}").as_bytes());
        format!("Authorization: Basic {token}")
    };
    for (what, head) in [
        (
            "two lengths",
            "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        ),
        (
            "length and chunks",
            "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "a bad length",
            "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n",
        ),
        (
            "two hosts",
            "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        ),
        ("no host", "GET /v2/ HTTP/1.1\r\nX: y\r\n"),
        (
            "CONNECT",
            "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\n",
        ),
        (
            "space in a name",
            "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Bad : 1\r\n",
        ),
    ] {
        let mut raw = rig.anonymous().connect().unwrap();
        raw.write(format!("{head}{authorization}\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap();
        raw.write(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .ok();
        match raw.reply() {
            // RFC 9112, 6.1: chunks may win over a length, if the connection ends with it.
            Ok(reply) if what == "length and chunks" => {
                assert!(matches!(reply.status, 202 | 400), "{reply:?}");
            }
            Ok(reply) => assert!(matches!(reply.status, 400..=499), "{what}: {reply:?}"),
            Err(_closed) => {}
        }
    }
    assert!(!rig.edge_log().contains("/smuggled"), "{}", rig.edge_log());
    rig.client().get("/v2/").expect(200);
}

#[test]
fn who_is_refused_while_sending_without_a_length_is_told_that_the_connection_ends() {
    let rig = Rig::start();
    let path = format!("/v2/team/app/manifests/{}", digest(b"x"));
    let anonymous = rig.anonymous();
    let request = anonymous.request("PUT", &path);
    let mut sending = request
        .header("Transfer-Encoding", "chunked")
        .open()
        .unwrap();
    for _ in 0..40 {
        // An early end of the connection is as good a sign.
        drop(sending.chunk(&[b'x'; 32 << 10]));
    }
    drop(sending.chunk(b""));
    let refused = sending.reply().unwrap();
    refused.error_code();
    assert_eq!(refused.header("Connection"), Some("close"));
    refused.expect(401);
}

#[test]
fn a_head_without_end_is_cut_off() {
    let rig = Setup {
        tables: "[limits]\nheader_timeout = \"1s\"\nkeepalive_timeout = \"1s\"\n".to_owned(),
        ..Setup::default()
    };
    let rig = rig.start();
    let mut slow = rig.anonymous().connect().unwrap();
    slow.write(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n")
        .unwrap();
    eventually("the slow client to be cut off", || {
        crate::harness::pause(Duration::from_millis(200));
        slow.write(b"X: y\r\n").is_err().then_some(())
    });

    let mut large = rig.anonymous().connect().unwrap();
    let header = format!("X-Large: {}\r\n", "x".repeat(200_000));
    let request = format!("GET /v2/ HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
    let reply = large.write(request.as_bytes()).and_then(|()| large.reply());
    assert!(reply.map_or(true, |reply| matches!(reply.status, 400 | 431 | 413)));
    rig.client().get("/v2/").expect(200);
}
