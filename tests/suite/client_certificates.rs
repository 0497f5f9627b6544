//! Client certificates: of a real authority, shown by real clients.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{
    Authority, Dockerd, Output, PASSWORD, Pair, Rig, Setup, USER, eventually, heavy,
    layout_with_layers, need, run, skip, tar_of, try_run,
};

/// The hosts of the sites, beside the usual one, and what each asks for.
const SITES: [(&str, &str); 5] = [
    ("required.test", ""),
    (
        "optional.test",
        "client_certificate = \"optional\"\nhtpasswd_file = \"htpasswd\"\n",
    ),
    (
        "both.test",
        "client_principal = \"none\"\nhtpasswd_file = \"htpasswd\"\n",
    ),
    (
        "email.test",
        "client_principal = \"san_email\"\nclient_allow = [\"*@a.test\"]\n",
    ),
    ("ruled.test", ""),
];

/// A rig with a site for each way of asking for a certificate, and the authority they trust.
struct Doors {
    rig: Rig,
    authority: Authority,
}

impl Doors {
    fn open() -> Self {
        Self::open_with("")
    }

    /// With more keys for each site.
    fn open_with(keys: &str) -> Self {
        let mut rig = Setup {
            tables: "[log]\nformat = \"json\"\n".to_owned(),
            ..Setup::default()
        }
        .prepare();
        let folder = rig.config().parent().unwrap().to_owned();
        let authority = Authority::found(&folder, "clients");
        let names: Vec<&str> = SITES.iter().map(|(host, _)| *host).collect();
        let names = [&["localhost", "registry.test"], &names[..]].concat();
        Pair::create(&folder, "cert", &names);
        let mut text = fs::read_to_string(rig.config()).unwrap();
        for (host, more) in SITES {
            text += &format!(
                "[[site]]\nhosts = [\"{host}\"]\nupstream = \"registry\"\n\
                 certificate = {{ cert_file = \"cert.pem\", key_file = \"cert-key.pem\" }}\n\
                 [site.auth]\nclient_ca_file = \"clients/root.pem\"\n{more}{keys}"
            );
        }
        // The last of them has rules.
        text += "[[site.access.rule]]\nrepositories = [\"team/**\"]\nwho = [\"@dev\"]\n\
                 actions = [\"pull\", \"push\"]\n\
                 [[site.access.rule]]\nwho = [\"cert:ci-7\"]\nactions = [\"pull\"]\n";
        fs::write(rig.config(), text).unwrap();
        rig.start_registry();
        rig.start_edge();
        rig.wait_until_ready();
        Self { rig, authority }
    }

    /// What curl says of `/v2/<path>` at a site, with a certificate or without.
    fn curl(&self, host: &str, path: &str, pair: Option<&Pair>, more: &[&str]) -> Output {
        let port = self.rig.https.port();
        let mut command = Command::new("curl");
        command
            .args(["-s", "-S", "-m", "20", "-w", "\n%{http_code}", "--resolve"])
            .arg(format!("{host}:{port}:127.0.0.1"))
            .arg("--cacert")
            .arg(self.rig.path("cert.pem"))
            .args(more);
        if let Some(pair) = pair {
            command.arg("--cert").arg(&pair.cert);
            command.arg("--key").arg(&pair.key);
        }
        try_run(command.arg(format!("https://{host}:{port}/v2/{path}")))
    }

    fn status(&self, host: &str, path: &str, pair: Option<&Pair>) -> String {
        let output = self.curl(host, path, pair, &[]);
        let status = output.stdout.lines().last().unwrap_or_default().to_owned();
        assert!(output.success || status == "000", "{output}");
        status
    }

    /// The one line of the edge's log that holds all of these.
    fn logged(&self, parts: &[&str]) -> String {
        eventually("a line of the log", || self.rig.edge_lines(parts).pop())
    }
}

/// The certificates that are shown, good and bad.
struct Wallet {
    good: Pair,
    expired: Pair,
    early: Pair,
    server: Pair,
    stranger: Pair,
}

