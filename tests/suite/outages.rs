//! Upstreams that are lost and come back: a warning and a line, however many requests notice it.

use std::time::Duration;

use crate::harness::{Client, Pair, Rig, Setup, eventually, free_port, noise, pause};

fn told(rig: &Rig, what: &str) -> Vec<String> {
    rig.edge_lines(&[what])
}

#[test]
fn a_registry_that_is_gone_is_one_warning_and_its_return_one_line() {
    let mut rig = Rig::start();
    rig.registry().kill();
    for _ in 0..20 {
        rig.client().get("/v2/app/tags/list").expect(503);
    }
    let lost = eventually("the warning", || {
        let lost = told(&rig, "the upstream cannot be reached");
        (!lost.is_empty()).then_some(lost)
    });
    assert_eq!(lost.len(), 1, "{lost:#?}");
    assert!(lost[0].contains(" WARN "), "{lost:#?}");
    assert!(
        lost[0].contains("upstream=\"registry\" error=\"connect to "),
        "{lost:#?}"
    );
    // What is known of it outlives a reload.
    rig.reload_edge();
    eventually("the reload", || {
        (!told(&rig, "config reloaded").is_empty()).then_some(())
    });
    rig.client().get("/v2/app/tags/list").expect(503);
    assert!(told(&rig, "the upstream is back").is_empty());
    rig.start_registry();
    rig.wait_until_ready();
    for _ in 0..5 {
        rig.client().get("/v2/").expect(200);
    }
    let back = eventually("its return", || {
        let back = told(&rig, "the upstream is back");
        (!back.is_empty()).then_some(back)
    });
    assert_eq!(back.len(), 1, "{back:#?}");
    assert!(back[0].contains(" INFO "), "{back:#?}");
    assert!(
        back[0].contains("upstream=\"registry\" away_s="),
        "{back:#?}"
    );
    assert_eq!(told(&rig, "the upstream cannot be reached").len(), 1);
}

#[test]
fn another_service_that_is_gone_is_named() {
    let port = free_port();
    let mut rig = Setup {
        tables: format!(
            r#"
[[upstream]]
name = "grafana"
peers = ["127.0.0.1:{port}"]
[[site]]
hosts = ["other.test"]
certificate = {{ cert_file = "other.pem", key_file = "other-key.pem" }}
upstream = "grafana"
"#
        ),
        ..Setup::default()
    }
    .prepare();
    let other = Pair::create(&rig.path(""), "other", &["other.test"]);
    rig.start_registry();
    rig.start_edge();
    rig.wait_until_ready();
    let client = Client::tls(rig.https, "other.test", &other.cert);
    for _ in 0..3 {
        client.get("/").expect(503);
    }
    let lost = eventually("the warning", || {
        let lost = told(&rig, "the upstream cannot be reached");
        (!lost.is_empty()).then_some(lost)
    });
    assert_eq!(lost.len(), 1, "{lost:#?}");
    assert!(lost[0].contains("upstream=\"grafana\""), "{lost:#?}");
}

#[test]
fn a_client_that_goes_away_or_is_wrong_is_no_loss() {
    let rig = Rig::start();
    let client = rig.client();
    for turn in 0..5 {
        let location = client
            .post("/v2/left/blobs/uploads/")
            .expect(202)
            .location();
        let request = client.request("PATCH", &location);
        let request = request.header("Content-Length", "1000000");
        let mut exchange = request.open().unwrap();
        exchange.write(&noise(320 + turn, 1000)).unwrap();
        drop(exchange);
        client.get("/v2/left/manifests/none").expect(404);
    }
    eventually("the end of the uploads", || {
        let cut = rig.edge_lines(&["method=\"PATCH\"", "repository=left "]);
        (cut.len() >= 5).then_some(())
    });
    // It would have been there before those lines.
    pause(Duration::from_millis(50));
    assert!(told(&rig, " WARN ").is_empty(), "{}", rig.edge_log());
}
