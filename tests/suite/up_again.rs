//! `tidegate up` in a folder that is there already, and what was changed in it meanwhile.

use std::fs;
use std::net::{Ipv6Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{run, skip, tidegate, try_run};
use crate::up::Up;

/// Gives a user of the folder another password, as it is typed or at random.
fn new_password(up: &Up, user: &str, typed: Option<&str>) {
    use std::io::Write as _;
    let mut command = tidegate();
    command.args(["htpasswd", "add"]);
    if typed.is_none() {
        command.arg("--random");
    }
    let mut child = command
        .arg(up.dir().join("auth/htpasswd"))
        .arg(user)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(typed.unwrap_or_default().as_bytes()).ok();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

fn password(up: &Up) -> Option<String> {
    fs::read_to_string(up.dir().join("auth/password")).ok()
}

#[test]
fn the_password_that_is_kept_is_true_or_gone() {
    let mut up = Up::new();
    run(&mut up.command("setup"));
    let first = password(&up).unwrap();
    // Another user's is no matter of this file.
    new_password(&up, "eve", Some("something"));
    assert_eq!(password(&up), Some(first.clone()));
    new_password(&up, "docker", None);
    let second = password(&up).unwrap();
    assert_ne!(second, first);
    let banner = up.start();
    assert!(banner.contains("--password-stdin < "), "{banner}");
    up.client().get("/v2/").expect(200);
    up.process().terminate();

    new_password(&up, "docker", Some("typed by hand"));
    assert_eq!(password(&up), None);
    let banner = up.start();
    assert!(!banner.contains("--password-stdin"), "{banner}");
    assert!(banner.contains("password  as it was set"), "{banner}");
}

#[test]
fn a_removed_user_takes_the_password_along() {
    let up = Up::new();
    run(&mut up.command("setup"));
    let mut remove = tidegate();
    remove.args(["htpasswd", "remove"]);
    run(remove.arg(up.dir().join("auth/htpasswd")).arg("docker"));
    assert_eq!(password(&up), None);
}

/// What is in the folder, to see that nothing has changed.
fn texts(up: &Up) -> Vec<Vec<u8>> {
    let files = [
        "edge.toml",
        "auth/htpasswd",
        "auth/password",
        "tls/cert.pem",
    ];
    files
        .map(|name| fs::read(up.dir().join(name)).unwrap())
        .into()
}

fn bare(up: &Up, verb: &str) -> Command {
    let mut command = tidegate();
    command.arg(verb).arg("--dir").arg(up.dir());
    command
}

#[test]
fn flags_that_an_existing_folder_would_ignore_stop_it() {
    let up = Up::new();
    run(&mut up.command("setup"));
    let before = texts(&up);
    for (flags, said) in [
        (
            &["--https", "0.0.0.0:1"][..],
            "--https 0.0.0.0:1: edit listener[",
        ),
        (
            &["--http", "0.0.0.0:2"],
            "--http 0.0.0.0:2: edit listener[0].address",
        ),
        (&["--name", "registry.lan"], "add it to site[0].hosts"),
        (&["--ip", "192.0.2.7"], "add it to site[0].hosts"),
        (
            &["--username", "ann"],
            "ann cannot log in as given: tidegate htpasswd add",
        ),
    ] {
        for verb in ["setup", "up"] {
            let refused = try_run(bare(&up, verb).args(flags));
            assert_eq!(refused.code, Some(1), "{flags:?}: {refused}");
            assert!(refused.stderr.contains(said), "{flags:?}: {refused}");
        }
    }
    let given = try_run(bare(&up, "setup").env("TIDEGATE_PASSWORD", "another"));
    assert_eq!(given.code, Some(1), "{given}");
    assert!(!given.stderr.contains("another"), "{given}");
    assert!(before == texts(&up));
    // What it says anyway may be said.
    let mut same = up.command("setup");
    same.args(["--name", "localhost", "--ip", "127.0.0.1", "--ip", "::1"]);
    same.args(["--username", "docker"]);
    let password = up.password();
    run(same.env("TIDEGATE_PASSWORD", password.trim()));
    assert!(before == texts(&up));
}

#[test]
fn localhost_is_both_of_its_addresses() {
    if !Path::new("/proc/net/if_inet6").exists() {
        skip("there is no IPv6 here");
        return;
    }
    let mut up = Up::new();
    up.start();
    for port in [up.https.port(), up.http.port()] {
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
    }
}
