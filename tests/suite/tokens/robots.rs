//! Robots: made, used, listed and revoked while the edge runs.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use super::{cli, post, public, second_site};
use crate::harness::{PASSWORD, Rig, Setup, USER, eventually, image, pause, push_image};

/// Makes a robot, and returns its secret once the edge knows it.
fn robot(rig: &Rig, name: &str, arguments: &[&str]) -> String {
    let made = cli(rig, &[&["create", name], arguments].concat());
    assert!(made.success, "{made}");
    let secret = made.stdout.trim().to_owned();
    assert!(!made.stderr.contains(&secret), "{made}");
    secret
}

fn known(rig: &Rig, name: &str, secret: &str) {
    let client = rig.anonymous().as_user(name, secret);
    eventually("the robot to be known", || {
        (client.get("/v2/").status == 200).then_some(())
    });
}

#[test]
fn a_robot_does_what_it_was_made_for_and_nothing_else() {
    for setup in [Setup::default(), public()] {
        let rig = setup.start();
        let image = image(91, &[1000]);
        push_image(&rig.client(), "other/app", "v1", &image);
        let bounds = ["--repository", "team/**", "--action", "pull,push"];
        let secret = robot(&rig, "ci", &bounds);
        assert!(secret.starts_with("tgt_") && secret.len() == 76, "{secret}");
        known(&rig, "ci", &secret);
        let ci = rig.anonymous().as_user("ci", &secret);
        push_image(&ci, "team/app", "v1", &image);
        ci.get("/v2/team/app/manifests/v1").expect(200);
        ci.delete("/v2/team/app/manifests/v1")
            .expect_error(403, "DENIED");
        ci.get("/v2/other/app/manifests/v1")
            .expect_error(403, "DENIED");
        ci.post("/v2/other/app/blobs/uploads/").expect(403);
        ci.get("/v2/_catalog").expect(403);
        for (name, password) in [
            ("ci", "wrong"),
            ("ci", &secret[..75]),
            (USER, &secret),
            ("robot:ci", &secret),
            ("", &secret),
        ] {
            let reply = rig.anonymous().as_user(name, password).get("/v2/");
            reply.expect_error(401, "UNAUTHORIZED");
        }
        // Its name is nobody else's, in the log and for the registry.
        assert!(rig.edge_log().contains("principal=\"robot:ci\""));
        assert!(!rig.edge_log().contains(&secret));
        for file in crate::harness::files_below(&rig.path("state")) {
            let text = fs::read(&file).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains(&secret));
        }
    }
}

#[test]
fn a_robots_tokens_are_as_narrow_as_it_is_and_die_with_it() {
    let rig = public().start();
    let secret = robot(&rig, "ci", &["--repository", "team/**", "--action", "pull"]);
    known(&rig, "ci", &secret);
    let ci = rig.anonymous().as_user("ci", &secret);
    let asked = "/auth/token?offline_token=true&scope=repository:team/app:pull,push\
                 &scope=repository:other/app:pull";
    let reply = ci.get(asked).expect(200).json();
    let bearer = rig.anonymous().as_bearer(reply["token"].as_str().unwrap());
    bearer.get("/v2/").expect(200);
    bearer.get("/v2/team/app/tags/list").expect(404);
    bearer.post("/v2/team/app/blobs/uploads/").expect(403);
    // Another token would do, so it is told which.
    let reply_narrow = bearer.get("/v2/team/other/tags/list").expect(401);
    let challenge = reply_narrow.header("WWW-Authenticate").unwrap().to_owned();
    assert!(
        challenge.contains("repository:team/other:pull"),
        "{challenge}"
    );
    let form = format!(
        "grant_type=refresh_token&refresh_token={}",
        reply["refresh_token"].as_str().unwrap()
    );
    let renew = || post(&rig.anonymous(), &form);
    renew().expect(200);

    let revoked = cli(&rig, &["revoke", "ci"]);
    assert!(revoked.success, "{revoked}");
    eventually("the robot to be refused", || {
        (ci.get("/v2/").status == 401).then_some(())
    });
    bearer.get("/v2/").expect_error(401, "UNAUTHORIZED");
    renew().expect(401);
    let again = cli(&rig, &["revoke", "ci"]);
    assert_eq!(again.code, Some(1), "{again}");
    // One of the same name is another one.
    let second = robot(&rig, "ci", &["--repository", "**", "--action", "*"]);
    known(&rig, "ci", &second);
    ci.get("/v2/").expect(401);
    bearer.get("/v2/").expect(401);
    renew().expect(401);
}

#[test]
fn a_robot_ends_with_its_time() {
    let rig = Rig::start();
    let bounds = ["--repository", "**", "--action", "*", "--expires", "3s"];
    let secret = robot(&rig, "short", &bounds);
    known(&rig, "short", &secret);
    let client = rig.anonymous().as_user("short", &secret);
    eventually("its time to be over", || {
        pause(std::time::Duration::from_millis(100));
        (client.get("/v2/").status == 401).then_some(())
    });
    let listed = cli(&rig, &["list"]);
    assert!(listed.stdout.contains(", over\n"), "{listed}");
}

