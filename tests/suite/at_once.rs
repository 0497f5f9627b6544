//! What a command has changed counts when it returns.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Output, Rig, Setup, USER, tidegate, try_run};

/// Runs `tidegate htpasswd` on the rig's users; `password` is the answer to its question.
fn htpasswd(rig: &Rig, verb: &str, user: &str, password: &str) {
    use std::io::Write as _;
    let mut child = tidegate()
        .args(["htpasswd", verb])
        .arg(rig.path("htpasswd"))
        .arg(user)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It does not read what it does not need.
    stdin.write_all(password.as_bytes()).ok();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

fn token(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command: Command = tidegate();
    command.arg("token").args(arguments);
    try_run(command.arg("--config").arg(rig.config()))
}

#[test]
fn users_come_in_and_are_out_when_the_command_returns() {
    let rig = Rig::start();
    for turn in 0..5 {
        let (user, password) = (format!("ann{turn}"), format!("first {turn}"));
        let ann = rig.anonymous().as_user(&user, &password);
        // That it failed before is held against nobody.
        ann.get("/v2/").expect(401);
        htpasswd(&rig, "add", &user, &password);
        ann.get("/v2/").expect(200);
        htpasswd(&rig, "add", &user, "second");
        ann.get("/v2/").expect(401);
        rig.anonymous()
            .as_user(&user, "second")
            .get("/v2/")
            .expect(200);
        htpasswd(&rig, "remove", &user, "");
        rig.anonymous()
            .as_user(&user, "second")
            .get("/v2/")
            .expect(401);
    }
    rig.client().get("/v2/").expect(200);
}

#[test]
fn robots_come_in_and_are_out_when_the_command_returns() {
    let rig = Rig::start();
    for turn in 0..5 {
        let name = format!("ci{turn}");
        let bounds = ["--repository", "**", "--action", "*"];
        let made = token(&rig, &[&["create", &name], &bounds[..]].concat());
        assert!(made.success, "{made}");
        let ci = rig.anonymous().as_user(&name, made.stdout.trim());
        ci.get("/v2/").expect(200);
        assert!(token(&rig, &["revoke", &name]).success);
        ci.get("/v2/").expect(401);
    }
}

#[test]
fn without_an_edge_that_runs_nobody_is_waited_for_and_nothing_is_said() {
    let rig = Setup::default().prepare();
    // Of a new one there is something to be said to root.
    fs::create_dir(rig.path("state")).unwrap();
    let begin = Instant::now();
    let bounds = ["--repository", "**", "--action", "*"];
    let made = token(&rig, &[&["create", "ci"], &bounds[..]].concat());
    assert!(made.success, "{made}");
    assert_eq!(made.stderr.lines().count(), 1, "{made}");
    let revoked = token(&rig, &["revoke", "ci"]);
    assert!(revoked.success && revoked.stderr.is_empty(), "{revoked}");
    let mut remove = tidegate();
    remove
        .args(["htpasswd", "remove"])
        .arg(rig.path("htpasswd"));
    let removed = try_run(remove.arg(USER));
    assert!(removed.success && removed.stderr.is_empty(), "{removed}");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
}
