//! `gencert` and `htpasswd`: what they write works with the tools everybody has.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{
    Client, DockerRegistry, Output, Process, eventually, free_port, need, run, tidegate, try_run,
};

const SECRET: &str = "pässword with spaces";

/// Runs `tidegate htpasswd VERB FILE USER` with this on stdin.
fn htpasswd(verb: &[&str], stdin: &str) -> Output {
    use std::io::Write as _;
    let mut child = tidegate()
        .arg("htpasswd")
        .args(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it reads: then there is nobody to tell.
    drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
    let output = child.wait_with_output().unwrap();
    Output {
        success: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn apache_accepts(file: &Path, user: &str, password: &str) -> bool {
    try_run(
        Command::new("htpasswd")
            .arg("-vb")
            .arg(file)
            .args([user, password]),
    )
    .success
}

#[test]
fn apaches_htpasswd_verifies_what_was_added() {
    need!("htpasswd");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("htpasswd");
    let path = file.to_string_lossy().into_owned();

    let added = htpasswd(&["add", &path, "ann"], &format!("{SECRET}\n"));
    assert!(added.success, "{added}");

    assert!(apache_accepts(&file, "ann", SECRET));
    assert!(!apache_accepts(&file, "ann", "wrong"));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("ann:$2"), "{text}");
    let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert!(matches!(mode, 0o600 | 0o640), "{mode:o}");
}

#[test]
fn a_random_password_is_printed_once_and_works() {
    need!("htpasswd");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("htpasswd");
    let added = htpasswd(&["add", &file.to_string_lossy(), "ben", "--random"], "");
    assert!(added.success, "{added}");
    let password = added.stdout.trim();
    assert!(password.len() >= 16, "{password:?}");
    assert!(apache_accepts(&file, "ben", password));
}

#[test]
fn users_are_verified_listed_changed_and_removed_and_the_rest_stays() {
    need!("htpasswd");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("htpasswd");
    let path = file.to_string_lossy().into_owned();
    let apr1 = run(Command::new("htpasswd").args(["-nbm", "old", SECRET]));
    fs::write(&file, format!("# kept\n{}\n", apr1.trim())).unwrap();
    htpasswd(&["add", &path, "ann"], "one\n");
    htpasswd(&["add", &path, "ann"], "two\n");

    assert_eq!(htpasswd(&["list", &path], "").stdout, "old\nann\n");
    assert!(htpasswd(&["verify", &path, "old"], SECRET).success);
    assert!(htpasswd(&["verify", &path, "ann"], "two\n").success);
    let wrong = htpasswd(&["verify", &path, "ann"], "one\n");
    assert_eq!(wrong.code, Some(1), "{wrong}");
    assert_eq!(htpasswd(&["verify", &path, "nobody"], "x\n").code, Some(1));

    assert!(htpasswd(&["remove", &path, "ann"], "").success);
    assert_eq!(htpasswd(&["remove", &path, "ann"], "").code, Some(1));
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("# kept\n{}\n", apr1.trim())
    );
    assert_eq!(htpasswd(&["add", &path, "a:b"], "x\n").code, Some(1));
    assert_eq!(htpasswd(&["list", "/nowhere/htpasswd"], "").code, Some(1));
}

#[test]
fn openssl_verifies_the_certificate_for_its_names_and_addresses() {
    need!("openssl");
    let folder = TempDir::new().unwrap();
    let mut gencert = tidegate();
    gencert.args([
        "gencert",
        "--name",
        "registry.lan",
        "--name",
        "*.apps.lan",
        "--ip",
        "127.0.0.1",
        "--ip",
        "::1",
    ]);
    run(gencert.arg("--out-dir").arg(folder.path()));
    let cert = folder.path().join("cert.pem");
    let key = folder.path().join("key.pem");

    let verify = |flag: &str, name: &str| {
        let mut openssl = Command::new("openssl");
        openssl
            .args(["verify", "-x509_strict", flag, name, "-CAfile"])
            .arg(&cert)
            .arg(&cert);
        try_run(&mut openssl)
    };
    for (flag, name) in [
        ("-verify_hostname", "registry.lan"),
        ("-verify_hostname", "x.apps.lan"),
        ("-verify_ip", "127.0.0.1"),
        ("-verify_ip", "::1"),
    ] {
        let output = verify(flag, name);
        assert!(output.success, "{name}: {output}");
    }
    assert!(!verify("-verify_hostname", "other.lan").success);
    let public = |command: &mut Command| run(command.args(["-pubout", "-in"]).arg(&key));
    let of_key = public(Command::new("openssl").arg("pkey"));
    let of_cert = run(Command::new("openssl")
        .args(["x509", "-noout", "-pubkey", "-in"])
        .arg(&cert));
    assert_eq!(of_key, of_cert);
    let mode = fs::metadata(&key).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    // It does not overwrite, and it needs a name.
    let mut again = tidegate();
    again
        .args(["gencert", "--name", "registry.lan", "--out-dir"])
        .arg(folder.path());
    assert_eq!(try_run(&mut again).code, Some(1));
    assert_eq!(try_run(tidegate().arg("gencert")).code, Some(2));
}

#[test]
fn nginx_serves_with_the_certificate_and_the_htpasswd_file() {
    need!("nginx", "docker-registry");
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut gencert = tidegate();
    run(gencert
        .args(["gencert", "--name", "localhost", "--out-dir"])
        .arg(folder.path()));
    let file = at("htpasswd");
    htpasswd(&["add", &file.to_string_lossy(), "ann"], "sesame\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let peer = DockerRegistry::on(&at("registry"));
    let port = free_port();
    let config = format!(
        "daemon off; pid {0}/pid; error_log {0}/error.log;\nevents {{}}\nhttp {{\n\
         access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;\n\
         fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
         server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {0}/cert.pem;\n\
         ssl_certificate_key {0}/key.pem; auth_basic Registry; auth_basic_user_file {0}/htpasswd;\n\
         location / {{ proxy_pass http://{1}; }} }}\n}}\n",
        folder.path().display(),
        peer.address(),
    );
    fs::write(at("nginx.conf"), config).unwrap();
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(folder.path())
        .arg("-c")
        .arg(at("nginx.conf"));
    let mut nginx = Process::start(&mut command, &at("log"));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let client = Client::tls(address, "localhost", &at("cert.pem"));
    eventually("nginx to answer", || {
        assert!(nginx.exited().is_none(), "{}", nginx.log());
        client.request("GET", "/v2/").try_send().ok()
    })
    .expect(401);

    client.as_user("ann", "sesame").get("/v2/").expect(200);
    client.as_user("ann", "wrong").get("/v2/").expect(401);
}

#[test]
fn help_names_every_verb() {
    let help = run(tidegate().arg("--help"));
    for verb in [
        "up", "setup", "check", "certs", "gencert", "htpasswd", "edge", "registry",
    ] {
        assert!(
            help.contains(&format!("  {verb}")),
            "{verb} is not in\n{help}"
        );
        run(tidegate().args([verb, "--help"]));
    }
    let version = run(tidegate().arg("--version"));
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}
