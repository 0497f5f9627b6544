//! What the edge does to every request, whatever stands behind it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::harness::{
    Client, PASSWORD, Pair, Response, Rig, Setup, USER, digest, eventually, free_port, need, noise,
    peer_certificate, push_blob, run, try_run,
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

/// Runs `openssl s_client` with these flags and returns what it says of the session.
fn s_client(rig: &Rig, flags: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-connect",
        &rig.https.to_string(),
        "-servername",
        "localhost",
    ]);
    let output = try_run(
        command
            .args(["-CAfile"])
            .arg(&rig.certificate.cert)
            .args(flags),
    );
    output.stdout + &output.stderr
}

#[test]
fn tls_is_1_2_or_1_3_with_modern_ciphers_alone() {
    let rig = Rig::start();
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let session = s_client(&rig, &[flag]);
        assert!(session.contains(version), "{session}");
        assert!(session.contains("Verify return code: 0 (ok)"), "{session}");
    }
    for flags in [
        ["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        [
            "-tls1_2",
            "-cipher",
            "AES128-SHA:AES256-SHA:AES128-GCM-SHA256",
        ],
        [
            "-tls1_2",
            "-cipher",
            "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384",
        ],
    ] {
        let session = s_client(&rig, &flags);
        assert!(session.contains("Cipher is (NONE)"), "{flags:?}: {session}");
    }
}

