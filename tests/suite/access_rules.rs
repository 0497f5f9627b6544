//! Address lists and rules through the real edge and registry: who may do what, what the list of
//! repositories shows, where a blob may be mounted from, and what is told about a refusal.

use std::fs;

use crate::harness::*;

/// Users `docker` (who may do anything), `alice` and `bob`, all with the rig's password.
fn setup(rules: &str) -> Setup {
    let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
    let htpasswd = [USER, "alice", "bob"].map(|name| format!("{name}:{hashed}\n"));
    Setup {
        htpasswd: Some(htpasswd.concat()),
        auth: format!(
            r#"
[[site.access.rule]]
who = ["{USER}"]
actions = ["*"]
{rules}"#
        ),
        ..Setup::default()
    }
}

const TEAM: &str = r#"
[[site.access.rule]]
repositories = ["team/secret/**"]
who = ["alice"]
actions = ["*"]
effect = "deny"
[[site.access.rule]]
repositories = ["team/**"]
who = ["alice"]
actions = ["pull", "push", "catalog"]
[[site.access.rule]]
repositories = ["home/${user}/**"]
who = ["authenticated"]
actions = ["*"]
[[site.access.rule]]
repositories = ["public/**"]
who = ["anonymous"]
actions = ["pull"]
"#;

fn status(client: &Client, method: &str, path: &str) -> u16 {
    client.request(method, path).send().status
}

fn code(client: &Client, method: &str, path: &str) -> String {
    let reply = client.request(method, path).send();
    let body = String::from_utf8_lossy(&reply.body);
    let code = body.split("\"code\":\"").nth(1).unwrap_or_default();
    let code = code.split('"').next().unwrap_or_default();
    format!("{} {code}", reply.status)
}

#[test]
fn each_may_do_what_a_rule_allows_and_nothing_else() {
    let rig = setup(TEAM).start();
    for repository in ["team/app", "team/secret/app", "home/bob/app", "public/app"] {
        push_image(&rig.client(), repository, "v1", &image(7, &[100]));
    }
    let alice = rig.anonymous().as_user("alice", PASSWORD);
    let bob = rig.anonymous().as_user("bob", PASSWORD);
    let nobody = rig.anonymous();
    let manifest = |repository: &str| format!("/v2/{repository}/manifests/v1");
    for (client, method, path, expected) in [
        (&alice, "GET", manifest("team/app"), "200 "),
        (
            &alice,
            "POST",
            "/v2/team/app/blobs/uploads/".to_owned(),
            "202 ",
        ),
        (&alice, "DELETE", manifest("team/app"), "403 DENIED"),
        (&alice, "GET", manifest("team/secret/app"), "403 DENIED"),
        (&alice, "GET", manifest("home/bob/app"), "403 DENIED"),
        (&alice, "GET", manifest("public/app"), "200 "),
        (&alice, "GET", manifest("no/such/repository"), "403 DENIED"),
        (&bob, "GET", manifest("team/app"), "403 DENIED"),
        (&bob, "GET", manifest("home/bob/app"), "200 "),
        (&bob, "DELETE", manifest("home/bob/app"), "202 "),
        (&bob, "GET", "/v2/_catalog".to_owned(), "200 "),
        (&nobody, "GET", manifest("public/app"), "200 "),
        (&nobody, "PUT", manifest("public/app"), "401 UNAUTHORIZED"),
        (&nobody, "GET", manifest("team/app"), "401 UNAUTHORIZED"),
        (
            &nobody,
            "GET",
            "/v2/_catalog".to_owned(),
            "401 UNAUTHORIZED",
        ),
        (&nobody, "GET", "/v2/".to_owned(), "401 UNAUTHORIZED"),
        (&alice, "GET", "/v2/".to_owned(), "200 "),
    ] {
        let found = code(client, method, &path);
        assert!(found.starts_with(expected), "{method} {path}: {found}");
    }
    let wrong = rig.anonymous().as_user("alice", "wrong");
    assert_eq!(
        status(&wrong, "GET", &manifest("public/app")),
        401,
        "wrong is not nobody"
    );
}