impl Wallet {
    fn of(doors: &Doors) -> Self {
        let authority = &doors.authority;
        let folder = doors.rig.config().parent().unwrap().to_owned();
        let stranger = Authority::found(&folder, "strangers");
        let client = "extendedKeyUsage=clientAuth\n";
        let subject = "/CN=ci-7/OU=dev/OU=night";
        let early = authority.issue("early", subject);
        make_early(authority, &early);
        Self {
            good: authority.issue("good", subject),
            expired: authority.issue_with("expired", subject, client, -1),
            early,
            server: authority.issue_with("server", subject, "extendedKeyUsage=serverAuth\n", 10),
            stranger: stranger.issue("stranger", subject),
        }
    }
}

/// Signs the certificate again, to begin in a year.
fn make_early(authority: &Authority, pair: &Pair) {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::x509::{X509, X509Builder};
    let read = |file: PathBuf| fs::read(file).unwrap();
    let issuer = X509::from_pem(&read(authority.at("intermediate.pem"))).unwrap();
    let key = PKey::private_key_from_pem(&read(authority.at("intermediate.key"))).unwrap();
    let before = X509::from_pem(&read(pair.cert.clone())).unwrap();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(before.serial_number()).unwrap();
    builder.set_subject_name(before.subject_name()).unwrap();
    builder.set_issuer_name(issuer.subject_name()).unwrap();
    builder.set_pubkey(&before.public_key().unwrap()).unwrap();
    let (from, to) = (Asn1Time::days_from_now(365), Asn1Time::days_from_now(400));
    builder.set_not_before(&from.unwrap()).unwrap();
    builder.set_not_after(&to.unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let chain = [builder.build().to_pem().unwrap(), issuer.to_pem().unwrap()];
    fs::write(&pair.cert, chain.concat()).unwrap();
}

#[test]
fn where_a_certificate_is_required_a_good_one_comes_in_and_no_other() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let wallet = Wallet::of(&doors);
    assert_eq!(doors.status("required.test", "", Some(&wallet.good)), "200");
    doors.logged(&["\"access\"", "required.test", "ci-7", "200"]);

    for (pair, told) in [
        (None, "no client certificate"),
        (Some(&wallet.expired), "client certificate: expired"),
        (Some(&wallet.early), "client certificate: not yet valid"),
        (
            Some(&wallet.server),
            "client certificate: not made for clients",
        ),
        (
            Some(&wallet.stranger),
            "client certificate: of an unknown authority",
        ),
    ] {
        for version in ["--tlsv1.3", "--tls-max=1.2"] {
            let version = version.replace('=', " ");
            let flags: Vec<&str> = version.split(' ').collect();
            let output = doors.curl("required.test", "", pair, &flags);
            assert!(!output.success, "{told}: {output}");
            // The client is told by an alert, not by a connection that breaks.
            // Of one for an expired certificate curl says its own words.
            let alert = ["alert", "SSL certificate verification failed"];
            let told_so = alert.iter().any(|words| output.stderr.contains(words));
            assert!(told_so, "{told}: {output}");
        }
        let line = doors.logged(&["handshake failed", "required.test", told]);
        assert!(
            line.contains("127.0.0.1") && line.contains("INFO"),
            "{line}"
        );
    }
    // An intermediate is needed that the site does not have.
    let bare = Pair {
        cert: doors.authority.at("bare.pem"),
        key: wallet.good.key.clone(),
    };
    fs::write(&bare.cert, wallet.good.certificate().to_pem().unwrap()).unwrap();
    assert_eq!(doors.status("required.test", "", Some(&bare)), "000");
    for level in ["ERROR", "WARN"] {
        let lines = doors.rig.edge_lines(&[level]);
        assert!(lines.is_empty(), "{lines:#?}");
    }
}

