//! When certificates are ordered again, by whom, and those that somebody else has ordered.

use std::fs;
use std::time::Duration;

use openssl::x509::X509;
use serde_json::{Value, json};

use crate::acme::{issued, live, presented, setup, site, start, start_with, tidegate_with};
use crate::harness::{
    Pair, Process, Rig, Setup, eventually, eventually_within, free_port, need, peer_certificate,
    tidegate,
};

/// Starts the edge anew, without what it was told about when to renew: that holds for hours.
fn restart_and_ask_again(rig: &mut Rig) {
    rig.edge().terminate();
    let record = rig.path("state/orders/a.acme.test.json");
    let mut known: Value = serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
    known["renewal_info"] = Value::Null;
    fs::write(&record, known.to_string()).unwrap();
    rig.start_edge();
}

#[test]
fn a_revoked_certificate_is_replaced_as_soon_as_the_ca_is_asked() {
    need!("pebble", "pebble-challtestsrv");
    let (mut rig, ca) = start(&site("\"a.acme.test\""));
    issued(&rig, "a.acme.test");
    let before = presented(&rig, "a.acme.test");
    let folder = live(&rig, "a.acme.test");
    ca.revoke(&folder.join("fullchain.pem"), &folder.join("privkey.pem"));

    restart_and_ask_again(&mut rig);

    eventually("the replacement", || {
        let now = peer_certificate(rig.https, "a.acme.test")?;
        (now.to_der().unwrap() != before).then_some(())
    });
}

#[test]
fn a_certificate_that_the_ca_wants_back_is_replaced() {
    need!("pebble", "pebble-challtestsrv");
    let (mut rig, ca) = start(&site("\"a.acme.test\""));
    let certificate = issued(&rig, "a.acme.test");
    let before = presented(&rig, "a.acme.test");
    let window = json!({
        "suggestedWindow": { "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" },
        "explanationURL": "https://ca.test/incident",
    });
    let pem = String::from_utf8(certificate.to_pem().unwrap()).unwrap();
    let body = json!({ "Certificate": pem, "ARIResponse": window.to_string() }).to_string();
    let manage = ca.manage();
    let request = manage.request("POST", "/set-renewal-info/");
    request
        .header("User-Agent", "suite")
        .body(body)
        .send()
        .expect(200);
    restart_and_ask_again(&mut rig);

    eventually("the replacement", || {
        let now = peer_certificate(rig.https, "a.acme.test")?
            .to_der()
            .unwrap();
        (now != before).then_some(())
    });
    assert!(rig.edge_log().contains("https://ca.test/incident"));
}

#[test]
fn another_key_type_and_another_host_are_ordered_at_once() {
    need!("pebble", "pebble-challtestsrv");
    let (mut rig, ca) = start(&site("\"a.acme.test\", \"b.acme.test\""));
    issued(&rig, "a.acme.test");
    let changes = [
        (
            "key_type = \"rsa-2048\"\n",
            "\"a.acme.test\", \"b.acme.test\"",
        ),
        (
            "key_type = \"rsa-2048\"\n",
            "\"a.acme.test\", \"c.acme.test\"",
        ),
    ];
    for (keys, hosts) in changes {
        let before = presented(&rig, "a.acme.test");
        rig.write_config(&setup(&format!("{}{keys}", ca.keys()), &site(hosts)));
        rig.reload_edge();
        eventually("the certificate that is asked for", || {
            (presented(&rig, "a.acme.test") != before).then_some(())
        });
    }
    let certificate = peer_certificate(rig.https, "c.acme.test").unwrap();
    assert_eq!(certificate.public_key().unwrap().bits(), 2048);
    let names = certificate.subject_alt_names().unwrap();
    let names: Vec<_> = names.iter().filter_map(|name| name.dnsname()).collect();
    assert!(
        names.contains(&"c.acme.test") && !names.contains(&"b.acme.test"),
        "{names:?}"
    );

    // One of each kind: what is there stays, and who can verify ECDSA is shown the other one.
    let both = format!("{}key_type = [\"rsa-2048\", \"ecdsa-p256\"]\n", ca.keys());
    rig.write_config(&setup(&both, &site("\"a.acme.test\", \"c.acme.test\"")));
    rig.reload_edge();
    eventually("the certificate for the other key", || {
        let shown = peer_certificate(rig.https, "c.acme.test")?;
        (shown.public_key().unwrap().bits() == 256).then_some(())
    });
    let kept = fs::read(live(&rig, "a.acme.test").join("fullchain.pem")).unwrap();
    let kept = X509::from_pem(&kept).unwrap();
    assert!(kept.to_der().unwrap() == certificate.to_der().unwrap());
    let listed = tidegate_with(&rig, &["certs"]).stdout;
    for (name, key) in [
        ("a.acme.test", "rsa-2048"),
        ("a.acme.test+ecdsa", "ecdsa-p256"),
    ] {
        let chain = live(&rig, name).join("fullchain.pem").display().to_string();
        assert!(listed.contains(&chain) && listed.contains(key), "{listed}");
    }
}

