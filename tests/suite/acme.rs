//! Certificates that look after themselves, by a real CA.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use openssl::x509::X509;
use serde_json::{Value, json};

use crate::harness::{
    Client, Output, PASSWORD, Pair, Pebble, Process, Rig, Setup, USER, digest, eventually,
    eventually_within, free_port, need, noise, peer_certificate, tidegate, try_run, with_query,
};

/// A site whose certificate is the CA's business.
fn site(hosts: &str) -> String {
    format!(
        "[[site]]\nhosts = [{hosts}]\ncertificate = \"acme\"\nupstream = \"registry\"\n\
         [site.auth]\nhtpasswd_file = \"htpasswd\"\n"
    )
}

fn setup(acme: &str, sites: &str) -> Setup {
    Setup {
        tables: format!("[acme]\n{acme}\n{sites}"),
        ..Setup::default()
    }
}

/// Both roles, with a CA that knows where to ask.
fn start(sites: &str) -> (Rig, Pebble) {
    start_with(sites, "", &json!({}), &[])
}

fn start_with(
    sites: &str,
    keys: &str,
    settings: &Value,
    environment: &[(&'static str, &'static str)],
) -> (Rig, Pebble) {
    let mut rig = Setup::default().prepare();
    let ca = Pebble::start_with(&rig, settings, environment);
    rig.write_config(&setup(&format!("{}{keys}", ca.keys()), sites));
    rig.start_registry();
    rig.start_edge();
    (rig, ca)
}

fn live(rig: &Rig, site: &str) -> PathBuf {
    rig.path("state/live").join(site)
}

/// Waits until the CA's certificate is presented.
fn issued(rig: &Rig, host: &str) -> X509 {
    eventually("a certificate of the CA", || {
        let presented = peer_certificate(rig.https, host)?;
        let issuer = format!("{:?}", presented.issuer_name());
        issuer.contains("Pebble").then_some(presented)
    })
}

#[test]
fn a_site_is_served_at_once_and_has_its_certificate_soon_after() {
    need!("pebble", "pebble-challtestsrv");
    let (mut rig, ca) = start(&site("\"a.acme.test\", \"b.acme.test\""));
    rig.wait_until_ready();

    let certificate = issued(&rig, "b.acme.test");

    let names = certificate.subject_alt_names().unwrap();
    let names: Vec<_> = names.iter().filter_map(|name| name.dnsname()).collect();
    assert_eq!(names.len(), 2, "one certificate for both: {names:?}");
    let (log, issue) = eventually("the line about it", || {
        let log = rig.edge_log();
        let issue = log.find("a certificate was issued and is in use")?;
        Some((log, issue))
    });
    let placeholder = log.find("serving a self-signed placeholder");
    assert!(placeholder.is_some_and(|at| at < issue), "{log}");

    // What was found is what a person would look for, and for the edge alone.
    let folder = live(&rig, "a.acme.test");
    let chain = fs::read(folder.join("fullchain.pem")).unwrap();
    assert!(X509::stack_from_pem(&chain).unwrap().len() > 1, "a chain");
    let key = fs::metadata(folder.join("privkey.pem")).unwrap();
    assert_eq!(key.mode() & 0o777, 0o600);

    // A client that trusts the CA is served, and after a restart without another order.
    let trusting = Client::tls(rig.https, "a.acme.test", &ca.root());
    trusting.get("/v2/").expect(401);
    let before = certificate.to_der().unwrap();
    rig.crash_edge();
    let after = peer_certificate(rig.https, "a.acme.test").unwrap();
    assert!(after.to_der().unwrap() == before, "the same certificate");
    assert!(
        fs::read_dir(rig.path("state/challenges"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn a_root_file_is_trusted_beside_whom_the_system_trusts() {
    need!("pebble", "pebble-challtestsrv");
    let mut rig = Setup::default().prepare();
    let ca = Pebble::start(&rig);
    // The file names somebody else, as it may for the other one of two CAs.
    let own = format!("root_file = \"{}\"", ca.identity.cert.display());
    let other = format!("root_file = \"{}\"", rig.certificate.cert.display());
    let keys = ca.keys().replace(&own, &other);
    assert!(keys.contains(&other), "{keys}");
    rig.write_config(&setup(&keys, &site("\"a.acme.test\"")));
    rig.start_registry();
    let mut command = tidegate();
    command
        .args(["edge", "--config"])
        .arg(rig.config())
        .env("SSL_CERT_FILE", &ca.identity.cert);
    let _edge = Process::start(&mut command, &rig.path("edge.log"));
    issued(&rig, "a.acme.test");
}

#[test]
fn a_ca_that_rejects_every_fifth_nonce_is_convinced_all_the_same() {
    need!("pebble", "pebble-challtestsrv");
    let reject = [("PEBBLE_WFE_NONCEREJECT", "20")];
    let (rig, _ca) = start_with(&site("\"a.acme.test\""), "", &json!({}), &reject);
    issued(&rig, "a.acme.test");
}

/// Runs `tidegate` with the rig's config.
fn tidegate_with(rig: &Rig, arguments: &[&str]) -> Output {
    let config = rig.config();
    let mut command = tidegate();
    command.args(arguments).arg("--config").arg(&config);
    try_run(&mut command)
}

fn presented(rig: &Rig, host: &str) -> Vec<u8> {
    let certificate = peer_certificate(rig.https, host).unwrap();
    certificate.to_der().unwrap()
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
fn a_renewal_is_swapped_in_while_clients_come_and_a_push_goes_on() {
    need!("pebble", "pebble-challtestsrv");
    let (rig, ca) = start(&site("\"a.acme.test\""));
    issued(&rig, "a.acme.test");
    let before = presented(&rig, "a.acme.test");
    let root = ca.root();
    let client = Client::tls(rig.https, "a.acme.test", &root).as_user(USER, PASSWORD);
    let stop = AtomicBool::new(false);

    let connections = thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut connections = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                client.get("/v2/").expect(200);
                connections += 1;
            }
            connections
        });
        let session = client.post("/v2/swap/app/blobs/uploads/").expect(202);
        let location = session.header("Location").unwrap().to_owned();
        let content = noise(8 << 20, 7);
        let length = content.len().to_string();
        let put = with_query(&location, &format!("digest={}", digest(&content)));
        let request = client
            .request("PUT", &put)
            .header("Content-Length", &length);
        let mut upload = request.open().unwrap();
        let (first, last) = content.split_at(content.len() / 2);
        upload.write(first).unwrap();

        let renewed = tidegate_with(&rig, &["renew"]);
        assert!(renewed.success, "{renewed}\n{}", rig.edge_log());
        eventually("the new certificate", || {
            (presented(&rig, "a.acme.test") != before).then_some(())
        });

        upload.write(last).unwrap();
        upload.reply().unwrap().expect(201);
        stop.store(true, Ordering::Relaxed);
        connecting.join().unwrap()
    });
    assert!(connections > 20, "{connections} connections");
    let archived = fs::read_dir(rig.path("state/archive/a.acme.test")).unwrap();
    assert_eq!(archived.count(), 2, "the one before is kept");
}

