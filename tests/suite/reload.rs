//! SIGHUP: read and checked whole, swapped at once; a bad file changes nothing.

use std::fs;
use std::time::Duration;

use crate::harness::h2::H2;
use crate::harness::{
    Client, PASSWORD, Pair, Rig, Setup, USER, eventually, free_port, half_a_push, noise, pause,
    peer_certificate, tidegate,
};

#[test]
fn a_new_certificate_is_presented_after_a_reload() {
    let mut rig = Rig::start();
    let folder = rig.config().parent().unwrap().to_owned();
    let before = rig.certificate.certificate();
    let renewed = Pair::create(&folder, "cert", &["localhost", "registry.test"]);

    rig.reload_edge();

    let expected = renewed.certificate().to_der().unwrap();
    assert!(expected != before.to_der().unwrap());
    eventually("the new certificate", || {
        let presented = peer_certificate(rig.https, "localhost")?;
        (presented.to_der().unwrap() == expected).then_some(())
    });
    rig.client().get("/v2/").expect(200);
}

#[test]
fn new_users_and_sites_and_limits_come_with_a_reload() {
    let mut rig = Rig::start();
    let hashed = bcrypt::hash("other", 4).unwrap();
    fs::write(rig.path("second-htpasswd"), format!("other:{hashed}\n")).unwrap();
    let text = fs::read_to_string(rig.config()).unwrap();
    let text = text.replace(
        "htpasswd_file = \"htpasswd\"",
        "htpasswd_file = \"second-htpasswd\"",
    );
    fs::write(rig.config(), text).unwrap();

    rig.reload_edge();

    eventually("the new user to be let in", || {
        let reply = rig.anonymous().as_user("other", "other").get("/v2/");
        (reply.status == 200).then_some(())
    });
    rig.client().get("/v2/").expect(401);
}

#[test]
fn a_bad_file_changes_nothing_and_is_reported_with_all_its_problems() {
    let mut rig = Rig::start();
    let good = fs::read_to_string(rig.config()).unwrap();
    let bad = good.replace("realm = \"Registry\"", "realm = 7\nno_such_key = true")
        + "\n[no_such_table]\nx = 1\n";
    fs::write(rig.config(), bad).unwrap();

    rig.reload_edge();

    let log = eventually("the problems to be reported", || {
        let log = rig.edge_log();
        (log.contains("no_such_key") && log.contains("no_such_table")).then_some(log)
    });
    assert!(log.contains("realm"), "{log}");
    let refused = rig.anonymous().get("/v2/").expect(401);
    assert_eq!(
        refused.header("WWW-Authenticate"),
        Some("Basic realm=\"Registry\", charset=\"UTF-8\"")
    );
    rig.client().get("/v2/").expect(200);

    // A missing certificate is as bad as a wrong key.
    fs::write(rig.config(), &good).unwrap();
    let cert = fs::read(&rig.certificate.cert).unwrap();
    fs::remove_file(&rig.certificate.cert).unwrap();
    let before = rig.edge_log().len();
    rig.reload_edge();
    eventually("the missing file to be reported", || {
        rig.edge_log()[before..].contains("cert.pem").then_some(())
    });
    fs::write(&rig.certificate.cert, cert).unwrap();
    rig.client().get("/v2/").expect(200);

    // And a good one works again.
    fs::write(
        rig.config(),
        good.replace("realm = \"Registry\"", "realm = \"Mended\""),
    )
    .unwrap();
    rig.reload_edge();
    eventually("the mended config", || {
        let refused = rig.anonymous().get("/v2/");
        (refused.header("WWW-Authenticate") == Some("Basic realm=\"Mended\", charset=\"UTF-8\""))
            .then_some(())
    });
}

#[test]
fn a_request_under_way_finishes_with_what_it_began_with() {
    let mut rig = Rig::start();
    let client = rig.client();
    let bytes = noise(95, 2_000_000);
    let mut push = half_a_push(&client, &bytes);
    let hashed = bcrypt::hash("other", 4).unwrap();
    fs::write(rig.path("htpasswd"), format!("other:{hashed}\n")).unwrap();
    Pair::create(
        rig.config().parent().unwrap(),
        "cert",
        &["localhost", "registry.test"],
    );

    rig.reload_edge();
    eventually("the new user to be let in", || {
        let reply = rig
            .anonymous()
            .as_user("other", "other")
            .request("GET", "/v2/")
            .try_send();
        (reply.ok()?.status == 200).then_some(())
    });

    push.write(&bytes[1_000_000..]).unwrap();
    push.reply().unwrap().expect(201);
    client.get("/v2/").expect(401);
}