#[test]
fn where_a_certificate_is_optional_nobody_is_asked_to_fail() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let wallet = Wallet::of(&doors);
    let status = |pair| doors.status("optional.test", "", pair);
    assert_eq!(status(None), "401");
    assert_eq!(status(Some(&wallet.good)), "200");
    let login = format!("{USER}:{PASSWORD}");
    let output = doors.curl("optional.test", "", None, &["-u", &login]);
    assert!(output.stdout.ends_with("200"), "{output}");
    // A password is looked at first, and one that is wrong is not made good by a certificate.
    let output = doors.curl("optional.test", "", Some(&wallet.good), &["-u", &login]);
    assert!(output.stdout.ends_with("200"), "{output}");
    doors.logged(&["\"access\"", "optional.test", "\"docker\"", "200"]);
    let output = doors.curl(
        "optional.test",
        "",
        Some(&wallet.good),
        &["-u", "docker:wrong"],
    );
    assert!(output.stdout.ends_with("401"), "{output}");

    for (pair, reason) in [
        (&wallet.expired, "expired"),
        (&wallet.early, "not yet valid"),
        (&wallet.server, "not made for clients"),
        (&wallet.stranger, "of an unknown authority"),
    ] {
        let output = doors.curl("optional.test", "", Some(pair), &["-u", &login]);
        let (body, status) = output.stdout.rsplit_once('\n').unwrap();
        assert_eq!(status, "403", "{reason}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["errors"][0]["code"], "DENIED");
        let message = body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message}");
        doors.logged(&["\"access\"", &format!("certificate: {reason}"), "403"]);
    }
    let lines = doors.rig.edge_lines(&["WARN"]);
    assert!(lines.is_empty(), "{lines:#?}");
}

#[test]
fn a_certificate_can_open_the_door_and_leave_the_name_to_a_password() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let wallet = Wallet::of(&doors);
    let login = format!("{USER}:{PASSWORD}");
    let output = doors.curl("both.test", "", Some(&wallet.good), &["-u", &login]);
    assert!(output.stdout.ends_with("200"), "{output}");
    doors.logged(&["\"access\"", "both.test", "\"docker\"", "200"]);
    assert_eq!(doors.status("both.test", "", Some(&wallet.good)), "401");
    let output = doors.curl("both.test", "", None, &["-u", &login]);
    assert!(!output.success, "{output}");
}

#[test]
fn names_lists_and_units_decide() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let client = "extendedKeyUsage=clientAuth\n";
    let named = |name: &str, email: &str| {
        let extensions = format!("{client}subjectAltName=email:{email},URI:urn:x\n");
        doors.authority.issue_with(name, "/CN=x", &extensions, 10)
    };
    let (inside, outside) = (named("inside", "ci@a.test"), named("outside", "ci@b.test"));
    assert_eq!(doors.status("email.test", "", Some(&inside)), "200");
    doors.logged(&["\"access\"", "email.test", "ci@a.test", "200"]);
    let nameless = doors.authority.issue("nameless", "/CN=ci@a.test");
    for (pair, told) in [
        (&outside, "not of a name that is let in"),
        (&nameless, "without the name that is asked for"),
    ] {
        let output = doors.curl("email.test", "", Some(pair), &[]);
        assert!(output.stdout.contains(told), "{output}");
        assert!(output.stdout.ends_with("403"), "{output}");
    }

    // A certificate's units are groups, and its name is one that rules know.
    let dev = doors.authority.issue("dev", "/CN=eve/OU=night/OU=dev");
    let ci = doors.authority.issue("ci", "/CN=ci-7/OU=night");
    let push = |path: &str, pair| {
        let output = doors.curl("ruled.test", path, Some(pair), &["-X", "POST", "-d", ""]);
        output.stdout.lines().last().unwrap().to_owned()
    };
    assert_eq!(push("team/app/blobs/uploads/", &dev), "202");
    assert_eq!(push("other/app/blobs/uploads/", &dev), "403");
    assert_eq!(push("team/app/blobs/uploads/", &ci), "403");
    assert_eq!(
        doors.status("ruled.test", "other/app/tags/list", Some(&ci)),
        "404"
    );
}