#[test]
fn every_refusal_is_in_the_log_with_its_rule_and_not_in_the_reply() {
    let rig = setup(TEAM).start();
    let alice = rig.anonymous().as_user("alice", PASSWORD);
    let reply = alice
        .request("GET", "/v2/team/secret/app/manifests/v1")
        .send();
    assert!(!String::from_utf8_lossy(&reply.body).contains("rule"));
    status(&alice, "GET", "/v2/other/manifests/v1");
    status(&rig.anonymous(), "GET", "/v2/team/app/manifests/v1");
    status(&rig.anonymous().as_user("eve", "x"), "GET", "/v2/");
    for (path, because) in [
        ("/v2/team/secret/app/manifests/v1", "site[0].access.rule[1]"),
        ("/v2/other/manifests/v1", "site[0].access: no rule"),
        ("/v2/team/app/manifests/v1", "site[0].access: no rule"),
        ("/v2/", "unknown user"),
    ] {
        eventually(&format!("{path} with {because} in the log"), || {
            let log = rig.edge_log();
            let mut lines = log.lines();
            lines
                .any(|line| line.contains(path) && line.contains(because))
                .then_some(())
        });
    }
}

#[test]
fn a_blob_is_mounted_from_where_one_may_pull_and_uploaded_otherwise() {
    let rig = setup(TEAM).start();
    let secret = push_blob(&rig.client(), "team/secret/app", b"secret");
    let open = push_blob(&rig.client(), "public/app", b"open");
    let alice = rig.anonymous().as_user("alice", PASSWORD);
    for (query, expected) in [
        (format!("mount={open}&from=public/app"), 201),
        (format!("mount={secret}&from=team/secret/app"), 202),
        (format!("mount={secret}&from=team%2Fsecret%2Fapp"), 202),
        (format!("mount={secret}"), 202),
        (format!("m%6Funt={secret}&fr%6fm=team/secret/app"), 202),
        (
            format!("mount={secret}&from=team/secret/app&from=public/app"),
            202,
        ),
    ] {
        let path = format!("/v2/team/app/blobs/uploads/?{query}");
        assert_eq!(status(&alice, "POST", &path), expected, "{query}");
        let blob = format!("/v2/team/app/blobs/{secret}");
        assert_eq!(status(&alice, "GET", &blob), 404, "{query}");
    }
    let path = format!("/v2/team/app/blobs/uploads/?mount={secret}&from=team/secret/app");
    assert_eq!(status(&rig.client(), "POST", &path), 201);
}

#[test]
fn cancelling_an_upload_needs_no_more_than_push() {
    let rig = setup(TEAM).start();
    let alice = rig.anonymous().as_user("alice", PASSWORD);
    let begun = alice.request("POST", "/v2/team/app/blobs/uploads/").send();
    let location = begun.header("location").unwrap().to_owned();
    let path = location.split('?').next().unwrap().to_owned();
    assert_eq!(status(&alice, "DELETE", &path), 204);
}

#[test]
fn the_catalog_shows_what_may_be_pulled_in_full_pages() {
    let rig = setup(TEAM).start();
    let client = rig.client();
    for repository in [
        "a/x",
        "home/alice/x",
        "home/bob/x",
        "public/x",
        "public/y",
        "team/a",
        "team/secret/a",
        "team/z",
    ] {
        push_image(&client, repository, "v1", &image(7, &[100]));
    }
    let alice = rig.anonymous().as_user("alice", PASSWORD);
    let mut path = "/v2/_catalog?n=2".to_owned();
    let mut pages = Vec::new();
    loop {
        let reply = alice.request("GET", &path).send();
        assert_eq!(reply.status, 200);
        pages.push(String::from_utf8(reply.body.clone()).unwrap());
        let Some(link) = reply.header("link") else {
            break;
        };
        path = link.split(['<', '>']).nth(1).unwrap().to_owned();
    }
    assert_eq!(
        pages,
        [
            r#"{"repositories":["home/alice/x","public/x"]}"#,
            r#"{"repositories":["public/y","team/a"]}"#,
            r#"{"repositories":["team/z"]}"#,
        ]
    );
    // Nobody else's word counts.
    let reply = alice.request("GET", "/v2/_catalog");
    let reply = reply.header("X-Tidegate-Catalog", "+**").send();
    assert!(!String::from_utf8_lossy(&reply.body).contains("secret"));
}

#[test]
fn address_and_password_are_both_needed_or_either() {
    let lists = |satisfy: &str, allow: &str| Setup {
        auth: format!("[site.access]\nallow_from = [\"{allow}\"]\nsatisfy = \"{satisfy}\"\n"),
        ..Setup::default()
    };
    for (satisfy, allow, anonymous, user) in [
        ("all", "127.0.0.0/8", 401, 200),
        ("any", "127.0.0.0/8", 200, 200),
        ("any", "10.0.0.0/8", 401, 200),
    ] {
        let rig = lists(satisfy, allow).start();
        let found = (
            status(&rig.anonymous(), "GET", "/v2/"),
            status(&rig.client(), "GET", "/v2/"),
        );
        assert_eq!(found, (anonymous, user), "{satisfy} {allow}");
        assert_eq!(
            status(&rig.anonymous().as_user("x", "y"), "GET", "/v2/"),
            401
        );
    }
    let mut rig = lists("all", "10.0.0.0/8").prepare();
    rig.start_registry();
    rig.start_edge();
    eventually("the edge to refuse", || {
        let reply = rig.client().request("GET", "/v2/").try_send().ok()?;
        (reply.status == 403).then_some(())
    });
    // The answer to a challenge stays reachable: the plain listener asks no site's list.
    let reply = rig
        .plain()
        .request("GET", "/.well-known/acme-challenge/x")
        .send();
    assert_ne!(reply.status, 403);
}

