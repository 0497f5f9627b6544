//! Orders that come to nothing, and what becomes of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::acme::{issued, presented, setup, site, start, start_with, tidegate_with};
use crate::harness::{
    Pebble, Rig, Setup, eventually, files_below, free_port, need, peer_certificate,
};

/// What is kept of the orders for `a.acme.test`.
fn record(rig: &Rig) -> Value {
    // It comes a moment after the certificate.
    eventually("the record", || {
        let text = fs::read_to_string(rig.path("state/orders/a.acme.test.json")).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    })
}

fn keep_record(rig: &Rig, record: &Value) {
    let path = rig.path("state/orders/a.acme.test.json");
    fs::write(path, record.to_string()).unwrap();
}

/// A day passes: all that is known lies a day further back. The edge looks at once.
fn a_day_passes(rig: &mut Rig) {
    fn set_back(value: &mut Value) {
        match value {
            Value::Object(fields) => fields.values_mut().for_each(set_back),
            Value::String(text) => {
                if let Ok(time) = humantime::parse_rfc3339(text) {
                    let earlier = time - Duration::from_secs(24 * 60 * 60);
                    *text = humantime::format_rfc3339_millis(earlier).to_string();
                }
            }
            _ => {}
        }
    }
    let mut record = record(rig);
    set_back(&mut record);
    keep_record(rig, &record);
    rig.reload_edge();
}

/// Waits until so many tries in a row have come to nothing, and returns the record.
fn failed(rig: &Rig, count: u64) -> Value {
    eventually("the failure to be kept", || {
        let record = record(rig);
        (record["failure"]["count"].as_u64()? >= count).then_some(record)
    })
}

#[test]
fn a_ca_that_is_down_for_days_costs_nothing_but_time() {
    need!("pebble", "pebble-challtestsrv");
    let (mut rig, mut ca) = start(&site("\"a.acme.test\""));
    issued(&rig, "a.acme.test");
    let before = presented(&rig, "a.acme.test");
    ca.stop();
    // There is a reason to order, and nobody to order from.
    let keys = format!("{}key_type = \"ecdsa-p384\"\n", ca.keys());
    rig.write_config(&setup(&keys, &site("\"a.acme.test\"")));
    rig.reload_edge();
    failed(&rig, 1);
    // Each day is a try, and the waits grow as they do in a day.
    for day in 2..=4 {
        a_day_passes(&mut rig);
        failed(&rig, day);
        assert!(presented(&rig, "a.acme.test") == before, "day {day}");
    }
    let mut known = record(&rig);
    known["failure"]["count"] = json!(9);
    keep_record(&rig, &known);
    a_day_passes(&mut rig);
    let known = failed(&rig, 10);
    let time = |value: &Value| humantime::parse_rfc3339(value.as_str().unwrap()).unwrap();
    let wait = time(&known["failure"]["retry"]).duration_since(SystemTime::now());
    let hours = wait.unwrap().as_secs() / 3600;
    assert!((11..=21).contains(&hours), "{hours} hours");
    let checked = tidegate_with(&rig, &["check"]);
    assert!(checked.stderr.contains("was not renewed"), "{checked}");

    // Nor does a restart make it hurry, or lose what it shows.
    rig.edge().terminate();
    rig.start_edge();
    let shown = eventually("the edge", || peer_certificate(rig.https, "a.acme.test"));
    assert!(shown.to_der().unwrap() == before);

    ca.restart();
    a_day_passes(&mut rig);
    eventually("the certificate", || {
        (presented(&rig, "a.acme.test") != before).then_some(())
    });
    assert!(record(&rig)["failure"].is_null());
}