#[test]
fn a_token_for_a_certificate_is_good_with_that_certificate_alone() {
    need!("openssl", "curl");
    let doors = Doors::open_with("scheme = \"both\"\n");
    let [eve, other] = ["eve", "other"].map(|name| {
        let subject = format!("/CN={name}/OU=dev");
        doors.authority.issue(name, &subject)
    });
    let port = doors.rig.https.port();
    let desk = format!(
        "https://optional.test:{port}/auth/token?service=optional.test&scope=repository:a/b:pull,push"
    );
    let mut curl = Command::new("curl");
    curl.args(["-s", "-S", "--resolve"])
        .arg(format!("optional.test:{port}:127.0.0.1"))
        .arg("--cacert")
        .arg(doors.rig.path("cert.pem"))
        .arg("--cert")
        .arg(&eve.cert)
        .arg("--key")
        .arg(&eve.key)
        .arg(desk);
    let reply: serde_json::Value = serde_json::from_str(&run(&mut curl)).unwrap();
    let bearer = format!(
        "Authorization: Bearer {}",
        reply["token"].as_str().unwrap_or_else(|| panic!("{reply}"))
    );
    for (pair, status) in [(Some(&eve), "404"), (Some(&other), "401"), (None, "401")] {
        let output = doors.curl("optional.test", "a/b/tags/list", pair, &["-H", &bearer]);
        assert!(output.stdout.ends_with(status), "{output}");
    }
}

#[test]
fn a_revoked_certificate_is_refused_as_soon_as_the_list_says_so() {
    need!("openssl", "curl");
    let doors = Doors::open_with("client_crl_files = [\"clients/crl.pem\"]\n");
    let lost = doors.authority.issue("lost", "/CN=lost");
    let kept = doors.authority.issue("kept", "/CN=kept");
    for pair in [&lost, &kept] {
        assert_eq!(doors.status("required.test", "", Some(pair)), "200");
        assert_eq!(doors.status("optional.test", "", Some(pair)), "200");
    }
    // A connection that is kept is looked at again, too.
    let client = doors.rig.anonymous().for_host("required.test");
    let mut connection = client.with_certificate(&lost).connect().unwrap();
    let mut ask = || {
        connection.write(b"GET /v2/ HTTP/1.1\r\nHost: required.test\r\n\r\n")?;
        connection.reply()
    };
    assert_eq!(ask().unwrap().status, 200);

    doors.authority.revoke(&lost);
    eventually("the list to be picked up", || {
        (doors.status("required.test", "", Some(&lost)) == "000").then_some(())
    });
    doors.logged(&["handshake failed", "client certificate: revoked"]);
    let refused = ask().unwrap().expect_error(403, "DENIED");
    assert!(refused.text().contains("revoked"), "{}", refused.text());
    let output = doors.curl("optional.test", "", Some(&lost), &[]);
    assert!(output.stdout.contains("revoked") && output.stdout.ends_with("403"));
    assert_eq!(doors.status("required.test", "", Some(&kept)), "200");

    let lines = doors.rig.edge_lines(&["WARN"]);
    assert!(lines.is_empty(), "{lines:#?}");

    // A list that cannot be used changes nothing.
    fs::write(doors.authority.at("crl.pem"), "nonsense").unwrap();
    doors.logged(&["ERROR", "holds no revocation list"]);
    assert_eq!(doors.status("required.test", "", Some(&kept)), "200");
    assert_eq!(doors.status("required.test", "", Some(&lost)), "000");
}

#[test]
fn authorities_without_a_revocation_list_are_warned_of() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let config = doors.rig.config();
    let text = fs::read_to_string(&config).unwrap();
    let with_lists = |file: &str| {
        let keys = format!("client_crl_files = [\"clients/{file}\"]\n");
        let text = text.replace("client_ca_file", &format!("{keys}client_ca_file"));
        fs::write(&config, text).unwrap();
        try_run(
            crate::harness::tidegate()
                .arg("check")
                .arg("--config")
                .arg(&config),
        )
    };
    let output = with_lists("intermediate.crl");
    assert!(output.success, "{output}");
    let told = format!("{output}");
    assert!(
        told.contains("there is no revocation list of O=clients, CN=clients root"),
        "{told}"
    );
    let output = with_lists("none.crl");
    assert!(!output.success, "{output}");
    assert!(
        output.stderr.contains("auth.client_crl_files[0]"),
        "{output}"
    );
    let output = with_lists("root.pem");
    assert!(
        output.stderr.contains("holds no revocation list"),
        "{output}"
    );
}

