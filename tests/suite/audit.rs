//! Who pulled what, who was kept out and why: what the access log answers, and no reply does.

use std::fs;

use serde_json::Value;

use crate::harness::{
    Output, PASSWORD, Response, Rig, Setup, USER, digest, eventually, image, push_image, tidegate,
    try_run,
};

/// Waits for the lines of the access log that hold all of `parts`.
fn lines(rig: &Rig, parts: &[&str]) -> Vec<String> {
    let parts: Vec<&str> = [&["access"], parts].concat();
    eventually(&format!("a line with {parts:?}"), || {
        let lines = rig.edge_lines(&parts);
        (!lines.is_empty()).then_some(lines)
    })
}

/// A rig whose log is JSON, with these tables besides.
fn in_json(tables: &str) -> Setup {
    Setup {
        tables: format!("[log]\nformat = \"json\"\n{tables}"),
        ..Setup::default()
    }
}

/// Waits for the only line that holds all of `parts`, and reads it.
fn line(rig: &Rig, parts: &[&str]) -> Value {
    let lines = lines(rig, parts);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    serde_json::from_str(&lines[0]).unwrap()
}

fn token(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = tidegate();
    command.arg("token").args(arguments);
    try_run(command.arg("--config").arg(rig.config()))
}

#[test]
fn who_pulled_what_is_found_by_the_name_of_the_repository() {
    let rig = Rig::start();
    let image = image(301, &[1000]);
    for name in ["team/app", "team/app2"] {
        push_image(&rig.client(), name, "1.2", &image);
    }
    rig.client()
        .request("GET", "/v2/team/app/manifests/1.2")
        .header("User-Agent", "docker/28.0.1 (linux)")
        .send()
        .expect(200);
    let found = lines(
        &rig,
        &["repository=team/app ", "method=\"GET\"", "reference=1.2 "],
    );
    assert_eq!(found.len(), 1, "{found:#?}");
    let served = format!(" digest={} ", digest(&image.manifest));
    for part in [
        "principal=\"docker\"",
        "host=\"localhost\"",
        served.as_str(),
        "user_agent=\"docker/28.0.1 (linux)\"",
    ] {
        assert!(found[0].contains(part), "no {part} in {}", found[0]);
    }
    let layer = format!("reference={} ", digest(&image.layers[0]));
    let pushed = format!("digest={} ", digest(&image.layers[0]));
    rig.client()
        .get(&format!("/v2/team/app/blobs/{}", digest(&image.layers[0])))
        .expect(200);
    lines(&rig, &["repository=team/app ", "method=\"GET\"", &layer]);
    lines(&rig, &["repository=team/app ", "status=201", &pushed]);
}

#[test]
fn what_was_refused_is_named_too() {
    let rig = in_json("").start();
    rig.anonymous().get("/v2/team/app/manifests/1").expect(401);
    let refused = line(&rig, &["/v2/team/app/manifests/1"]);
    assert_eq!(refused["repository"], "team/app");
    assert_eq!(refused["reference"], "1");
    let mut exchange = rig.client().connect().unwrap();
    let stray = b"GET /v2/stray/tags/list HTTP/1.1\r\nHost: Elsewhere.test:1234\r\n\r\n";
    exchange.write(stray).unwrap();
    let reply = exchange.reply().unwrap().expect_error(421, "UNSUPPORTED");
    let told = "no site of the name \"Elsewhere.test:1234\" is served here";
    assert_eq!(reply.json()["errors"][0]["message"], told);
    assert!(!reply.text().contains("registry.test"), "{}", reply.text());
    let stray = line(&rig, &["/v2/stray/tags/list"]);
    assert_eq!(stray["host"], "elsewhere.test");
    assert_eq!(stray["status"], 421);
    assert_eq!(stray["site"], Value::Null);
    let served = "no site of this host, but of localhost, 127.0.0.1, registry.test";
    assert_eq!(stray["because"], served);
}

#[test]
fn whatever_a_client_writes_is_a_bounded_part_of_one_line() {
    for format in ["text", "json"] {
        let rig = Setup {
            tables: format!("[log]\nformat = \"{format}\"\n"),
            ..Setup::default()
        }
        .start();
        let client = rig.client().as_user("x\nforged\u{9b}2J\u{202e}", "y");
        let long = "x".repeat(6000);
        client
            .request("GET", &format!("/v2/marked/{long}"))
            .header("User-Agent", &format!("a\tb\u{9b}2J\u{202e}{long}"))
            .send()
            .expect(401);
        let found = lines(&rig, &["/v2/marked/"]);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].len() < 2500,
            "{} bytes: {}",
            found[0].len(),
            found[0]
        );
        for part in ["forged", "unknown user", "…"] {
            assert!(found[0].contains(part), "no {part} in {}", found[0]);
        }
        let log = rig.edge_log();
        let escapes = |c: char| matches!(c, '\u{9b}' | '\u{202e}' | '\u{1b}' | '\t');
        assert!(!log.contains(escapes), "{log}");
        assert!(!log.lines().any(|line| line.starts_with("forged")), "{log}");
    }
}

/// What somebody can tell of a refusal.
fn told(reply: &Response) -> (u16, String, Vec<String>) {
    let challenges = reply.all("WWW-Authenticate").into_iter();
    let challenges = challenges.map(str::to_owned).collect();
    (reply.status, reply.text(), challenges)
}