#[test]
fn the_registry_reloads_too() {
    let mut rig = Rig::start();
    let client = rig.client();
    let path = "/v2/r/manifests/none";
    client.delete(path).expect(404);
    rig.write_config(&Setup {
        registry: "delete = false".to_owned(),
        ..Setup::default()
    });

    rig.registry().signal(rustix::process::Signal::HUP);

    eventually("deleting to be switched off", || {
        (client.delete(path).status == 405).then_some(())
    });
}

#[test]
fn logs_are_opened_again_for_logrotate() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("edge.log");
    let access = folder.path().join("access.log");
    let tables = format!(
        "[log]\nfile = \"{}\"\naccess_file = \"{}\"\n",
        file.display(),
        access.display()
    );
    let mut rig = Setup {
        tables,
        ..Setup::default()
    }
    .start();
    rig.client().get("/v2/before/tags/list").expect(404);
    eventually("a line in the access log", || {
        fs::read_to_string(&access)
            .ok()?
            .contains("/v2/before/")
            .then_some(())
    });
    let moved = folder.path().join("access.log.1");
    // What logrotate does.
    std::process::Command::new("mv")
        .arg(&access)
        .arg(&moved)
        .status()
        .unwrap();

    rig.reload_edge();

    eventually("a new access log", || {
        rig.client().get("/v2/after/tags/list");
        fs::read_to_string(&access)
            .ok()?
            .contains("/v2/after/")
            .then_some(())
    });
    assert!(fs::read_to_string(&moved).unwrap().contains("/v2/before/"));
}

#[test]
fn a_hundred_reloads_in_a_row_drop_no_request() {
    let mut rig = Rig::start();
    let client = rig.client();
    for _ in 0..100 {
        rig.reload_edge();
        client.get("/v2/").expect(200);
    }
    pause(Duration::from_millis(1));
    assert!(rig.edge().exited().is_none());
    client.as_user(USER, PASSWORD).get("/v2/").expect(200);
}

/// What `tidegate reload` says, on stdout and stderr, and its exit code.
fn reload(rig: &Rig, arguments: &[&str]) -> (String, String, Option<i32>) {
    let mut command = tidegate();
    command.arg("reload").arg("--config").arg(rig.config());
    let output = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code(),
    )
}