#[test]
fn a_dry_run_replaces_nothing_and_without_an_edge_renew_runs_one() {
    need!("pebble", "pebble-challtestsrv");
    let (mut rig, _ca) = start(&site("\"a.acme.test\""));
    issued(&rig, "a.acme.test");
    let before = presented(&rig, "a.acme.test");
    let tried = tidegate_with(&rig, &["renew", "--dry-run"]);
    assert!(
        tried.success && tried.stdout.contains("could be renewed"),
        "{tried}"
    );
    assert!(presented(&rig, "a.acme.test") == before);
    let unknown = tidegate_with(&rig, &["renew", "x.acme.test"]);
    assert!(
        unknown.stderr.contains("there is no such site"),
        "{unknown}"
    );

    rig.edge().terminate();
    let renewed = tidegate_with(&rig, &["renew"]);
    assert!(renewed.success, "{renewed}");
    assert!(renewed.stderr.contains("no edge runs"), "{renewed}");
    rig.start_edge();
    eventually("the edge", || peer_certificate(rig.https, "a.acme.test"));
    assert!(presented(&rig, "a.acme.test") != before);
}

#[test]
fn certbots_certificates_are_used_as_they_are_and_taken_over() {
    let mut rig = Setup::default().prepare();
    let folder = rig.path("letsencrypt/live/localhost");
    fs::create_dir_all(&folder).unwrap();
    let certbot = Pair::create(&folder, "pair", &["localhost"]);
    fs::rename(&certbot.cert, folder.join("fullchain.pem")).unwrap();
    fs::rename(&certbot.key, folder.join("privkey.pem")).unwrap();
    let text = fs::read_to_string(rig.config()).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("certificate ="))
        .unwrap();
    let used = "certificate = { cert_file = \"letsencrypt/live/localhost/fullchain.pem\", key_file = \"letsencrypt/live/localhost/privkey.pem\" }";
    fs::write(rig.config(), text.replace(line, used)).unwrap();
    rig.start_registry();
    rig.start_edge();
    eventually("the edge", || peer_certificate(rig.https, "localhost"));
    let before = presented(&rig, "localhost");
    // Certbot renews, and nobody says a word to the edge.
    let renewed = Pair::create(&folder, "next", &["localhost"]);
    fs::rename(&renewed.key, folder.join("privkey.pem")).unwrap();
    fs::rename(&renewed.cert, folder.join("fullchain.pem")).unwrap();
    eventually("the certificate to be picked up", || {
        (presented(&rig, "localhost") != before).then_some(())
    });

    let acme = text.replace(line, "certificate = \"acme\"").replace(
        "\"localhost\", \"127.0.0.1\", \"registry.test\"",
        "\"localhost\"",
    );
    // Nobody is asked: what is taken over is good for two days and was made a moment ago.
    fs::write(
        rig.config(),
        format!("{acme}\n[acme]\nagree_to_terms = true\ndirectory = \"https://localhost:1/dir\"\n"),
    )
    .unwrap();
    let from = rig.path("letsencrypt");
    let imported = tidegate_with(&rig, &["certs", "import", &from.to_string_lossy()]);
    assert!(imported.success, "{imported}");
    let current = presented(&rig, "localhost");
    rig.edge().kill();
    rig.start_edge();
    let restarted = eventually("the edge", || peer_certificate(rig.https, "localhost"));
    assert!(restarted.to_der().unwrap() == current);
    let listed = tidegate_with(&rig, &["certs"]);
    assert!(listed.stdout.contains("source   acme"), "{listed}");
}

#[test]
fn of_two_edges_on_one_folder_either_orders_and_both_answer_and_present() {
    need!("pebble", "pebble-challtestsrv");
    for challenge in ["http-01", "tls-alpn-01"] {
        let keys = format!("challenge = \"{challenge}\"\n");
        let (rig, _ca) = start_with(&site("\"a.acme.test\""), &keys, &json!({}), &[]);
        issued(&rig, "a.acme.test");
        // The other one has ports of its own, which the CA never asks.
        let (http, https) = (free_port(), free_port());
        let text = fs::read_to_string(rig.config()).unwrap();
        let text = text
            .replace(&format!(":{}\"", rig.http.port()), &format!(":{http}\""))
            .replace(&format!(":{}\"", rig.https.port()), &format!(":{https}\""));
        let (config, log) = (rig.path("other.toml"), rig.path("other.log"));
        fs::write(&config, text).unwrap();
        let mut command = tidegate();
        command.args(["edge", "--config"]).arg(&config);
        let other = Process::start(&mut command, &log);
        let mut address = rig.https;
        address.set_port(https);
        let present = |address| {
            let certificate = peer_certificate(address, "a.acme.test")?;
            Some(certificate.to_der().unwrap())
        };
        eventually("the other edge", || present(address));
        assert!(
            present(address) == present(rig.https),
            "what one got the other shows"
        );

        // Whoever sees the wish first fulfils it: in the end that is the other one, too.
        eventually_within(Duration::from_secs(120), "the other edge's order", || {
            let renewed = tidegate_with(&rig, &["renew"]);
            assert!(renewed.success, "{renewed}\n{}", other.log());
            other
                .log()
                .contains("a certificate was issued")
                .then_some(())
        });
        eventually("both to present the same", || {
            (present(address)? == present(rig.https)?).then_some(())
        });
    }
}
