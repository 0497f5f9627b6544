//! Certificates that look after themselves, by a real CA.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use openssl::x509::X509;
use serde_json::{Value, json};

use crate::harness::{
    Client, Output, Pebble, Process, Rig, Setup, eventually, eventually_within, need,
    peer_certificate, tidegate, try_run,
};

/// A site whose certificate is the CA's business.
pub(crate) fn site(hosts: &str) -> String {
    format!(
        "[[site]]\nhosts = [{hosts}]\ncertificate = \"acme\"\nupstream = \"registry\"\n\
         [site.auth]\nhtpasswd_file = \"htpasswd\"\n"
    )
}

pub(crate) fn setup(acme: &str, sites: &str) -> Setup {
    Setup {
        tables: format!("[acme]\n{acme}\n{sites}"),
        ..Setup::default()
    }
}

/// Both roles, with a CA that knows where to ask.
pub(crate) fn start(sites: &str) -> (Rig, Pebble) {
    start_with(sites, "", &json!({}), &[])
}

pub(crate) fn start_with(
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

pub(crate) fn live(rig: &Rig, site: &str) -> PathBuf {
    rig.path("state/live").join(site)
}

/// Waits until the CA's certificate is presented.
pub(crate) fn issued(rig: &Rig, host: &str) -> X509 {
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

/// Runs `tidegate` with the rig's config.
pub(crate) fn tidegate_with(rig: &Rig, arguments: &[&str]) -> Output {
    let config = rig.config();
    let mut command = tidegate();
    command.args(arguments).arg("--config").arg(&config);
    try_run(&mut command)
}

pub(crate) fn presented(rig: &Rig, host: &str) -> Vec<u8> {
    let certificate = peer_certificate(rig.https, host).unwrap();
    certificate.to_der().unwrap()
}

#[test]
fn a_challenge_is_answered_to_whom_the_lists_of_a_plain_listener_keep_out_and_nothing_else() {
    need!("pebble", "pebble-challtestsrv");
    let mut rig = Setup::default().prepare();
    // Slow enough for others to come in the middle of it.
    let slow = [("PEBBLE_VA_NOSLEEP", "0"), ("PEBBLE_VA_SLEEPTIME", "3")];
    let ca = Pebble::start_with(&rig, &json!({}), &slow);
    let keys = format!("{}challenge = \"http-01\"\n", ca.keys());
    let allowed = "allow_from = [\"192.0.2.1\"]\n";
    let sites = format!("{}[site.access]\n{allowed}", site("\"a.acme.test\""));
    rig.write_config(&setup(&keys, &sites));
    let text = fs::read_to_string(rig.config()).unwrap();
    let plain = format!("address = \"{}\"\n", rig.http);
    let text = text.replace(&plain, &format!("{plain}{allowed}"));
    fs::write(rig.config(), text).unwrap();
    rig.start_registry();
    rig.start_edge();

    let visitor = Client::plain(rig.http, "a.acme.test");
    let mut open = 0;
    eventually("the certificate", || {
        let challenges = fs::read_dir(rig.path("state/challenges"));
        let is_open = challenges.is_ok_and(|mut entries| entries.next().is_some());
        open += u32::from(is_open);
        for path in ["/", "/.well-known/acme-challenge/unknown"] {
            let reply = visitor.request("GET", path).try_send();
            assert!(reply.is_err(), "{path}: {reply:?}");
        }
        let presented = peer_certificate(rig.https, "a.acme.test")?;
        format!("{:?}", presented.issuer_name())
            .contains("Pebble")
            .then_some(())
    });
    assert!(open > 0, "nobody came while a challenge was open");
    let log = rig.edge_log();
    assert!(log.contains("because=listener[0].allow_from"), "{log}");
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

/// The name of who issued the last certificate of what the edge has got.
fn root_of(rig: &Rig) -> String {
    let chain = fs::read(live(rig, "a.acme.test").join("fullchain.pem")).unwrap();
    let chain = X509::stack_from_pem(&chain).unwrap();
    let mut names = chain.last().unwrap().issuer_name().entries();
    names.next().unwrap().data().to_string().unwrap()
}

#[test]
fn of_several_chains_the_preferred_one_is_taken() {
    need!("pebble", "pebble-challtestsrv");
    let roots = [("PEBBLE_ALTERNATE_ROOTS", "2")];
    let (mut rig, ca) = start_with(&site("\"a.acme.test\""), "", &json!({}), &roots);
    issued(&rig, "a.acme.test");
    let offered: Vec<String> = (0..3)
        .map(|number| {
            let root = X509::from_pem(&fs::read(ca.root_number(number)).unwrap()).unwrap();
            let mut names = root.subject_name().entries();
            names.next().unwrap().data().to_string().unwrap()
        })
        .collect();
    assert_eq!(root_of(&rig), offered[0], "the CA's own choice");
    for (preferred, expected) in [
        (&offered[2], &offered[2]),
        (&offered[0], &offered[0]),
        (&offered[1], &offered[1]),
        (&"Nobody's Root".to_owned(), &offered[0]),
    ] {
        let keys = format!("{}preferred_chain = \"{preferred}\"\n", ca.keys());
        rig.write_config(&setup(&keys, &site("\"a.acme.test\"")));
        let reloads = |rig: &Rig| rig.edge_log().matches("config reloaded").count();
        let before = reloads(&rig);
        rig.reload_edge();
        eventually("the reload", || (reloads(&rig) > before).then_some(()));
        let renewed = tidegate_with(&rig, &["renew"]);
        assert!(renewed.success, "{renewed}\n{}", rig.edge_log());
        assert_eq!(root_of(&rig), *expected, "{preferred}");
    }
    let log = rig.edge_log();
    assert!(
        log.contains("the CA has no chain to the preferred root"),
        "{log}"
    );
    assert!(log.contains(&offered.join(", ")), "{log}");
    let trusting = Client::tls(rig.https, "a.acme.test", &ca.root());
    trusting.get("/v2/").expect(401);
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