#[test]
fn http_2_and_http_1_1_are_offered_and_the_client_chooses() {
    let rig = Rig::start();
    let offered = |protocols: &str| s_client(&rig, &["-alpn", protocols]);
    assert!(offered("h2,http/1.1").contains("ALPN protocol: h2"));
    assert!(offered("http/1.1").contains("ALPN protocol: http/1.1"));
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
fn the_certificate_is_chosen_by_name() {
    let folder = tempfile::TempDir::new().unwrap();
    let other = Pair::create(folder.path(), "other", &["other.test", "*.wild.test"]);
    let echo = Echo::start();
    let tables = format!(
        "[[site]]\nhosts = [\"other.test\", \"*.wild.test\"]\ncertificate = {{ cert_file = \"{}\", \
         key_file = \"{}\" }}\nupstream = \"echo\"\n{}",
        other.cert.display(),
        other.key.display(),
        echo.table()
    );
    let rig = Setup {
        tables,
        ..Setup::default()
    }
    .start();

    for (name, expected) in [
        ("localhost", &rig.certificate),
        ("registry.test", &rig.certificate),
        ("other.test", &other),
        ("x.wild.test", &other),
        ("OTHER.test", &other),
    ] {
        let presented = peer_certificate(rig.https, name).unwrap().to_der().unwrap();
        assert!(
            presented == expected.certificate().to_der().unwrap(),
            "{name}"
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
fn a_refusal_carries_the_challenge_and_the_specs_json() {
    let rig = Rig::start();
    for client in [
        rig.anonymous(),
        rig.anonymous().as_user(USER, "wrong"),
        rig.anonymous().as_user("nobody", PASSWORD),
        rig.anonymous().as_user("", ""),
    ] {
        let reply = client.get("/v2/").expect_error(401, "UNAUTHORIZED");
        assert_eq!(
            reply.header("WWW-Authenticate"),
            Some("Basic realm=\"Registry\"")
        );
        assert_eq!(reply.header("Content-Type"), Some("application/json"));
    }
    for header in [
        "Basic",
        "Basic !!!",
        "Basic Og",
        "Bearer abc",
        "Basic ZG9ja2Vy",
        "",
    ] {
        let request = rig.anonymous();
        let reply = request
            .request("GET", "/v2/")
            .header("Authorization", header)
            .send();
        reply.expect_error(401, "UNAUTHORIZED");
    }
}

#[test]
fn a_refused_push_is_told_so_even_with_a_large_body() {
    need!("curl");
    let rig = Rig::start();
    let file = rig.path("large");
    std::fs::write(&file, noise(61, 8_000_000)).unwrap();
    for flag in ["--http1.1", "--http2"] {
        for _ in 0..10 {
            let mut command = Command::new("curl");
            command
                .args(["-sS", flag, "--max-time", "60", "--cacert"])
                .arg(&rig.certificate.cert)
                .args([
                    "-H",
                    "Expect:",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    "-T",
                ])
                .arg(&file)
                .arg(format!("https://{}/v2/a/blobs/uploads/x", rig.name()));
            assert_eq!(try_run(&mut command).stdout, "401", "{flag}");
        }
    }
}

#[test]
fn every_format_of_apaches_htpasswd_lets_its_user_in() {
    need!("htpasswd", "openssl", "mkpasswd");
    let secret = "pässword: with spaces";
    let made = |program: &str, arguments: &[&str]| {
        run(Command::new(program).args(arguments)).trim().to_owned()
    };
    let mut file = String::from("# people\n\n");
    for (user, flag) in [("bcrypt", "-nbB"), ("apr1", "-nbm"), ("sha1", "-nbs")] {
        file += &format!("{}\n", made("htpasswd", &[flag, user, secret]));
    }
    for (user, flag) in [("sha256", "-nb2"), ("sha512", "-nb5")] {
        // Older Apaches cannot write these; openssl and mkpasswd always can.
        let output = try_run(Command::new("htpasswd").args([flag, user, secret]));
        if output.success {
            file += &format!("{}\n", output.stdout.trim());
        } else {
            let method = if user == "sha256" { "-5" } else { "-6" };
            file += &format!("{user}:{}\n", made("openssl", &["passwd", method, secret]));
        }
    }
    file += &format!(
        "apr1-openssl:{}\n",
        made("openssl", &["passwd", "-apr1", secret])
    );
    for (user, method) in [
        ("mk256", "sha-256"),
        ("mk512", "sha-512"),
        ("mkbcrypt", "bcrypt"),
    ] {
        let rounds = if method == "bcrypt" { "5" } else { "2000" };
        file += &format!(
            "{user}:{}\n",
            made("mkpasswd", &["-m", method, "-R", rounds, secret])
        );
    }
    let users: Vec<String> = file
        .lines()
        .filter_map(|line| line.split_once(':').map(|(user, _)| user.to_owned()))
        .collect();
    assert_eq!(users.len(), 9);
    let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
    file += &format!("{USER}:{hashed}\n");
    let rig = Setup {
        htpasswd: Some(file),
        ..Setup::default()
    }
    .start();

    for user in &users {
        rig.anonymous()
            .as_user(user, secret)
            .get("/v2/")
            .expect(200);
        rig.anonymous()
            .as_user(user, "wrong")
            .get("/v2/")
            .expect(401);
    }
}

#[test]
fn a_plain_password_lets_nobody_in_unless_the_config_says_so() {
    let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
    let file = format!("{USER}:{hashed}\nplain:open sesame\n");
    let rig = Setup {
        htpasswd: Some(file.clone()),
        auth: "insecure_plain_passwords = true".to_owned(),
        ..Setup::default()
    };
    rig.start()
        .anonymous()
        .as_user("plain", "open sesame")
        .get("/v2/")
        .expect(200);

    let rig = Setup {
        htpasswd: Some(file),
        ..Setup::default()
    }
    .prepare();
    let check = try_run(
        crate::harness::tidegate()
            .arg("check")
            .arg("--config")
            .arg(rig.config()),
    );
    assert_eq!(check.code, Some(1), "{check}");
    assert!(check.stderr.contains("htpasswd"), "{check}");
    assert!(!check.stderr.contains("open sesame"), "{check}");
}

#[test]
fn a_verified_password_is_not_hashed_again_and_is_forgotten_with_its_line() {
    need!("htpasswd");
    // At cost 12 one verification takes a quarter of a second and more.
    let line = run(Command::new("htpasswd").args(["-nbBC", "12", USER, PASSWORD]));
    let rig = Setup {
        htpasswd: Some(line),
        ..Setup::default()
    }
    .start();
    let client = rig.client();
    let before = cpu_ticks(&rig);
    for _ in 0..50 {
        client.get("/v2/").expect(200);
    }
    // 50 verifications would be more than ten seconds of CPU.
    let spent = cpu_ticks(&rig) - before;
    assert!(
        spent < 300,
        "50 requests cost {spent} hundredths of a second"
    );

    let other = run(Command::new("htpasswd").args(["-nbBC", "5", USER, "a new one"]));
    std::fs::write(rig.path("htpasswd"), other).unwrap();
    eventually("the old password to be refused", || {
        (client.get("/v2/").status == 401).then_some(())
    });
    rig.anonymous()
        .as_user(USER, "a new one")
        .get("/v2/")
        .expect(200);
}

/// The CPU time of both roles so far, in hundredths of a second.
fn cpu_ticks(rig: &Rig) -> u64 {
    rig.pids()
        .into_iter()
        .map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<&str> = stat
                .rsplit_once(')')
                .unwrap()
                .1
                .split_whitespace()
                .collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        })
        .sum()
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

// --- a second site ---

/// A plain HTTP service that tells the test the head of every request, and says so.
struct Echo {
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

    fn answer(
        stream: std::net::TcpStream,
        told: &std::sync::mpsc::Sender<Vec<String>>,
    ) -> Option<()> {
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

    /// The values of a header in the next request that arrived.
    fn next(&self) -> impl Fn(&str) -> Vec<String> {
        let head = self.heads.recv_timeout(Duration::from_secs(20)).unwrap();
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
    let echo = Echo::start();
    let folder = tempfile::TempDir::new().unwrap().keep();
    let pair = Pair::create(&folder, "echo", &["echo.test"]);
    let hashed = bcrypt::hash("sesame", 4).unwrap();
    std::fs::write(folder.join("htpasswd"), format!("ali:{hashed}\n")).unwrap();
    let tables = format!(
        "[[site]]\nhosts = [\"echo.test\"]\nupstream = \"echo\"\n\
         certificate = {{ cert_file = \"{cert}\", key_file = \"{key}\" }}\n\
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
        Some("Basic realm=\"Echo\"")
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

// --- rude requests ---

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
            Ok(reply) => assert!(matches!(reply.status, 400..=499), "{what}: {reply:?}"),
            Err(_closed) => {}
        }
    }
    assert!(!rig.edge_log().contains("/smuggled"), "{}", rig.edge_log());
    rig.client().get("/v2/").expect(200);
}

#[test]
fn a_head_without_end_is_cut_off() {
    let rig = Setup {
        tables: "[limits]\nheader_timeout = \"1s\"\n".to_owned(),
        ..Setup::default()
    };
    let rig = rig.start();
    let mut slow = rig.anonymous().connect().unwrap();
    slow.write(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n")
        .unwrap();
    let cut = eventually("the slow client to be cut off", || {
        crate::harness::pause(Duration::from_millis(200));
        slow.write(b"X: y\r\n").is_err().then_some(())
    });
    assert_eq!(cut, ());

    let mut large = rig.anonymous().connect().unwrap();
    let header = format!("X-Large: {}\r\n", "x".repeat(200_000));
    let request = format!("GET /v2/ HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
    let reply = large.write(request.as_bytes()).and_then(|()| large.reply());
    assert!(reply.map_or(true, |reply| matches!(reply.status, 400 | 431 | 413)));
    rig.client().get("/v2/").expect(200);
}
