//! Figures for Prometheus, on a listener of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::x509::X509;
use serde_json::json;

use crate::harness::{
    Client, Pebble, Rig, Setup, eventually, eventually_within, free_port, memory_bytes, need,
    noise, push_blob, tidegate, try_run,
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
pub(crate) fn figure(text: &str, name: &str) -> f64 {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    line.parse().unwrap()
}

/// The sum of the figures of this name whose labels hold all of `labels`.
pub(crate) fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let named = text.lines().filter(|line| line.starts_with(name));
    let meant = named.filter(|line| labels.iter().all(|label| line.contains(label)));
    meant
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
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
        "\",commit="
    );
    assert_eq!(sum(&before, version, &[]), 1.0);
    assert!(before.ends_with("# EOF\n"), "{before}");

    let content = noise(1, 100_000);
    let digest = push_blob(&rig.client(), "app", &content);
    rig.client()
        .get(&format!("/v2/app/blobs/{digest}"))
        .expect(200);
    rig.client().get("/v2/app/manifests/none").expect(404);
    rig.anonymous().get("/v2/").expect(401);

    // A line is written, and counted, a moment after the reply.
    let grown = |name: &str, labels: &[&str], by: f64| {
        eventually(name, || {
            let now = text(&door);
            (sum(&now, name, labels) >= sum(&before, name, labels) + by).then_some(())
        });
    };
    let requests = "edge_requests_total";
    grown(
        requests,
        &["route=\"blob\"", "method=\"GET\"", "status=\"200\""],
        1.0,
    );
    grown(requests, &["route=\"upload\"", "status=\"20"], 2.0);
    grown(requests, &["route=\"manifest\"", "status=\"404\""], 1.0);
    grown(requests, &["route=\"base\"", "status=\"401\""], 1.0);
    let blobs = ["route=\"blob\"", "method=\"GET\""];
    grown("edge_request_duration_seconds_count", &blobs, 1.0);
    grown("edge_request_body_bytes_total", &[], 100_000.0);
    grown("edge_response_body_bytes_total", &[], 100_000.0);
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
    assert!((29..=30).contains(&days), "{days}");

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
    let failed = eventually_within(Duration::from_secs(120), "the failure", || {
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

#[test]
fn what_is_refused_is_counted_by_reason_and_by_rule() {
    let (door, table) = door("");
    let rig = Setup {
        tables: table,
        auth: r#"
[site.access]
[[site.access.rule]]
repositories = ["secret/**"]
who = ["authenticated"]
actions = ["*"]
effect = "deny"
[[site.access.rule]]
repositories = ["team/**"]
who = ["authenticated"]
actions = ["pull"]
"#
        .to_owned(),
        ..Setup::default()
    }
    .start();
    let denied = |rule: &str| format!("edge_rule_denials_total{{rule=\"site[0].access{rule}\"}}");
    let wrong = "edge_logins_refused_total{reason=\"wrong_credentials\"}";
    let before = text(&door);
    assert_eq!(
        figure(&before, &denied(".rule[0]")),
        0.0,
        "a rule counts from zero on"
    );
    assert!(!before.contains(&denied(".rule[1]")), "it denies nothing");

    let client = rig.client();
    client.get("/v2/secret/x/manifests/v1").expect(403);
    client.get("/v2/secret/x/tags/list").expect(403);
    client.get("/v2/other/manifests/v1").expect(403);
    client.get("/v2/team/manifests/v1").expect(403);
    client.get("/v2/team/x/manifests/v1").expect(404);
    rig.anonymous()
        .as_user("docker", "guess")
        .get("/v2/")
        .expect(401);
    rig.anonymous().get("/v2/").expect(401);

    let now = text(&door);
    assert_eq!(figure(&now, &denied(".rule[0]")), 2.0);
    assert_eq!(figure(&now, &denied(": no rule")), 2.0);
    assert_eq!(
        figure(&now, wrong),
        1.0,
        "to bring nothing is no failed login"
    );
}

#[test]
fn lines_that_the_log_leaves_out_are_counted() {
    let (door, table) = door("");
    let rig = Setup {
        tables: table,
        ..Setup::default()
    }
    .start();
    let left_out = "edge_log_lines_suppressed_total{log=\"access\"}";
    let anonymous = rig.anonymous();
    eventually("a flood to be too much for the log", || {
        let mut connection = anonymous.connect().unwrap();
        for _ in 0..500 {
            let asked = connection.ask(anonymous.request("GET", "/v2/"));
            asked.unwrap().expect(401);
        }
        (figure(&text(&door), left_out) > 0.0).then_some(())
    });
}

#[test]
fn what_the_process_takes_is_told_by_the_usual_names() {
    let (door, table) = door("");
    let mut rig = Setup {
        tables: table,
        ..Setup::default()
    }
    .start();
    let now = text(&door);
    let started = since_1970(SystemTime::now()) - figure(&now, "process_start_time_seconds");
    assert!((0.0..120.0).contains(&started), "{started}");
    assert!(figure(&now, "process_cpu_seconds_total") > 0.0);
    let resident = figure(&now, "process_resident_memory_bytes");
    let known = memory_bytes(rig.edge().pid()) as f64;
    assert!(
        (known / 2.0..known * 2.0).contains(&resident),
        "{resident} {known}"
    );
    assert!(figure(&now, "process_open_fds") >= 5.0);
    assert!(figure(&now, "process_max_fds") > figure(&now, "process_open_fds"));
    assert_eq!(figure(&now, "edge_draining"), 0.0);
}