#[test]
fn a_robot_may_be_of_one_site() {
    let rig = Setup {
        tables: second_site(""),
        ..Setup::default()
    }
    .start();
    let here = ["--repository", "**", "--action", "*", "--site", "localhost"];
    let secret = robot(&rig, "here", &here);
    known(&rig, "here", &secret);
    let client = rig.anonymous().as_user("here", &secret);
    client.get("/v2/").expect(200);
    client.for_host("registry.test").get("/v2/").expect(200);
    let elsewhere = [
        "create",
        "x",
        "--repository",
        "**",
        "--action",
        "*",
        "--site",
        "none.test",
    ];
    let refused = cli(&rig, &elsewhere);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("none.test"), "{refused}");
    let there = [
        "--repository",
        "**",
        "--action",
        "*",
        "--site",
        "second.test",
    ];
    let secret = robot(&rig, "there", &there);
    let everywhere = robot(&rig, "everywhere", &here[..4]);
    known(&rig, "everywhere", &everywhere);
    rig.anonymous()
        .as_user("there", &secret)
        .get("/v2/")
        .expect(401);
}

#[test]
fn robots_are_listed_with_their_last_use_and_without_their_secret() {
    let rig = Rig::start();
    let secret = robot(
        &rig,
        "ci",
        &[
            "--repository",
            "a/**",
            "--repository",
            "b",
            "--action",
            "pull,push",
            "--expires",
            "never",
            "--description",
            "the build",
        ],
    );
    robot(&rig, "idle", &["--repository", "**", "--action", "*"]);
    let list = || {
        let listed = cli(&rig, &["list", "--json"]);
        assert!(
            listed.success && !listed.stdout.contains("tgt_"),
            "{listed}"
        );
        serde_json::from_str::<Value>(&listed.stdout).unwrap()
    };
    assert_eq!(list()[0]["last_used"], Value::Null);
    known(&rig, "ci", &secret);
    let listed = eventually("the use to be written down", || {
        let listed = list();
        listed[0]["last_used"].is_string().then_some(listed)
    });
    assert_eq!(listed[0]["name"], "ci");
    assert_eq!(listed[0]["repositories"], serde_json::json!(["a/**", "b"]));
    assert_eq!(listed[0]["actions"], serde_json::json!(["pull", "push"]));
    assert_eq!(listed[0]["description"], "the build");
    assert_eq!(listed[0]["expires"], Value::Null);
    assert_eq!(listed[1]["name"], "idle");
    assert!(listed[1]["expires"].is_string());
    assert_eq!(listed[1]["last_used"], Value::Null);
    let text = cli(&rig, &["list"]).stdout;
    assert!(
        text.contains("ci\n  may        pull, push in a/**, b\n"),
        "{text}"
    );
}

#[test]
fn what_could_be_no_robot_is_refused_and_nothing_is_written() {
    let rig = Rig::start();
    for (arguments, code) in [
        (
            &["create", "../x", "--repository", "a", "--action", "pull"][..],
            1,
        ),
        (&["create", "x", "--repository", "A", "--action", "pull"], 1),
        (
            &["create", "x", "--repository", "${user}", "--action", "pull"],
            1,
        ),
        (&["create", "x", "--repository", "a", "--action", "fly"], 1),
        (&["create", "x", "--repository", "a"], 2),
        (&["create", "x", "--action", "pull"], 2),
        (
            &[
                "create",
                "x",
                "--repository",
                "a",
                "--action",
                "pull",
                "--expires",
                "soon",
            ],
            2,
        ),
        (&["revoke", "../../htpasswd"], 1),
    ] {
        let refused = cli(&rig, arguments);
        assert_eq!(refused.code, Some(code), "{arguments:?}: {refused}");
        assert!(refused.stdout.is_empty(), "{refused}");
    }
    assert!(!rig.path("state").exists());
    // A config that is broken elsewhere is no reason to leave a robot alone.
    let secret = robot(&rig, "ci", &["--repository", "**", "--action", "*"]);
    known(&rig, "ci", &secret);
    let twice = cli(
        &rig,
        &["create", "ci", "--repository", "**", "--action", "*"],
    );
    assert!(twice.stderr.contains("revoke it first"), "{twice}");
    let text = fs::read_to_string(rig.config()).unwrap();
    fs::write(rig.config(), text.replace("upstream =", "upstrem =")).unwrap();
    assert!(cli(&rig, &["revoke", "ci"]).success);
    eventually("the robot to be refused", || {
        let client = rig.anonymous().as_user("ci", &secret);
        (client.get("/v2/").status == 401).then_some(())
    });
    rig.anonymous()
        .as_user(USER, PASSWORD)
        .get("/v2/")
        .expect(200);
}

#[test]
fn what_root_makes_belongs_to_the_edge() {
    if !rustix::process::getuid().is_root() {
        crate::harness::skip("only root can make files for another user");
        return;
    }
    let rig = Setup::default().prepare();
    let state = rig.path("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(12345), Some(12346)).unwrap();
    robot(&rig, "ci", &["--repository", "**", "--action", "*"]);
    for path in ["tokens", "tokens/robots", "tokens/robots/ci.json"] {
        let found = fs::metadata(state.join(path)).unwrap();
        assert_eq!((found.uid(), found.gid()), (12345, 12346), "{path}");
        assert_eq!(found.mode() & 0o077, 0, "{path}");
    }
}