/// A right that is taken away is gone when the reload returns, whatever else has changed in the file.
#[test]
fn a_reload_puts_in_force_what_it_can_and_names_what_needs_a_restart() {
    let metrics = free_port();
    let mut setup = Setup {
        site: "[site.access]\n[[site.access.rule]]\nwho = [\"docker\"]\nactions = [\"*\"]\n"
            .to_owned(),
        tables: format!("[metrics]\naddress = \"127.0.0.1:{metrics}\"\n"),
        ..Setup::default()
    };
    let rig = setup.clone().start();
    let client = rig.client();
    let push = || client.post("/v2/other/app/blobs/uploads/").status;
    assert_eq!(push(), 202);
    let figures = |name: &str| {
        let text = Client::plain(([127, 0, 0, 1], metrics).into(), "localhost");
        let text = text.get("/metrics").expect(200).text();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    assert_eq!(figures("edge_config_last_reload_successful "), Some(1));

    setup.site = setup.site.replace("\"*\"", "\"pull\"");
    setup.top = "workers = 7\n[limits]\nhttp2_max_streams = 50\n".to_owned();
    setup.registry = "delete = false\nsocket_mode = \"0600\"".to_owned();
    rig.write_config(&setup);
    let (said, complaints, code) = reload(&rig, &[]);
    assert_eq!(code, Some(3), "{said}{complaints}");
    assert_eq!(push(), 403, "the right is gone");
    assert_eq!(client.delete("/v2/r/manifests/none").status, 403);
    for expected in [
        "edge: config reloaded, but for what needs a restart: workers, limits.http2_max_streams\n",
        "registry: config reloaded, but for what needs a restart: registry.socket_mode\n",
    ] {
        assert!(said.contains(expected), "{said}{complaints}");
    }
    assert!(
        rig.edge_log()
            .contains(" WARN tidegate::role: config reloaded, but for")
    );
    assert_eq!(figures("edge_config_keys_waiting_for_restart "), Some(2));

    // A file with a problem changes nothing, and says why.
    setup.site = setup.site.replace("\"pull\"", "\"pull\", \"pusch\"");
    rig.write_config(&setup);
    let (said, complaints, code) = reload(&rig, &["--role", "edge"]);
    assert_eq!((&*said, code), ("", Some(1)), "{complaints}");
    assert!(complaints.contains("pusch"), "{complaints}");
    assert!(complaints.contains("nothing was changed"), "{complaints}");
    assert_eq!(figures("edge_config_last_reload_successful "), Some(0));
    client.get("/v2/").expect(200);

    // And all is in force once nothing needs a restart.
    setup.top.clear();
    setup.registry.clear();
    setup.site = setup.site.replace(", \"pusch\"", ", \"push\"");
    rig.write_config(&setup);
    let (said, complaints, code) = reload(&rig, &[]);
    assert_eq!(code, Some(0), "{said}{complaints}");
    assert_eq!(said, "edge: config reloaded\nregistry: config reloaded\n");
    assert_eq!(push(), 202);
    assert_eq!(figures("edge_config_last_reload_successful "), Some(1));
    assert_eq!(figures("edge_config_keys_waiting_for_restart "), Some(0));
}

#[test]
fn a_reload_of_what_does_not_run_says_so() {
    let mut rig = Rig::start();
    rig.registry().kill();
    let (said, complaints, code) = reload(&rig, &[]);
    assert_eq!(code, Some(1));
    assert_eq!(said, "edge: config reloaded\n");
    assert!(complaints.contains("registry: not running"), "{complaints}");
}

/// A line that cannot be used keeps nobody in whom the same change took out, and the edge not from
/// starting.
#[test]
fn a_bad_line_of_a_file_of_users_is_left_out_and_the_rest_counts() {
    let mut setup = Setup {
        site: "[site.access]\n[[site.access.rule]]\nwho = [\"@dev\"]\nactions = [\"*\"]\n"
            .to_owned(),
        auth: "group_file = \"groups\"\n".to_owned(),
        ..Setup::default()
    };
    let (door, metrics) = crate::metrics::door("");
    setup.tables = metrics;
    let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
    setup.htpasswd = Some(format!("{USER}:{hashed}\neve:{hashed}\n"));
    let mut rig = setup.prepare();
    fs::write(rig.path("groups"), format!("dev: {USER} eve\n")).unwrap();
    rig.start_registry();
    rig.start_edge();
    rig.wait_until_ready();
    let eve = rig.anonymous().as_user("eve", PASSWORD);
    eve.get("/v2/").expect(200);

    let broken = format!("no colon\n{USER}:{hashed}\nx:secret-of-x\n");
    fs::write(rig.path("htpasswd"), broken).unwrap();
    eventually("eve to be out", || {
        (eve.get("/v2/").status == 401).then_some(())
    });
    rig.client().get("/v2/a/tags/list").expect(404);
    let expected = [
        "htpasswd: line 1: is not of the form user:hash: the line is left out",
        "htpasswd: line 3: the hash is in no supported format",
    ];
    let log = rig.edge_log();
    for line in expected {
        let told = log
            .lines()
            .any(|told| told.contains(" ERROR ") && told.contains(line));
        assert!(told, "{line} is not in\n{log}");
    }
    assert!(!log.contains("secret-of-x"));
    let figures = crate::metrics::text(&door);
    assert!(
        figures.contains("edge_auth_file_skipped_lines{site=\"localhost\",file=\"htpasswd\"} 2"),
        "{figures}"
    );
    fs::write(rig.path("groups"), format!("dev {USER}\nops: {USER}\n")).unwrap();
    eventually("the group to be gone", || {
        (rig.client().get("/v2/a/tags/list").status == 403).then_some(())
    });

    // And so it starts.
    rig.crash_edge();
    eve.get("/v2/").expect(401);
    let mut check = tidegate();
    let check = check.arg("check").arg("--config").arg(rig.config());
    let output = check.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for line in [
        expected[0],
        expected[1],
        "groups: line 1: is not of the form",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let output = check.args(["--role", "edge"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "it may be started");
}

#[test]
fn the_time_that_a_connection_may_be_idle_comes_with_a_reload_over_http_2_too() {
    let mut rig = Rig::start();
    let text = fs::read_to_string(rig.config()).unwrap();
    let short = format!("{text}\n[limits]\nkeepalive_timeout = \"1s\"\n");
    fs::write(rig.config(), short).unwrap();
    rig.reload_edge();
    eventually("an idle connection to be closed", || {
        let mut connection = H2::connect(&rig).unwrap();
        let (stream, head) = connection.open("GET", "/v2/", true);
        connection.send(&head).unwrap();
        connection.receive_all(stream).unwrap();
        let begin = std::time::Instant::now();
        // By default it would be open for longer than the test waits for bytes.
        while connection.receive().is_ok() {}
        (begin.elapsed() < Duration::from_secs(4)).then_some(())
    });
}
