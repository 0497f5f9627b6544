//! What a scanner finds: nothing that nginx's default would not show, and much less.

use std::fs;
use std::process::Command;

use crate::harness::{Pair, Rig, Setup, need, run, try_run};

/// An edge with a key of each type, so that every cipher has a certificate to go with.
fn start() -> Rig {
    let mut rig = Setup::default().prepare();
    let rsa = Pair::create_with(&["rsa:2048"], &rig.path(""), "rsa", &["localhost"]);
    let text = fs::read_to_string(rig.config()).unwrap();
    let old = text.lines().find(|line| line.starts_with("certificate ="));
    let (old, pair) = (
        old.unwrap(),
        old.unwrap().trim_start_matches("certificate ="),
    );
    let new = format!(
        "certificate = [{pair}, {{ cert_file = {:?}, key_file = {:?} }}]",
        rsa.cert, rsa.key
    );
    fs::write(rig.config(), text.replace(old, &new)).unwrap();
    rig.start_registry();
    rig.start_edge();
    rig.wait_until_ready();
    rig
}

#[test]
fn sslscan_finds_modern_versions_ciphers_and_groups_alone() {
    need!("sslscan");
    let rig = start();
    let address = format!("localhost:{}", rig.https.port());
    let found = run(Command::new("sslscan").args(["--no-colour", &address]));
    let lines = || {
        found
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
    };
    for (version, state) in [
        ("SSLv2", "disabled"),
        ("SSLv3", "disabled"),
        ("TLSv1.0", "disabled"),
        ("TLSv1.1", "disabled"),
        ("TLSv1.2", "enabled"),
        ("TLSv1.3", "enabled"),
    ] {
        assert!(
            lines().any(|line| line == [version, state]),
            "{version}: {found}"
        );
    }
    assert!(
        found.contains("Server supports TLS Fallback SCSV"),
        "{found}"
    );
    assert!(
        found.contains("Session renegotiation not supported"),
        "{found}"
    );
    assert!(
        !found.contains(" vulnerable to heartbleed") || found.contains("not vulnerable"),
        "{found}"
    );
    let ciphers: Vec<_> = lines()
        .filter(|line| matches!(line.first(), Some(&("Preferred" | "Accepted"))))
        .collect();
    assert_eq!(ciphers.len(), 9, "{found}");
    for cipher in ciphers {
        let name = cipher[4];
        let sealed = name.contains("_GCM_") || name.contains("-GCM-") || name.contains("CHACHA20");
        let fresh = cipher[1] == "TLSv1.3" || name.starts_with("ECDHE-");
        assert!(sealed && fresh, "{name}: {found}");
    }
    let groups =
        lines().filter(|line| line.get(2) == Some(&"bits") && line[0].starts_with("TLSv1."));
    for group in groups {
        let known = ["x25519", "secp256r1", "secp384r1", "x25519mlkem768"];
        assert!(
            known.contains(&&*group[3].to_lowercase()),
            "{group:?}: {found}"
        );
    }
}

#[test]
fn openssl_is_refused_whatever_is_old() {
    let rig = start();
    let shake = |input: &str, flags: &[&str]| {
        let script = format!(
            "printf '{input}' | openssl s_client -connect {} -servername localhost -CAfile {} \"$@\" 2>&1",
            rig.https,
            rig.certificate.cert.display(),
        );
        try_run(Command::new("sh").args(["-c", &script, "sh"]).args(flags)).stdout
    };
    for group in ["X25519", "P-256", "P-384"] {
        let session = shake("", &["-tls1_3", "-groups", group]);
        assert!(
            session.contains("Verify return code: 0 (ok)"),
            "{group}: {session}"
        );
    }
    for flags in [
        &["-tls1_3", "-groups", "X448:P-521:ffdhe2048:ffdhe3072"][..],
        &[
            "-tls1_3",
            "-ciphersuites",
            "TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256",
        ],
        &["-tls1_2", "-cipher", "DHE:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"],
        &[
            "-tls1_2",
            "-cipher",
            "ECDHE+CAMELLIA:ECDHE+ARIA:ECDHE+AESCCM:@SECLEVEL=0",
        ],
        &[
            "-tls1_2",
            "-cipher",
            "ECDHE+SHA1:ECDHE+SHA256:ECDHE+SHA384:-AESGCM:@SECLEVEL=0",
        ],
        &[
            "-tls1_2",
            "-cipher",
            "aNULL:eNULL:3DES:RC4:PSK:SRP:@SECLEVEL=0",
        ],
    ] {
        let session = shake("", flags);
        let none = session.contains("Cipher is (NONE)") || session.contains("no cipher match");
        assert!(none, "{flags:?}: {session}");
    }
    let session = shake("", &["-tls1_2", "-comp", "-status"]);
    assert!(session.contains("Compression: NONE"), "{session}");
    assert!(
        session.contains("Secure Renegotiation IS supported"),
        "{session}"
    );
    assert!(
        session.contains("OCSP response: no response sent"),
        "{session}"
    );
    // "R" on a line of its own asks for new keys in the middle of it all.
    let asked = shake("R\\n", &["-tls1_2"]);
    assert!(asked.contains("no renegotiation"), "{asked}");
}