#[test]
fn an_intermediate_can_be_trusted_and_its_root_not() {
    need!("openssl", "curl");
    let mut doors = Doors::open();
    let one = doors.authority.issue("one", "/CN=one");
    let other = doors.authority.issue_by_another("other", "/CN=other");
    for pair in [&one, &other] {
        assert_eq!(doors.status("required.test", "", Some(pair)), "200");
    }
    let text = fs::read_to_string(doors.rig.config()).unwrap();
    let text = text.replace("clients/root.pem", "clients/intermediate.pem");
    fs::write(doors.rig.config(), &text).unwrap();
    doors.rig.reload_edge();
    eventually("the root to be left out", || {
        (doors.status("required.test", "", Some(&other)) == "000").then_some(())
    });
    assert_eq!(doors.status("required.test", "", Some(&one)), "200");

    // Its own list is enough.
    let lost = doors.authority.issue("lost", "/CN=lost");
    doors.authority.revoke(&lost);
    let listed = text.replace(
        "clients/intermediate.pem\"\n",
        "clients/intermediate.pem\"\nclient_crl_files = [\"clients/intermediate.crl\"]\n",
    );
    fs::write(doors.rig.config(), listed).unwrap();
    doors.rig.reload_edge();
    eventually("the list to be asked", || {
        (doors.status("required.test", "", Some(&lost)) == "000").then_some(())
    });
    assert_eq!(doors.status("required.test", "", Some(&one)), "200");
}

#[test]
fn a_revoked_intermediate_is_refused_beside_an_authority_without_its_root() {
    need!("openssl", "curl");
    let mut doors = Doors::open();
    let folder = doors.rig.config().parent().unwrap().to_owned();
    let strangers = Authority::found(&folder, "strangers");
    let pair = doors.authority.issue("one", "/CN=one");
    let stranger = strangers.issue("stranger", "/CN=stranger");
    let text = fs::read_to_string(doors.rig.config()).unwrap();
    let listed = text.replace(
        "clients/root.pem\"\n",
        "mixed.pem\"\nclient_crl_files = [\"clients/crl.pem\", \"strangers/intermediate.crl\"]\n",
    );
    fs::write(doors.rig.config(), listed).unwrap();
    let mixed = [
        doors.authority.at("root.pem"),
        strangers.at("intermediate.pem"),
    ];
    let mixed = mixed.map(|file| fs::read_to_string(file).unwrap()).concat();
    fs::write(folder.join("mixed.pem"), &mixed).unwrap();
    doors.rig.reload_edge();
    eventually("the other authority to be trusted", || {
        (doors.status("required.test", "", Some(&stranger)) == "200").then_some(())
    });
    assert_eq!(doors.status("required.test", "", Some(&pair)), "200");
    let client = doors.rig.anonymous().for_host("required.test");
    let mut connection = client.with_certificate(&pair).connect().unwrap();
    let mut ask = || {
        connection.write(b"GET /v2/ HTTP/1.1\r\nHost: required.test\r\n\r\n")?;
        connection.reply()
    };
    assert_eq!(ask().unwrap().status, 200);

    doors.authority.revoke_intermediate();
    eventually("the list to be picked up", || {
        (doors.status("required.test", "", Some(&pair)) == "000").then_some(())
    });
    doors.logged(&["handshake failed", "client certificate: revoked"]);
    let refused = ask().unwrap().expect_error(403, "DENIED");
    assert!(refused.text().contains("revoked"), "{}", refused.text());
    let output = doors.curl("optional.test", "", Some(&pair), &[]);
    assert!(output.stdout.contains("revoked") && output.stdout.ends_with("403"));
    assert_eq!(doors.status("required.test", "", Some(&stranger)), "200");

    // Nor does it help to stand in the file beside the root.
    let intermediate = fs::read_to_string(doors.authority.at("intermediate.pem")).unwrap();
    let times_read = || {
        doors
            .rig
            .edge_lines(&["revocation lists changed, read again"])
            .len()
    };
    let before = times_read();
    fs::write(folder.join("mixed.pem"), mixed + &intermediate).unwrap();
    eventually("the file to be picked up", || {
        (times_read() > before).then_some(())
    });
    assert_eq!(doors.status("required.test", "", Some(&pair)), "000");
    assert_eq!(doors.status("required.test", "", Some(&stranger)), "200");
}