#[test]
fn a_hook_that_fails_is_named_with_what_it_said() {
    need!("pebble", "pebble-challtestsrv");
    let mut rig = Setup::default().prepare();
    let ca = Pebble::start(&rig);
    let hook = rig.path("dns-hook");
    fs::write(&hook, "#!/bin/sh\necho no key for the zone >&2\nexit 3\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let dns = "challenge = \"dns-01\"\ndns = { program = \"dns-hook\", propagation = \"0s\" }\n";
    let keys = format!("{}{dns}", ca.keys());
    rig.write_config(&setup(&keys, &site("\"a.acme.test\"")));
    rig.start_registry();
    rig.start_edge();
    let known = failed(&rig, 1);
    assert_eq!(known["failure"]["part"], "hook", "{known}");
    let listed = tidegate_with(&rig, &["certs"]).stdout;
    for told in [
        "no key for the zone",
        "exit status: 3",
        "the program of [acme.dns] failed",
    ] {
        assert!(listed.contains(told), "{told} is not in\n{listed}");
    }
}

#[test]
fn where_one_kind_of_challenge_is_not_reached_the_next_try_takes_another() {
    need!("pebble", "pebble-challtestsrv");
    // The CA's port 80 is not ours: nothing listens there.
    let settings = json!({ "httpPort": free_port() });
    let (mut rig, _ca) = start_with(&site("\"a.acme.test\""), "", &settings, &[]);
    let known = failed(&rig, 1);
    assert_eq!(known["failure"]["problem"], "connection", "{known}");
    assert!(rig.edge_log().contains("challenge=\"http-01\""));

    a_day_passes(&mut rig);

    issued(&rig, "a.acme.test");
    eventually("the line about it", || {
        let log = rig.edge_log();
        let issue = log.find("a certificate was issued")?;
        log[issue..]
            .contains("challenge=\"tls-alpn-01\"")
            .then_some(())
    });
}

#[test]
fn an_edge_that_is_killed_amid_an_order_finishes_it_at_its_next_start() {
    need!("pebble", "pebble-challtestsrv");
    // The CA takes its time to ask, so that there is a middle.
    let slow = [("PEBBLE_VA_NOSLEEP", "0"), ("PEBBLE_VA_SLEEPTIME", "3")];
    let (mut rig, _ca) = start_with(&site("\"a.acme.test\""), "", &json!({}), &slow);
    let challenges = rig.path("state/challenges");
    eventually("the CA to be asked", || {
        (!files_below(&challenges).is_empty()).then_some(())
    });
    rig.edge().kill();
    let accounts = files_below(&rig.path("state/accounts"));
    assert_eq!(accounts.len(), 1);

    rig.start_edge();

    issued(&rig, "a.acme.test");
    eventually("the answers to be taken back", || {
        files_below(&challenges).is_empty().then_some(())
    });
    assert_eq!(
        files_below(&rig.path("state/accounts")),
        accounts,
        "one account"
    );
    assert!(record(&rig)["failure"].is_null());
}

#[test]
fn what_the_ca_refuses_is_told_with_its_words_and_an_advice_and_renew_tries_again_at_once() {
    need!("pebble", "pebble-challtestsrv");
    let mut rig = Setup::default().prepare();
    let ca = Pebble::start(&rig);
    // Somewhere else: nobody answers there.
    ca.lead("a.acme.test", "127.0.0.66");
    let keys = format!("{}challenge = \"http-01\"\n", ca.keys());
    rig.write_config(&setup(&keys, &site("\"a.acme.test\"")));
    rig.start_registry();
    rig.start_edge();

    let log = eventually("the failure to be told", || {
        let log = rig.edge_log();
        log.contains("no certificate was issued").then_some(log)
    });
    for told in [
        "a.acme.test",
        "connection",
        "127.0.0.66",
        "check that its A and AAAA records",
    ] {
        assert!(log.contains(told), "{told} is not in\n{log}");
    }
    // The site goes on with what it has, and the trouble can be seen.
    assert!(peer_certificate(rig.https, "a.acme.test").is_some());
    let listed = tidegate_with(&rig, &["certs", "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let failure = &listed[1]["order"]["failure"];
    assert_eq!(failure["problem"], "connection", "{listed}");
    assert_eq!(failure["host"], "a.acme.test");
    assert_eq!(failure["count"], 1);
    assert!(
        tidegate_with(&rig, &["certs"])
            .stdout
            .contains("advice   the CA cannot connect")
    );
    let checked = tidegate_with(&rig, &["check"]);
    assert_eq!(checked.code, Some(1), "{checked}");
    assert!(
        checked
            .stderr
            .contains("a.acme.test: has no certificate yet"),
        "{checked}"
    );

    // An edge that is to put it right can be started all the same.
    assert!(tidegate_with(&rig, &["check", "--role", "edge"]).success);

    // A second failure is counted; asked by hand, it does not wait.
    let renewed = tidegate_with(&rig, &["renew"]);
    assert_eq!(renewed.code, Some(1), "{renewed}");
    assert!(renewed.stderr.contains("(connection)"), "{renewed}");
    ca.lead_home("a.acme.test");
    let renewed = tidegate_with(&rig, &["renew", "a.acme.test"]);
    assert!(renewed.success, "{renewed}\n{}", rig.edge_log());
    assert!(renewed.stdout.contains("a.acme.test: renewed"), "{renewed}");
    issued(&rig, "a.acme.test");
    let checked = tidegate_with(&rig, &["check"]);
    assert!(checked.success, "{checked}");
}

#[test]
fn a_ca_that_rejects_every_fifth_nonce_is_convinced_all_the_same() {
    need!("pebble", "pebble-challtestsrv");
    let reject = [("PEBBLE_WFE_NONCEREJECT", "20")];
    let (rig, _ca) = start_with(&site("\"a.acme.test\""), "", &json!({}), &reject);
    issued(&rig, "a.acme.test");
}

#[test]
fn a_ca_that_is_down_is_waited_for_and_another_one_steps_in() {
    need!("pebble", "pebble-challtestsrv");
    let mut rig = Setup::default().prepare();
    let mut ca = Pebble::start(&rig);
    ca.stop();
    rig.write_config(&setup(&ca.keys(), &site("\"a.acme.test\"")));
    rig.start_registry();
    rig.start_edge();
    eventually("the failure to be told", || {
        rig.edge_log()
            .contains("no certificate was issued")
            .then_some(())
    });
    assert!(
        rig.edge_log().contains("the CA could not be asked"),
        "{}",
        rig.edge_log()
    );

    // With another one beside it nobody has to wait.
    let other = Pebble::start_at(&rig, "other", &json!({}), &[]);
    let fallback = format!("{}[acme.fallback]\n{}", ca.keys(), other.keys());
    let fallback = fallback.replace(
        "[acme.fallback]\nagree_to_terms = true\n",
        "[acme.fallback]\n",
    );
    rig.write_config(&setup(&fallback, &site("\"a.acme.test\"")));
    rig.reload_edge();
    eventually("the reload", || {
        rig.edge_log().contains("config reloaded").then_some(())
    });
    let renewed = tidegate_with(&rig, &["renew"]);
    assert!(renewed.success, "{renewed}\n{}", rig.edge_log());
    let by_other = presented(&rig, "a.acme.test");

    // Back again, and with no memory of us: a new account is made.
    ca.restart();
    let renewed = tidegate_with(&rig, &["renew"]);
    assert!(renewed.success, "{renewed}\n{}", rig.edge_log());
    assert!(presented(&rig, "a.acme.test") != by_other);
    ca.restart();
    let renewed = tidegate_with(&rig, &["renew"]);
    assert!(renewed.success, "{renewed}\n{}", rig.edge_log());
    assert!(
        rig.edge_log()
            .contains("does not know the account any more"),
        "{}",
        rig.edge_log()
    );
}