#[test]
fn the_client_of_a_trusted_proxy_is_the_one_whose_address_counts() {
    let rig = Setup {
        top: "trusted_proxies = [\"127.0.0.1\"]".to_owned(),
        auth: "[site.access]\ndeny_from = [\"192.0.2.0/24\"]\n".to_owned(),
        ..Setup::default()
    }
    .start();
    for (hops, expected) in [
        ("192.0.2.1", 403),
        ("198.51.100.1", 200),
        ("192.0.2.1, 198.51.100.1", 200),
        ("198.51.100.1, 192.0.2.1", 403),
        ("::ffff:192.0.2.1", 403),
    ] {
        let client = rig.client();
        let reply = client.request("GET", "/v2/");
        let reply = reply.header("X-Forwarded-For", hops).send();
        assert_eq!(reply.status, expected, "{hops}");
    }
    let rig = Setup {
        auth: "[site.access]\ndeny_from = [\"192.0.2.0/24\"]\n".to_owned(),
        ..Setup::default()
    }
    .start();
    let client = rig.client();
    let reply = client.request("GET", "/v2/");
    assert_eq!(
        reply.header("X-Forwarded-For", "192.0.2.1").send().status,
        200
    );
}

#[test]
fn a_group_file_is_picked_up_when_it_changes() {
    let rig = setup(
        r#"[[site.access.rule]]
who = ["@dev"]
actions = ["pull"]
"#,
    );
    let rig = Setup {
        auth: format!("group_file = \"groups\"\n{}", rig.auth),
        ..rig
    };
    let mut started = rig.prepare();
    fs::write(started.path("groups"), "dev: alice\n").unwrap();
    started.start_registry();
    started.start_edge();
    started.wait_until_ready();
    let ask = |name: &str| {
        let client = started.anonymous().as_user(name, PASSWORD);
        status(&client, "GET", "/v2/app/tags/list")
    };
    assert_eq!((ask("alice"), ask("bob")), (404, 403));
    fs::write(started.path("groups"), "dev: bob\n").unwrap();
    eventually("bob to be let in and alice not", || {
        ((ask("alice"), ask("bob")) == (403, 404)).then_some(())
    });
}

#[test]
fn explain_says_what_the_edge_would_do_and_which_rule_says_so() {
    let rig = setup(TEAM).prepare();
    for (arguments, expected, code) in [
        (
            "--user alice --action push --repository team/app",
            "allowed by site[0].access.rule[2]",
            0,
        ),
        (
            "--user alice --action pull --repository team/secret/x",
            "denied by site[0].access.rule[1]",
            1,
        ),
        (
            "--action pull --repository public/x",
            "allowed by site[0].access.rule[4]",
            0,
        ),
        (
            "--action push --repository public/x",
            "denied by site[0].access: no rule (would be asked to log in)",
            1,
        ),
        (
            "--user alice --action catalog --site localhost",
            "allowed by site[0].access.rule[2]",
            0,
        ),
        (
            "--certificate alice --action push --repository team/app",
            "denied by site[0].access: no rule",
            1,
        ),
        (
            "--user alice --action push",
            "push is an action in a repository: say which one",
            1,
        ),
        (
            "--user alice --action fly --repository a",
            "\"fly\" is not a valid action",
            1,
        ),
        (
            "--user alice --action pull --repository a --site nowhere.test",
            "no site",
            1,
        ),
    ] {
        let mut command = tidegate();
        command
            .args(["access", "explain", "--config"])
            .arg(rig.config());
        let output = try_run(command.args(arguments.split(' ')));
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains(expected), "{arguments}: {output}");
        assert_eq!(output.code, Some(code), "{arguments}: {output}");
    }
    let mut command = tidegate();
    command
        .args(["access", "explain", "--config"])
        .arg(rig.config());
    let output = try_run(command.args(["--user", "eve", "--action", "catalog"]));
    assert!(
        output.stderr.contains("there is no user \"eve\""),
        "{output}"
    );
}