#[test]
fn authorities_and_lists_of_names_come_with_a_reload() {
    need!("openssl", "curl");
    let mut doors = Doors::open();
    let wallet = Wallet::of(&doors);
    assert_eq!(doors.status("required.test", "", Some(&wallet.good)), "200");
    let text = fs::read_to_string(doors.rig.config()).unwrap();
    let other = text.replace("clients/root.pem", "strangers/root.pem");
    fs::write(doors.rig.config(), other).unwrap();
    doors.rig.reload_edge();
    eventually("the other authority", || {
        (doors.status("required.test", "", Some(&wallet.stranger)) == "200").then_some(())
    });
    assert_eq!(doors.status("required.test", "", Some(&wallet.good)), "000");

    let listed = text.replace("client_allow = [\"*@a.test\"]", "client_allow = [\"x\"]");
    let listed = listed.replace("client_ca_file", "client_crl_files = []\nclient_ca_file");
    fs::write(doors.rig.config(), listed).unwrap();
    doors.rig.reload_edge();
    let email = doors.authority.issue_with(
        "email",
        "/CN=x",
        "extendedKeyUsage=clientAuth\nsubjectAltName=email:ci@a.test\n",
        10,
    );
    eventually("the other list", || {
        (doors.status("email.test", "", Some(&email)) == "403").then_some(())
    });
}

/// `openssl s_client` that asks for `/v2/` of `host` after a handshake for `name`.
fn s_client(doors: &Doors, name: &str, host: &str, more: &[&str]) -> String {
    let script = format!(
        "printf 'GET /v2/ HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n' | \
         openssl s_client -connect {} -servername {name} -CAfile {} -ign_eof \"$@\" 2>&1",
        doors.rig.https,
        doors.rig.path("cert.pem").display(),
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).args(more);
    try_run(&mut command).stdout
}

#[test]
fn a_resumed_session_carries_no_identity_anywhere() {
    need!("openssl");
    let doors = Doors::open();
    let wallet = Wallet::of(&doors);
    let file = doors.rig.path("session");
    let file = file.to_str().unwrap();
    let (cert, key) = (
        wallet.good.cert.to_str().unwrap(),
        wallet.good.key.to_str().unwrap(),
    );
    let me = ["-cert", cert, "-cert_chain", cert, "-key", key];
    for version in ["-tls1_2", "-tls1_3"] {
        let shake = |name: &str, more: &[&str]| {
            let flags = [&[version], more].concat();
            s_client(&doors, name, name, &flags)
        };
        // Sessions as such can be resumed.
        let first = shake("localhost", &["-sess_out", file]);
        assert!(first.contains("401 Unauthorized"), "{first}");
        let second = shake("localhost", &["-sess_in", file]);
        assert!(second.contains("Reused, "), "{version}: {second}");

        // One of a site that asks for nothing gets nowhere at one that does.
        for host in ["required.test", "optional.test"] {
            let crossed = shake(host, &["-sess_in", file]);
            let resumed = crossed.contains("Reused, ");
            let in_handshake = host == "required.test" && crossed.contains("alert");
            let (misdirected, unknown) = (
                crossed.contains("421 Misdirected"),
                !resumed && crossed.contains("401 Unauthorized"),
            );
            assert!(
                in_handshake || misdirected || unknown,
                "{version} {host}: {crossed}"
            );
        }

        // One at which a certificate was asked for does not go on.
        fs::remove_file(file).unwrap();
        let flags = [&me[..], &["-sess_out", file]].concat();
        let known = shake("required.test", &flags);
        assert!(known.contains("200 OK"), "{version}: {known}");
        if version == "-tls1_3" {
            assert!(!PathBuf::from(file).exists() || fs::read(file).unwrap().is_empty());
            continue;
        }
        for host in ["required.test", "optional.test", "email.test", "localhost"] {
            for name in [host, "required.test"] {
                let crossed = s_client(&doors, name, host, &[version, "-sess_in", file]);
                assert!(!crossed.contains("Reused, "), "{name} {host}: {crossed}");
                assert!(!crossed.contains("200 OK"), "{name} {host}: {crossed}");
            }
        }
    }
}

