//! TLS as the edge offers it: versions, ciphers, protocols, certificates.

use std::fs;
use std::process::Command;

use crate::harness::{
    Client, Pair, Rig, Setup, eventually, peer_certificate, run, tidegate, try_run,
};

/// Runs `openssl s_client` with these flags and returns what it says of the session.
fn s_client(rig: &Rig, flags: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-connect",
        &rig.https.to_string(),
        "-servername",
        "localhost",
    ]);
    let output = try_run(
        command
            .args(["-CAfile"])
            .arg(&rig.certificate.cert)
            .args(flags),
    );
    output.stdout + &output.stderr
}

#[test]
fn tls_is_1_2_or_1_3_with_modern_ciphers_alone() {
    let rig = Rig::start();
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let session = s_client(&rig, &[flag]);
        assert!(session.contains(version), "{session}");
        assert!(session.contains("Verify return code: 0 (ok)"), "{session}");
    }
    for flags in [
        ["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        [
            "-tls1_2",
            "-cipher",
            "AES128-SHA:AES256-SHA:AES128-GCM-SHA256",
        ],
        [
            "-tls1_2",
            "-cipher",
            "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384",
        ],
    ] {
        let session = s_client(&rig, &flags);
        assert!(session.contains("Cipher is (NONE)"), "{flags:?}: {session}");
    }
}

#[test]
fn the_oldest_version_comes_with_a_reload() {
    let mut rig = Rig::start();
    assert!(s_client(&rig, &["-tls1_2"]).contains("Verify return code: 0 (ok)"));
    rig.write_config(&Setup {
        tables: "[tls]\nmin_version = \"1.3\"\n".to_owned(),
        ..Setup::default()
    });
    rig.reload_edge();
    eventually("TLS 1.2 to be refused", || {
        s_client(&rig, &["-tls1_2"])
            .contains("Cipher is (NONE)")
            .then_some(())
    });
    assert!(s_client(&rig, &["-tls1_3"]).contains("Verify return code: 0 (ok)"));
}

#[test]
fn http_2_and_http_1_1_are_offered_and_the_client_chooses() {
    let rig = Rig::start();
    let offered = |protocols: &str| s_client(&rig, &["-alpn", protocols]);
    assert!(offered("h2,http/1.1").contains("ALPN protocol: h2"));
    assert!(offered("http/1.1").contains("ALPN protocol: http/1.1"));
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let folder = tempfile::TempDir::new().unwrap();
    let other = Pair::create(folder.path(), "other", &["other.test", "*.wild.test"]);
    let tables = format!(
        "[[site]]\nhosts = [\"other.test\", \"*.wild.test\"]\ncertificate = {{ cert_file = \"{}\", \
         key_file = \"{}\" }}\nupstream = \"none\"\n[[upstream]]\nname = \"none\"\npeers = [\"127.0.0.1:1\"]\n",
        other.cert.display(),
        other.key.display(),
    );
    let rig = Setup {
        tables,
        ..Setup::default()
    }
    .start();

    for (name, expected) in [
        ("localhost", &rig.certificate),
        ("registry.test", &rig.certificate),
        ("other.test", &other),
        ("x.wild.test", &other),
        ("OTHER.test", &other),
    ] {
        let presented = peer_certificate(rig.https, name).unwrap().to_der().unwrap();
        assert!(
            presented == expected.certificate().to_der().unwrap(),
            "{name}"
        );
    }
}

