//! Whether Tidegate is alive, and whether requests are well sent to it: without a password.

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{
    Client, Pair, Rig, Setup, SmallDisk, eventually, half_a_push, noise, run, skip, tidegate,
};
use crate::metrics::{door, text};

/// Waits until `client` is told this of `/readyz`.
fn wait_for(client: &Client, status: u16, said: &str) {
    eventually(said, || {
        let reply = client.request("GET", "/readyz").try_send().ok()?;
        (reply.status == status && reply.text() == said).then_some(())
    });
}

#[test]
fn without_its_registry_the_edge_is_alive_and_not_ready() {
    let (door, table) = door("");
    let mut rig = Setup {
        tables: table,
        site: "health = true".to_owned(),
        ..Setup::default()
    }
    .start();
    let site = rig.anonymous();
    for client in [&door, &site] {
        assert_eq!(client.get("/healthz").expect(200).text(), "ok\n");
        assert_eq!(client.get("/readyz").expect(200).text(), "ok\n");
        assert_eq!(client.head("/readyz").expect(200).text(), "");
    }

    rig.registry().terminate();
    let gone = "registry \"registry\": cannot be reached: No such file or directory (os error 2)\n";
    let refused = "registry \"registry\": cannot be reached: Connection refused (os error 111)\n";
    eventually("the registry to be missed", || {
        let reply = door.get("/readyz");
        let said = [gone, refused].contains(&reply.text().as_str());
        (reply.status == 503 && said).then_some(())
    });
    wait_for(&site, 503, "not ready\n");
    for client in [&door, &site] {
        assert_eq!(client.get("/healthz").expect(200).text(), "ok\n");
    }

    rig.start_registry();
    wait_for(&door, 200, "ok\n");
    wait_for(&site, 200, "ok\n");
}

#[test]
fn a_disk_that_cannot_be_written_to_is_told_until_it_can() {
    let Some(disk) = SmallDisk::mount(24) else {
        skip("only root can mount a small disk");
        return;
    };
    let (door, table) = door("");
    let _rig = Setup {
        tables: table,
        root: Some(disk.path().join("registry")),
        ..Setup::default()
    }
    .start();
    wait_for(&door, 200, "ok\n");
    let told = "registry \"registry\": the storage cannot be written to: ";
    let ballast = disk.path().join("ballast");
    drop(crate::harness::try_run(
        Command::new("dd")
            .arg("if=/dev/zero")
            .arg(format!("of={}", ballast.display())),
    ));
    wait_for(
        &door,
        503,
        &format!("{told}No space left on device (os error 28)\n"),
    );
    assert!(text(&door).contains("registry_storage_writable{registry=\"registry\"} 0"));
    assert!(text(&door).contains("registry_storage_free_bytes{registry=\"registry\"} 0"));
    std::fs::remove_file(&ballast).unwrap();
    wait_for(&door, 200, "ok\n");

    disk.set_read_only(true);
    wait_for(
        &door,
        503,
        &format!("{told}Read-only file system (os error 30)\n"),
    );
    disk.set_read_only(false);
    wait_for(&door, 200, "ok\n");
}

#[test]
fn a_refused_reload_is_told_until_the_next_good_one() {
    let (door, table) = door("");
    let setup = Setup {
        tables: table,
        site: "health = true".to_owned(),
        ..Setup::default()
    };
    let mut rig = setup.clone().start();
    rig.write_config(&Setup {
        top: "nonsense = 1".to_owned(),
        ..setup.clone()
    });
    rig.reload_edge();
    wait_for(&door, 503, "edge: the last reload was refused\n");
    wait_for(&rig.anonymous(), 503, "not ready\n");
    rig.write_config(&setup);
    rig.reload_edge();
    wait_for(&door, 200, "ok\n");
}

#[test]
fn an_edge_that_drains_says_so_and_leaves_the_answer_to_its_successor() {
    let (door, table) = door("");
    let mut rig = Setup {
        tables: table,
        ..Setup::default()
    }
    .prepare();
    rig.start_registry();
    rig.start_supervised_edge();
    rig.wait_until_ready();
    let bytes = noise(98, 2_000_000);
    let mut push = half_a_push(&rig.client(), &bytes);

    let mut upgrade = tidegate();
    upgrade.args(["upgrade", "--role", "edge", "--config"]);
    run(upgrade.arg(rig.config()));
    eventually("the first edge to drain", || {
        rig.edge_log().contains("draining").then_some(())
    });
    for _ in 0..20 {
        assert_eq!(door.get("/readyz").expect(200).text(), "ok\n");
        assert!(text(&door).contains("\nedge_draining 0\n"));
    }
    push.write(&bytes[bytes.len() / 2..]).unwrap();
    push.reply().unwrap().expect(201);

    let mut push = half_a_push(&rig.client(), &noise(99, 2_000_000));
    rig.edge().signal(Signal::TERM);
    wait_for(&door, 503, "edge: is stopping\n");
    assert_eq!(door.get("/healthz").expect(200).text(), "ok\n");
    assert!(text(&door).contains("\nedge_draining 1\n"));
    push.write(&noise(99, 2_000_000)[bytes.len() / 2..])
        .unwrap();
    push.reply().unwrap().expect(201);
    rig.edge().wait(Duration::from_secs(20));
}