#[test]
fn the_tls_listener_answers_where_no_plain_one_can() {
    need!("pebble", "pebble-challtestsrv");
    let keys = "challenge = \"tls-alpn-01\"\n";
    let (rig, _ca) = start_with(
        &site("\"a.acme.test\", \"b.acme.test\""),
        keys,
        &json!({}),
        &[],
    );
    issued(&rig, "b.acme.test");
    eventually("the line about it", || {
        let log = rig.edge_log();
        log.contains("challenge=\"tls-alpn-01\"").then_some(())
    });
}

#[test]
fn a_wildcard_is_proven_by_the_hook() {
    need!("pebble", "pebble-challtestsrv", "curl");
    let mut rig = Setup::default().prepare();
    let ca = Pebble::start(&rig);
    let hook = rig.path("dns-hook");
    let script = format!(
        "#!/bin/sh\necho \"$1 $2\" >> {calls}\ncase $1 in add) verb=set-txt;; *) verb=clear-txt;; esac\n\
         exec curl -sf -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://{records}/$verb\n",
        calls = rig.path("calls").display(),
        records = ca.records(),
    );
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let keys = format!(
        "{}dns = {{ program = \"dns-hook\", propagation = \"0s\" }}\n",
        ca.keys()
    );
    rig.write_config(&setup(&keys, &site("\"*.acme.test\"")));
    rig.start_registry();
    rig.start_edge();

    issued(&rig, "any.acme.test");

    let calls = eventually("the record to be removed", || {
        let calls = fs::read_to_string(rig.path("calls")).ok()?;
        (calls.lines().count() == 2).then_some(calls)
    });
    assert_eq!(
        calls,
        "add _acme-challenge.acme.test\nremove _acme-challenge.acme.test\n"
    );
    assert!(
        live(&rig, "wildcard.acme.test")
            .join("fullchain.pem")
            .exists()
    );
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
    // What was asked for once holds for hours; a record that is gone is asked for again.
    rig.edge().terminate();
    let record = rig.path("state/orders/a.acme.test.json");
    let mut known: Value = serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
    known["renewal_info"] = Value::Null;
    fs::write(&record, known.to_string()).unwrap();

    rig.start_edge();

    eventually("the replacement", || {
        let now = peer_certificate(rig.https, "a.acme.test")?
            .to_der()
            .unwrap();
        (now != before).then_some(())
    });
    assert!(rig.edge_log().contains("https://ca.test/incident"));
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

#[test]
fn a_ca_that_wants_an_account_of_its_own_issues_for_six_days() {
    need!("pebble", "pebble-challtestsrv");
    let mut rig = Setup::default().prepare();
    let settings = json!({
        "externalAccountBindingRequired": true,
        "externalAccountMACKeys": { "kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W" },
        "profiles": { "shortlived": { "description": "six days", "validityPeriod": 518_400 } },
    });
    let ca = Pebble::start_with(&rig, &settings, &[]);
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n";
    fs::write(rig.path("eab.key"), key).unwrap();
    let keys = format!(
        "{}profile = \"shortlived\"\nexternal_account = {{ id = \"kid-1\", key_file = \"eab.key\" }}\n",
        ca.keys()
    );
    rig.write_config(&setup(&keys, &site("\"a.acme.test\"")));
    rig.start_registry();
    rig.start_edge();
    issued(&rig, "a.acme.test");

    // The CA is asked when to renew, and says so: well before the six days are over.
    let limit = Duration::from_secs(90);
    let next = eventually_within(limit, "the time of the renewal", || {
        let listed = tidegate_with(&rig, &["certs", "--json"]);
        let listed: Value = serde_json::from_str(&listed.stdout).ok()?;
        assert_eq!(listed[1]["days_left"], 5, "{listed}");
        let order = &listed[1]["order"];
        order["renewal_info"]["start"].as_str()?;
        let next = humantime::parse_rfc3339(order["next"].as_str()?).unwrap();
        Some(next.duration_since(SystemTime::now()).unwrap())
    });
    let days = next.as_secs_f64() / 86_400.0;
    assert!((1.0..5.5).contains(&days), "{days}");
}