#[test]
fn each_client_is_shown_the_certificate_that_it_can_verify() {
    let mut rig = Setup::default().prepare();
    let rsa = Pair::create_with(&["rsa:2048"], &rig.path(""), "rsa", &["localhost"]);
    let both = |first: &Pair, second: &Pair| {
        let one = |pair: &Pair| {
            let (cert, key) = (pair.cert.display(), pair.key.display());
            format!("{{ cert_file = \"{cert}\", key_file = \"{key}\" }}")
        };
        format!("certificate = [{}, {}]", one(first), one(second))
    };
    let text = fs::read_to_string(rig.config()).unwrap();
    let old = text.lines().find(|line| line.starts_with("certificate ="));
    let old = old.unwrap();
    fs::write(
        rig.config(),
        text.replace(old, &both(&rsa, &rig.certificate)),
    )
    .unwrap();
    rig.start_registry();
    rig.start_edge();
    rig.wait_until_ready();

    let ecdsa = "Peer signature type: ECDSA";
    let rsa_pss = "Peer signature type: RSA-PSS";
    for (flags, expected) in [
        (&["-tls1_3"][..], ecdsa),
        (&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], rsa_pss),
        (
            &["-tls1_3", "-sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256"],
            ecdsa,
        ),
        (&["-tls1_2"], ecdsa),
        (
            &["-tls1_2", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"],
            rsa_pss,
        ),
        (&["-tls1_2", "-cipher", "aRSA"], rsa_pss),
    ] {
        let session = s_client(&rig, flags);
        assert!(session.contains(expected), "{flags:?}: {session}");
    }
    // Each with its own chain, which here is itself.
    let with_rsa = s_client(
        &rig,
        &[
            "-sigalgs",
            "RSA-PSS+SHA256",
            "-CAfile",
            rsa.cert.to_str().unwrap(),
        ],
    );
    assert!(
        with_rsa.contains("Verify return code: 0 (ok)"),
        "{with_rsa}"
    );
    let listed = run(tidegate().args(["certs", "--config"]).arg(rig.config()));
    assert!(
        listed.contains("  key      rsa-2048") && listed.contains("  key      ecdsa-p256"),
        "{listed}"
    );

    // One of them renewed, the other one is what it was.
    Pair::create_with(&["rsa:3072"], &rig.path(""), "rsa", &["localhost"]);
    eventually("the new one", || {
        let session = s_client(&rig, &["-sigalgs", "RSA-PSS+SHA256"]);
        session
            .contains("Server public key is 3072 bit")
            .then_some(())
    });
    assert!(s_client(&rig, &[]).contains(ecdsa));
    fs::write(rig.config(), text.replace(old, &both(&rsa, &rsa))).unwrap();
    let checked = try_run(tidegate().args(["check", "--config"]).arg(rig.config()));
    let told = "site[0].certificate[1]: there is one for a key of rsa already";
    assert!(checked.stderr.contains(told), "{checked}");
}

#[test]
fn browsers_are_told_to_come_back_with_tls_where_the_site_says_so() {
    let rig = Setup {
        site: "hsts = \"365d\"".to_owned(),
        ..Setup::default()
    }
    .start();
    let header = "Strict-Transport-Security";
    for reply in [
        rig.client().get("/v2/").expect(200),
        rig.anonymous().get("/v2/").expect(401),
    ] {
        assert_eq!(reply.all(header), ["max-age=31536000"]);
    }
    let redirect = rig.plain().get("/v2/");
    assert_eq!(redirect.header(header), None, "not without TLS (RFC 6797)");
}

/// Plain HTTP to the port for HTTPS gets an answer that people and clients understand.
#[test]
fn plain_http_to_the_port_for_tls_is_told_so() {
    let rig = Rig::start();
    let plain = Client::plain(rig.https, "registry.test");
    let told = plain.get("/v2/").expect_error(400, "UNSUPPORTED");
    assert!(told.text().contains("use https://"), "{}", told.text());
    let told = plain.post("/").expect(400);
    assert!(told.text().contains("use https://"), "{}", told.text());
    let page = plain
        .request("GET", "/page?x=1")
        .header("Accept", "text/html,*/*");
    let sent = page.send().expect(308);
    let there = format!("https://registry.test:{}/page?x=1", rig.https.port());
    let location = sent.header("Location").unwrap();
    assert!(
        location == there || location == "https://registry.test/page?x=1",
        "{location}"
    );
    // And nobody waits for one that says no more than the first letter.
    let mut silent = std::net::TcpStream::connect(rig.https).unwrap();
    std::io::Write::write_all(&mut silent, b"G").unwrap();
    rig.client().get("/v2/").expect(200);
}