#[test]
fn a_session_does_not_outlive_what_was_asked_for_at_its_handshake() {
    need!("openssl", "curl");
    let mut doors = Doors::open();
    let wallet = Wallet::of(&doors);
    let file = doors.rig.path("session");
    let file = file.to_str().unwrap();
    let first = s_client(&doors, "localhost", "localhost", &["-sess_out", file]);
    assert!(first.contains("401 Unauthorized"), "{first}");
    let client = doors.rig.client();
    let mut kept = client.connect().unwrap();
    kept.write(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    assert_eq!(kept.reply().unwrap().status, 401);

    let text = fs::read_to_string(doors.rig.config()).unwrap();
    let text = text.replace(
        "realm = \"Registry\"",
        "realm = \"Registry\"\nclient_ca_file = \"clients/root.pem\"",
    );
    fs::write(doors.rig.config(), text).unwrap();
    doors.rig.reload_edge();
    eventually("a certificate to be asked for", || {
        (doors.status("localhost", "", Some(&wallet.good)) == "200").then_some(())
    });

    let resumed = s_client(&doors, "localhost", "localhost", &["-sess_in", file]);
    assert!(
        !resumed.contains("Reused, ") && resumed.contains("alert"),
        "{resumed}"
    );
    // A connection of before is sent away, to come back on one that is asked.
    kept.write(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let reply = kept.reply().unwrap().expect(421);
    assert_eq!(reply.header("Connection"), Some("close"));
}

#[test]
fn a_connection_is_for_the_site_that_its_handshake_was_for() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let wallet = Wallet::of(&doors);
    let (cert, key) = (
        wallet.good.cert.to_str().unwrap(),
        wallet.good.key.to_str().unwrap(),
    );
    for (name, host, expected) in [
        ("localhost", "localhost", "401"),
        // Two hosts of one site.
        ("localhost", "registry.test", "401"),
        ("LOCALHOST", "localhost", "401"),
        ("localhost", "required.test", "421"),
        ("localhost", "optional.test", "421"),
        ("required.test", "localhost", "421"),
        ("required.test", "optional.test", "421"),
        ("unknown.test", "localhost", "421"),
        ("unknown.test", "required.test", "421"),
        ("localhost", "unknown.test", "421"),
    ] {
        let reply = s_client(
            &doors,
            name,
            host,
            &["-cert", cert, "-cert_chain", cert, "-key", key],
        );
        assert!(
            reply.contains(&format!("HTTP/1.1 {expected} ")),
            "{name} {host}: {reply}"
        );
    }
    // Without a name the handshake is as for the first site.
    for (host, expected) in [("localhost", "401"), ("required.test", "421")] {
        let script = format!(
            "printf 'GET /v2/ HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n' | \
             openssl s_client -connect {} -noservername -ign_eof 2>&1",
            doors.rig.https
        );
        let reply = try_run(Command::new("sh").args(["-c", &script])).stdout;
        assert!(reply.contains(&format!("HTTP/1.1 {expected} ")), "{reply}");
    }
    // Over HTTP/2, where clients use one connection for all names of a certificate, it is the same.
    let port = doors.rig.https.port();
    let output = doors.curl(
        "localhost",
        "",
        None,
        &["--http2", "-H", &format!("Host: required.test:{port}")],
    );
    assert!(output.stdout.ends_with("421"), "{output}");
}

/// A rig whose `registry.test` wants certificates, for the engines that know it by that name.
fn with_registry_test() -> Doors {
    let mut doors = Doors::open();
    let text = fs::read_to_string(doors.rig.config()).unwrap();
    let text = text
        .replace(", \"registry.test\"]", "]")
        .replace("\"ruled.test\"", "\"registry.test\"")
        .replace("[\"team/**\"]", "[\"**\"]");
    fs::write(doors.rig.config(), text).unwrap();
    doors.rig.reload_edge();
    eventually("the reload", || {
        (doors.status("registry.test", "", None) == "000").then_some(())
    });
    doors
}

#[test]
fn docker_pushes_and_pulls_with_a_certificate_and_without_a_login() {
    need!("dockerd", "docker", "unshare", "openssl", "curl");
    if !rustix::process::getuid().is_root() {
        skip("only root can run a Docker engine");
        return;
    }
    let _one = heavy();
    let doors = with_registry_test();
    let dev = doors.authority.issue("dev", "/CN=eve/OU=dev");
    let engine = Dockerd::start();
    let registry = format!("registry.test:{}", doors.rig.https.port());
    let image = format!("{registry}/team/app:v1");
    let layer = engine.scratch().join("layer.tar");
    tar_of(&layer, "file", 7, 300_000);
    engine.run(&["import", layer.to_str().unwrap(), &image]);

    engine.trust(&registry, &doors.rig.path("cert.pem"));
    let refused = engine.try_run(&["push", &image]);
    assert!(
        !refused.success && refused.stderr.contains("certificate required"),
        "{refused}"
    );
    engine.identify(&registry, &dev);
    let pushed = engine.try_run(&["push", &image]);
    assert!(pushed.success, "{pushed}\n{}", doors.rig.edge_log());
    engine.run(&["rmi", "-f", &image]);
    engine.run(&["pull", &image]);
    doors.logged(&["\"access\"", "registry.test", "\"eve\"", "201"]);
}

#[test]
fn podman_and_skopeo_show_the_certificate_of_their_folder() {
    need!("podman", "skopeo", "openssl", "curl");
    let doors = Doors::open();
    // They resolve names as the machine does, so the usual site has to ask.
    let text = fs::read_to_string(doors.rig.config()).unwrap();
    let text = text.replace(
        "realm = \"Registry\"",
        "realm = \"Registry\"\nclient_certificate = \"optional\"\nclient_ca_file = \"clients/root.pem\"",
    );
    fs::write(doors.rig.config(), text).unwrap();
    let mut doors = doors;
    doors.rig.reload_edge();
    let dev = doors.authority.issue("dev", "/CN=eve/OU=dev");
    eventually("the reload", || {
        (doors.status("localhost", "", Some(&dev)) == "200").then_some(())
    });
    let certs = doors.rig.path("certs");
    fs::create_dir(&certs).unwrap();
    fs::copy(doors.rig.path("cert.pem"), certs.join("ca.crt")).unwrap();
    fs::copy(&dev.cert, certs.join("client.cert")).unwrap();
    fs::copy(&dev.key, certs.join("client.key")).unwrap();
    let certs = certs.to_str().unwrap();
    let path = |name: &str| doors.rig.path(name).to_string_lossy().into_owned();
    let policy = path("policy.json");
    fs::write(
        &policy,
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )
    .unwrap();

    layout_with_layers(&doors.rig.path("source"), 1, &[1000, 200_000]);
    let image = format!("docker://{}/skopeo/app:v1", doors.rig.name());
    let skopeo = |arguments: &[&str]| {
        let mut command = Command::new("skopeo");
        command.args(["--policy", &policy]).args(arguments);
        try_run(command.env("REGISTRY_AUTH_FILE", path("auth.json")))
    };
    let source = format!("oci:{}:latest", path("source"));
    let pushed = skopeo(&["copy", "--dest-cert-dir", certs, &source, &image]);
    assert!(pushed.success, "{pushed}");
    let back = format!("oci:{}:latest", path("back"));
    let pulled = skopeo(&["copy", "--src-cert-dir", certs, &image, &back]);
    assert!(pulled.success, "{pulled}");

    fs::write(path("auth.json"), "{}").unwrap();
    tar_of(&doors.rig.path("root.tar"), "file", 2, 100_000);
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command
            .args(["--root", &path("storage"), "--runroot", &path("run")])
            .args(["--storage-driver", "vfs"])
            .args(arguments)
            .env("REGISTRY_AUTH_FILE", path("auth.json"))
            .env("XDG_RUNTIME_DIR", path("run"));
        run(&mut command)
    };
    let id = podman(&["import", "-q", &path("root.tar")]);
    let id = id.trim();
    let image = format!("{}/podman/app:v1", doors.rig.name());
    podman(&["push", "--cert-dir", certs, id, &image]);
    podman(&["rmi", "-f", id]);
    podman(&["pull", "-q", "--cert-dir", certs, &image]);
    doors.logged(&[
        "\"access\"",
        "/v2/podman/app/manifests/v1",
        "\"eve\"",
        "201",
    ]);
}