#[test]
fn why_a_login_failed_is_in_the_log_and_in_no_reply() {
    let rig = in_json("[limits.logins]\nper_address = 0\nper_user = 0\n").start();
    let all = ["--repository", "**", "--action", "*"];
    let robot = |name: &str, more: &[&str]| {
        let made = token(&rig, &[&["create", name], &all[..], more].concat());
        assert!(made.success, "{made}");
        let secret = made.stdout.trim().to_owned();
        eventually("the robot to be known", || {
            let client = rig.anonymous().as_user(name, &secret);
            (client.get("/v2/").status == 200).then_some(())
        });
        secret
    };
    let (gone, ci) = (robot("gone", &[]), robot("ci", &[]));
    let short = robot("short", &["--expires", "2s"]);
    assert!(token(&rig, &["revoke", "gone"]).success);
    for (name, secret) in [("gone", &gone), ("short", &short)] {
        eventually("the robot to be out", || {
            let client = rig.anonymous().as_user(name, secret);
            (client.get("/v2/").status == 401).then_some(())
        });
    }
    let mut replies = Vec::new();
    for (case, (name, password, because)) in [
        (USER, "wrong", "wrong password"),
        ("nobody", "wrong", "unknown user"),
        ("gone", &gone, "revoked robot"),
        ("short", &short, "expired robot"),
        ("ci", &gone, "wrong robot secret"),
        ("ci", "typed by hand", "wrong robot secret"),
        ("never", &ci, "unknown robot"),
        (USER, &ci, "wrong password"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/v2/case{case}/tags/list");
        let reply = rig.anonymous().as_user(name, password).get(&path);
        replies.push(told(&reply));
        let found = line(&rig, &[&path]);
        assert_eq!(found["because"], because, "{found}");
        assert_eq!(found["login"], name, "{found}");
        assert_eq!(found["principal"], Value::Null, "{found}");
    }
    let [first, others @ ..] = replies.as_slice() else {
        panic!("there were some");
    };
    assert_eq!(first.0, 401);
    assert!(others.iter().all(|other| other == first), "{replies:#?}");
    let log = rig.edge_log();
    for secret in [gone, short, ci, "typed by hand".to_owned()] {
        assert!(!log.contains(&secret), "a secret is in the log");
    }
}

#[test]
fn the_names_of_failed_logins_can_be_left_out() {
    let rig = Setup {
        tables: "[log]\nlogin_names = false\n".to_owned(),
        ..Setup::default()
    }
    .start();
    let typed = "my password, in the wrong field";
    rig.anonymous().as_user(typed, "x").get("/v2/").expect(401);
    let found = lines(&rig, &["because=\"unknown user\""]);
    assert!(!rig.edge_log().contains(typed), "{found:#?}");
}

/// Alice may push to her team's repositories, but not to its archive, which is denied by the rule 2.
const RULES: &str = r#"
[[site.access.rule]]
repositories = ["public/**"]
who = ["anonymous"]
actions = ["pull"]
[[site.access.rule]]
repositories = ["team/archive"]
who = ["authenticated"]
actions = ["push"]
effect = "deny"
[[site.access.rule]]
repositories = ["team/**"]
who = ["authenticated"]
actions = ["pull", "push"]
"#;

#[test]
fn with_tokens_too_the_log_names_the_rule_that_denied() {
    let rig = Setup {
        auth: RULES.to_owned(),
        ..in_json("")
    }
    .start();
    let ask = |client: &crate::harness::Client, scopes: &str| {
        let reply = client.get(&format!("/auth/token?{scopes}"));
        let reply = reply.expect(200).json();
        rig.anonymous().as_bearer(reply["token"].as_str().unwrap())
    };
    let scopes = "scope=repository:team/archive:pull,push&scope=repository:elsewhere:pull";
    let bearer = ask(&rig.client(), scopes);
    let asked = line(&rig, &["\"path\":\"/auth/token\""]);
    assert_eq!(
        asked["denied"],
        "push team/archive by site[0].access.rule[1], pull elsewhere by site[0].access: no rule"
    );
    assert_eq!(asked["status"], 200);
    for (path, because) in [
        ("/v2/team/archive/blobs/uploads/", "site[0].access.rule[1]"),
        ("/v2/elsewhere/blobs/uploads/", "site[0].access: no rule"),
    ] {
        bearer.post(path).expect_error(403, "DENIED");
        assert_eq!(line(&rig, &[path])["because"], because);
    }
    // The rules would let it: another token is what it needs.
    let other = "/v2/team/other/blobs/uploads/";
    bearer.post(other).expect_error(401, "UNAUTHORIZED");
    assert_eq!(line(&rig, &[other])["because"], "not granted to this token");
    let nobody = ask(&rig.anonymous(), "scope=repository:team/app:pull");
    nobody.get("/v2/team/app/manifests/1").expect(401);
    let found = line(&rig, &["/v2/team/app/manifests/1"]);
    assert_eq!(found["because"], "site[0].access: no rule");
}

#[test]
fn a_token_whose_password_was_changed_is_named_in_the_log() {
    let rig = Setup {
        auth: RULES.to_owned(),
        ..in_json("")
    }
    .start();
    let reply = rig.client().get("/auth/token").expect(200).json();
    let bearer = rig.anonymous().as_bearer(reply["token"].as_str().unwrap());
    bearer.get("/v2/").expect(200);
    let hashed = bcrypt::hash("another one", 4).unwrap();
    fs::write(rig.path("htpasswd"), format!("{USER}:{hashed}\n")).unwrap();
    eventually("the token to be refused", || {
        (bearer.get("/v2/").status == 401).then_some(())
    });
    bearer.get("/v2/late/tags/list").expect(401);
    let found = line(&rig, &["/v2/late/tags/list"]);
    assert_eq!(found["because"], "token of credentials that hold no more");
    assert_eq!(found["login"], USER);
    let wrong = rig.anonymous().as_user(USER, PASSWORD);
    wrong.get("/auth/token").expect(401);
    let found = line(&rig, &["\"path\":\"/auth/token\"", "wrong password"]);
    assert_eq!(found["login"], USER);
}