#[test]
fn a_site_tells_nothing_unless_it_says_so() {
    let rig = Rig::start();
    for path in ["/healthz", "/readyz"] {
        rig.anonymous().get(path).expect(404);
        rig.client().get(path).expect(404);
        rig.plain().get(path).expect(308);
    }
}

#[test]
fn health_comes_before_passwords_and_address_lists_and_nothing_else_does() {
    let rig = Setup {
        site: "health = true".to_owned(),
        auth: "[site.access]\nallow_from = [\"192.0.2.0/24\"]\n".to_owned(),
        ..Setup::default()
    };
    let mut rig = rig.prepare();
    rig.start_registry();
    rig.start_edge();
    let site = rig.anonymous();
    eventually("the edge", || {
        site.request("GET", "/healthz").try_send().ok()
    });
    wait_for(&site, 200, "ok\n");
    site.get("/v2/").expect(403);
    site.get("/").expect(403);
    site.post("/healthz").expect(403);
    site.get("/healthz/").expect(403);
    site.get("/%68ealthz").expect(403);
    site.get("/v2/../healthz").expect(403);
    rig.plain().get("/healthz").expect(308);
}

#[test]
fn a_registry_that_hangs_is_asked_once_for_all_who_want_to_know() {
    let (door, table) = door("");
    let mut rig = Setup {
        tables: table,
        ..Setup::default()
    }
    .prepare();
    let listener = UnixListener::bind(rig.socket()).unwrap();
    rig.start_edge();
    eventually("the edge", || {
        door.request("GET", "/healthz").try_send().ok()
    });
    let asking: Vec<_> = (0..10)
        .map(|_| {
            let door = door.clone();
            thread::spawn(move || door.get("/readyz").expect(503).text())
        })
        .collect();
    for asked in asking {
        let said = "registry \"registry\": does not answer within 1s\n";
        assert_eq!(asked.join().unwrap(), said);
    }
    listener.set_nonblocking(true).unwrap();
    let connections = std::iter::from_fn(|| listener.accept().ok()).count();
    assert!((1..=3).contains(&connections), "{connections}");
    let begun = std::time::Instant::now();
    door.get("/healthz").expect(200);
    assert!(
        begun.elapsed() < Duration::from_millis(900),
        "it waits for nobody"
    );
}

#[test]
fn nothing_that_the_edge_asks_the_registry_can_be_asked_through_it() {
    let mut rig = Setup::default().prepare();
    let pair = Pair::create(&rig.path(""), "plain", &["plain.test"]);
    // Somebody takes the registry's socket for that of any other service.
    let plain = format!(
        "[[upstream]]\nname = \"plain\"\npeers = [\"unix:{socket}\"]\n\
         [[site]]\nhosts = [\"plain.test\"]\nupstream = \"plain\"\n\
         certificate = {{ cert_file = \"{cert}\", key_file = \"{key}\" }}\n",
        socket = rig.socket().display(),
        cert = pair.cert.display(),
        key = pair.key.display(),
    );
    rig.write_config(&Setup {
        tables: plain,
        site: "health = true".to_owned(),
        ..Setup::default()
    });
    rig.start_registry();
    rig.start_edge();
    rig.wait_until_ready();
    let asked = Client::unix(&rig.socket());
    let asked = asked
        .request("GET", "/metrics")
        .header("X-Tidegate-Inquiry", "edge");
    assert!(
        asked
            .send()
            .expect(200)
            .text()
            .contains("registry_storage_")
    );

    let plain = Client::tls(rig.https, "plain.test", &pair.cert);
    for client in [rig.client(), rig.anonymous(), plain] {
        for path in [
            "/metrics",
            "/metrics?x=/v2/",
            "/readyz?/v2/",
            "//metrics",
            "/./metrics",
            "/%6detrics",
            "/v2/../metrics",
            "/v2/%2e%2e/metrics",
            "/v2/..%2fmetrics",
            "/v2/../readyz",
            "/v2//metrics",
            "/v2/metrics",
            "/V2/../metrics",
            "http://localhost/metrics",
            "https://registry/metrics",
        ] {
            let mut asked = client.request("GET", path);
            for header in [
                "X-Tidegate-Inquiry",
                "x-tidegate-inquiry",
                "X_Tidegate_Inquiry",
            ] {
                asked = asked.header(header, "edge");
            }
            let reply = asked.send();
            let said = reply.text();
            let is_site = client.name() != "plain.test";
            assert!(!said.contains("registry_"), "{path}: {said}");
            assert!(
                matches!(reply.status, 400 | 401 | 404 | 421)
                    || is_site && reply.status == 200 && said == "ok\n",
                "{path}: {reply:?}"
            );
        }
    }
}
