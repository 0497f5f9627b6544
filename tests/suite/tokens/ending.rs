//! What tokens outlive and what ends them; what is kept of them.

use std::fs;

use serde_json::Value;

use super::{access, ask, cli, part, post, public, text, token_of};
use crate::harness::{PASSWORD, Rig, Setup, USER, eventually, files_below, tidegate, try_run};

#[test]
fn a_refresh_token_survives_a_restart_and_dies_with_the_password() {
    let mut rig = public().start();
    let login = ask(&rig.client(), "offline_token=true&client_id=docker").expect(200);
    let refresh = text(&login.json(), "refresh_token");
    assert!(refresh.starts_with("tgr_"), "{refresh}");
    let renew = |rig: &Rig| {
        post(
            &rig.anonymous(),
            &format!(
                "grant_type=refresh_token&refresh_token={refresh}&service=localhost\
                 &client_id=docker&scope=repository:team/app:push"
            ),
        )
    };
    let renewed = renew(&rig).expect(200).json();
    assert_eq!(text(&renewed, "refresh_token"), refresh);
    let token = text(&renewed, "token");
    assert_eq!(access(&token), ["repository team/app push"]);

    rig.crash_edge();
    rig.anonymous().as_bearer(&token).get("/v2/").expect(200);
    let token = token_of(renew(&rig));
    let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
    // The same password under a new salt is a new one.
    fs::write(rig.path("htpasswd"), format!("{USER}:{hashed}\n")).unwrap();
    eventually("the refresh token to be refused", || {
        (renew(&rig).status == 401).then_some(())
    });
    rig.anonymous().as_bearer(&token).get("/v2/").expect(401);
    for file in files_below(&rig.path("state")) {
        let text = fs::read(&file).unwrap();
        assert!(
            !String::from_utf8_lossy(&text).contains(&refresh),
            "{file:?}"
        );
    }
    assert!(!rig.edge_log().contains(&refresh));
}

#[test]
fn sessions_are_listed_and_ended_by_the_command_line() {
    let rig = public().start();
    let login = |client: &str| {
        let query = format!("offline_token=true&client_id={client}");
        text(
            &ask(&rig.client(), &query).expect(200).json(),
            "refresh_token",
        )
    };
    let (first, second) = (login("docker"), login("podman"));
    let renew = |token: &str| {
        let form = format!("grant_type=refresh_token&refresh_token={token}");
        post(&rig.anonymous(), &form).status
    };
    assert_eq!((renew(&first), renew(&second)), (200, 200));
    let listed = cli(&rig, &["sessions", "--json"]).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2);
    let own = listed.iter().find(|one| one["client"] == "docker").unwrap();
    assert_eq!(
        (&own["user"], &own["address"]),
        (&USER.into(), &"127.0.0.1".into())
    );
    assert!(!own.to_string().contains("tgr_"));
    let id = text(own, "id");
    assert!(cli(&rig, &["end-sessions", &id]).success);
    eventually("the session to end", || {
        (renew(&first) == 401).then_some(())
    });
    assert_eq!(renew(&second), 200);
    assert_eq!(cli(&rig, &["end-sessions", &id]).code, Some(1));
    assert!(cli(&rig, &["end-sessions", "--user", USER]).success);
    eventually("the other to end", || (renew(&second) == 401).then_some(()));
    assert!(cli(&rig, &["sessions"]).stdout.is_empty());
}

#[test]
fn keys_take_turns_and_removing_them_ends_every_token() {
    let mut rig = public().start();
    let first = token_of(ask(&rig.client(), ""));
    let kids = |rig: &Rig| {
        let keys = rig.anonymous().get("/.well-known/jwks.json").json();
        keys["keys"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(kids(&rig), 1);
    // A key of three months ago, and its successor.
    let folder = rig.path("state/tokens/keys");
    let name = |rig: &Rig| {
        let files = files_below(&rig.path("state/tokens/keys"));
        let stem = files.last().unwrap().file_stem().unwrap().to_str().unwrap();
        stem.parse::<u64>().unwrap()
    };
    let made = name(&rig);
    let rename = |from: u64, to: u64| {
        fs::rename(
            folder.join(format!("{from}.pem")),
            folder.join(format!("{to}.pem")),
        )
        .unwrap();
    };
    rename(made, made - 100 * 24 * 3600);
    eventually("a second key", || (kids(&rig) == 2).then_some(()));
    let kid = |token: &str| part(token, 0)["kid"].clone();
    let before = token_of(ask(&rig.client(), ""));
    assert_eq!(
        kid(&before),
        kid(&first),
        "the second is only published yet"
    );
    let second = name(&rig);
    rename(second, second - 2 * 3600);
    let after = eventually("the second key to sign", || {
        let token = token_of(ask(&rig.client(), ""));
        (kid(&token) != kid(&first)).then_some(token)
    });
    rig.crash_edge();
    for token in [&first, &before, &after] {
        rig.anonymous().as_bearer(token).get("/v2/").expect(200);
    }
    for file in files_below(&folder) {
        fs::remove_file(file).unwrap();
    }
    eventually("the tokens to be refused", || {
        let reply = rig.anonymous().as_bearer(&after).get("/v2/");
        (reply.status == 401).then_some(())
    });
    let new = token_of(ask(&rig.client(), ""));
    rig.anonymous().as_bearer(&new).get("/v2/").expect(200);
}

#[test]
fn a_reload_begins_and_ends_tokens() {
    let mut rig = Rig::start();
    ask(&rig.client(), "").expect(404);
    rig.write_config(&public());
    rig.reload_edge();
    let token = eventually("tokens to be handed out", || {
        let reply = ask(&rig.client(), "");
        (reply.status == 200).then(|| token_of(reply))
    });
    let bearer = rig.anonymous().as_bearer(&token);
    bearer.get("/v2/").expect(200);
    rig.write_config(&Setup {
        top: "state_dir = \"elsewhere\"".to_owned(),
        ..public()
    });
    rig.reload_edge();
    eventually("the reload", || {
        let said = "config reloaded, but for what needs a restart: state_dir";
        rig.edge_log().contains(said).then_some(())
    });
    bearer.get("/v2/").expect(200);
    assert!(!rig.path("elsewhere").exists());
    rig.write_config(&public());
    rig.reload_edge();
    bearer.get("/v2/").expect(200);
    rig.write_config(&Setup::default());
    rig.reload_edge();
    eventually("tokens to be no more", || {
        (bearer.get("/v2/").status == 401).then_some(())
    });
}

#[test]
fn what_is_kept_is_for_the_edges_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let rig = public().start();
    ask(&rig.client(), "offline_token=true").expect(200);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let state = rig.path("state");
    let files = files_below(&state);
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().unwrap()), 0o700);
    }
    assert_eq!(mode(&state), 0o700);
}

#[test]
fn a_state_directory_that_cannot_be_one_is_told_before_the_start() {
    let rig = Setup {
        top: "state_dir = \"htpasswd/state\"".to_owned(),
        ..public()
    }
    .prepare();
    let check = try_run(tidegate().arg("check").arg("--config").arg(rig.config()));
    assert_eq!(check.code, Some(1), "{check}");
    assert!(check.stderr.contains("state_dir: "), "{check}");
    assert!(!rig.path("state").exists());
}
