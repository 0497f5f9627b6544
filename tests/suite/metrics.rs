//! Figures for Prometheus, on a listener of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::x509::X509;
use serde_json::json;

use crate::harness::{
    Client, Pebble, Rig, Setup, eventually, free_port, need, noise, push_blob, tidegate, try_run,
};

/// Where figures are asked for, and the table that says so.
pub(crate) fn door(more: &str) -> (Client, String) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let table = format!("[metrics]\naddress = \"{address}\"\n{more}\n");
    (Client::plain(address, &address.to_string()), table)
}

/// The text of this moment.
pub(crate) fn text(door: &Client) -> String {
    let reply = door.get("/metrics").expect(200);
    let kind = reply.header("Content-Type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    String::from_utf8(reply.body).unwrap()
}

/// The figure with this name and these labels.
#[track_caller]
fn figure(text: &str, name: &str) -> f64 {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    line.parse().unwrap()
}

fn since_1970(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn requests_bytes_and_certificates_are_counted_and_told_to_who_may_ask() {
    let (door, table) = door("");
    let rig = Setup {
        tables: table,
        ..Setup::default()
    }
    .start();
    let before = text(&door);
    let version = concat!(
        "edge_build_info{version=\"",
        env!("CARGO_PKG_VERSION"),
        "\"}"
    );
    assert_eq!(figure(&before, version), 1.0);
    assert!(before.ends_with("# EOF\n"), "{before}");

    let content = noise(1, 100_000);
    let digest = push_blob(&rig.client(), "app", &content);
    rig.client()
        .get(&format!("/v2/app/blobs/{digest}"))
        .expect(200);
    rig.client().get("/v2/app/manifests/none").expect(404);
    rig.anonymous().get("/v2/").expect(401);

    // A line is written, and counted, a moment after the reply.
    let grown = |name: &str, by: f64| {
        eventually(name, || {
            let now = text(&door);
            (figure(&now, name) >= figure(&before, name) + by).then_some(())
        });
    };
    grown("edge_requests_total{status=\"2xx\"}", 2.0);
    grown("edge_requests_total{status=\"4xx\"}", 2.0);
    grown("edge_request_body_bytes_total", 100_000.0);
    grown("edge_response_body_bytes_total", 100_000.0);
    let now = text(&door);
    // Nothing that clients choose is a label.
    for word in ["app", "sha256", "docker", "/v2/"] {
        assert!(!now.contains(word), "{word} is in\n{now}");
    }
    let expiry = figure(
        &now,
        "edge_certificate_expiry_timestamp_seconds{site=\"localhost\",key_type=\"ecdsa-p256\"}",
    );
    let left = expiry - since_1970(SystemTime::now());
    let days = Duration::from_secs_f64(left).as_secs() / 86_400;
    assert!((1..=2).contains(&days), "{days}");

    door.get("/").expect(404);
    door.post("/metrics").expect(404);
    // The other listeners know nothing of it.
    rig.client().get("/metrics").expect(404);
}

#[test]
fn what_is_under_way_is_counted_as_long_as_it_is() {
    let (door, table) = door("");
    let rig = Setup {
        tables: table,
        ..Setup::default()
    }
    .start();
    let count = |name: &str| figure(&text(&door), name);
    let client = rig.client();
    let session = client.post("/v2/app/blobs/uploads/").expect(202);
    let location = session.header("Location").unwrap().to_owned();
    let patch = client.request("PATCH", &location);
    let mut upload = patch.header("Content-Length", "10").open().unwrap();
    upload.write(b"12345").unwrap();
    eventually("the request to be under way", || {
        (count("edge_requests_in_flight") >= 1.0).then_some(())
    });
    assert!(count("edge_connections_open") >= 1.0);
    upload.write(b"67890").unwrap();
    upload.reply().unwrap().expect(202);
    eventually("nothing to be under way", || {
        (count("edge_requests_in_flight") == 0.0).then_some(())
    });
}

#[test]
fn who_may_ask_follows_a_reload_and_the_address_does_not() {
    let (door, table) = door("");
    let mut rig = Setup {
        tables: table.clone(),
        ..Setup::default()
    }
    .start();
    text(&door);
    let closed = format!("{table}allow_from = [\"192.0.2.1\"]\n");
    let with = |tables: &str| Setup {
        tables: tables.to_owned(),
        ..Setup::default()
    };
    rig.write_config(&with(&closed));
    rig.reload_edge();
    eventually("the door to be closed", || {
        door.request("GET", "/metrics").try_send().err()
    });

    rig.write_config(&with(""));
    rig.reload_edge();
    eventually("the reload", || {
        let said = "config reloaded, but for what needs a restart: metrics.address";
        rig.edge_log().contains(said).then_some(())
    });
    let still_closed = door.request("GET", "/metrics").try_send();
    assert!(
        still_closed.is_err(),
        "the list in force stays with the address"
    );

    let taken = format!("[metrics]\naddress = \"{}\"\n", rig.https);
    rig.write_config(&with(&taken));
    let checked = check(&rig);
    assert!(checked.contains("metrics.address: "), "{checked}");
    assert!(checked.contains("a listener has it already"), "{checked}");
    rig.write_config(&with("[metrics]\naddress = \"0.0.0.0:9090\"\n"));
    let checked = check(&rig);
    assert!(checked.contains("metrics.allow_from is empty"), "{checked}");
}

/// What `tidegate check` says.
fn check(rig: &Rig) -> String {
    try_run(tidegate().arg("check").arg("--config").arg(rig.config())).stderr
}

#[test]
fn an_order_that_fails_shows_and_so_does_the_one_that_is_fulfilled() {
    need!("pebble", "pebble-challtestsrv");
    let (door, table) = door("");
    let mut rig = Setup::default().prepare();
    let ca = Pebble::start_with(&rig, &json!({}), &[]);
    ca.lead("a.acme.test", "127.0.0.66");
    let tables = format!(
        "{table}[acme]\n{}challenge = \"http-01\"\n[[site]]\nhosts = [\"a.acme.test\"]\n\
         certificate = \"acme\"\nupstream = \"registry\"\n[site.auth]\nhtpasswd_file = \"htpasswd\"\n",
        ca.keys()
    );
    rig.write_config(&Setup {
        tables,
        ..Setup::default()
    });
    rig.start_registry();
    rig.start_edge();
    let expiry =
        "edge_certificate_expiry_timestamp_seconds{site=\"a.acme.test\",key_type=\"ecdsa-p256\"}";
    let failures = "edge_certificate_failures{site=\"a.acme.test\",key_type=\"ecdsa-p256\"}";
    let failed_at = "edge_certificate_last_failure_timestamp_seconds{site=\"a.acme.test\",key_type=\"ecdsa-p256\"}";
    let orders = |outcome| {
        format!("edge_certificate_orders_total{{site=\"a.acme.test\",outcome=\"{outcome}\"}}")
    };
    let failed = eventually("the failure", || {
        let reply = door.request("GET", "/metrics").try_send().ok()?;
        let now = String::from_utf8(reply.body).unwrap();
        // The one is counted a moment before the other is published.
        let told = now.contains(&orders("failed")) && figure(&now, failures) > 0.0;
        told.then_some(now)
    });
    assert_eq!(figure(&failed, &orders("failed")), 1.0);
    assert_eq!(figure(&failed, failures), 1.0);
    assert_eq!(figure(&failed, expiry), 0.0, "a placeholder is shown");
    let ago = since_1970(SystemTime::now()) - figure(&failed, failed_at);
    assert!((0.0..60.0).contains(&ago), "{ago}");

    ca.lead_home("a.acme.test");
    let renew = try_run(tidegate().arg("renew").arg("--config").arg(rig.config()));
    assert!(renew.success, "{renew}");
    let issued = eventually("the certificate", || {
        let now = text(&door);
        (figure(&now, failures) == 0.0).then_some(now)
    });
    assert_eq!(figure(&issued, &orders("issued")), 1.0);
    assert_eq!(figure(&issued, failed_at), 0.0);
    let chain = std::fs::read(rig.path("state/live/a.acme.test/fullchain.pem")).unwrap();
    let leaf = X509::from_pem(&chain).unwrap();
    let now = openssl::asn1::Asn1Time::days_from_now(0).unwrap();
    let left = now.diff(leaf.not_after()).unwrap();
    let left = f64::from(left.days) * 86_400.0 + f64::from(left.secs);
    let told = figure(&issued, expiry) - since_1970(SystemTime::now());
    assert!((told - left).abs() < 60.0, "{told} {left}");
}
