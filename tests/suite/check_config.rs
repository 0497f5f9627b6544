//! `tidegate check`: all problems at once; and the config that documents every key.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Output, Pair, Rig, Setup, tidegate, try_run};

fn check(config: &Path) -> Output {
    try_run(tidegate().arg("check").arg("--config").arg(config))
}

fn role(role: &str, config: &Path) -> Output {
    try_run(tidegate().arg(role).arg("--config").arg(config))
}

#[test]
fn a_good_config_is_said_to_be_good() {
    let rig = Setup::default().prepare();
    let output = check(&rig.config());
    assert!(output.success, "{output}");
}

#[test]
fn all_problems_come_at_once_with_file_and_key_and_both_roles_refuse_them() {
    let rig = Setup::default().prepare();
    let bad = r#"
drain_timeout = "soon"
trusted_proxies = ["10.0.0.0/8", "nonsense"]

[[listener]]
address = "no address"
tls = true

[[site]]
hosts = ["a.test"]
certificate = { cert_file = "missing.pem", key_file = "missing-key.pem" }
upstream = "nowhere"
colour = "blue"

[site.auth]
realm = 7
htpasswd_file = "missing-htpasswd"

[registry]
listen = "tcp:127.0.0.1:5000"
max_manifest_size = "much"
[registry.storage]
filesystem = { root = 5 }

[surprise]
x = 1
"#;
    fs::write(rig.config(), bad).unwrap();

    let output = check(&rig.config());

    assert_eq!(output.code, Some(1), "{output}");
    for key in [
        "drain_timeout",
        "trusted_proxies[1]",
        "listener[0].address",
        "site[0].certificate",
        "missing.pem",
        "site[0].upstream",
        "nowhere",
        "site[0].colour",
        "site[0].auth.realm",
        "missing-htpasswd",
        "registry.listen",
        "registry.max_manifest_size",
        "surprise",
        "registry.storage",
    ] {
        assert!(
            output.stderr.contains(key),
            "{key} is not reported:\n{}",
            output.stderr
        );
    }
    let name = rig
        .config()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let lines: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| !line.is_empty())
        .collect();
    let located = lines.iter().filter(|line| line.contains(&name)).count();
    assert!(
        located >= 12,
        "only {located} of {} lines name the file:\n{output}",
        lines.len()
    );
    for verb in ["edge", "registry"] {
        let refused = role(verb, &rig.config());
        assert_eq!(refused.code, Some(78), "{verb}: {refused}");
        assert!(refused.stderr.contains("surprise"), "{verb}: {refused}");
    }
}

#[test]
fn what_is_no_toml_is_said_with_its_line() {
    let rig = Setup::default().prepare();
    fs::write(rig.config(), "a = 1\nb = \n").unwrap();
    let output = check(&rig.config());
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("edge.toml:2"), "{output}");
    let output = check(Path::new("/nowhere/edge.toml"));
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("/nowhere/edge.toml"), "{output}");
}

#[test]
fn usage_errors_exit_with_2() {
    assert_eq!(try_run(tidegate().arg("no-such-verb")).code, Some(2));
    assert_eq!(
        try_run(tidegate().args(["check", "--no-such-flag"])).code,
        Some(2)
    );
    assert_eq!(try_run(&mut tidegate()).code, Some(2));
}

#[test]
fn a_key_that_does_not_belong_to_the_certificate_is_a_problem() {
    let rig = Setup::default().prepare();
    let other = Pair::create(rig.config().parent().unwrap(), "other", &["x.test"]);
    fs::copy(other.key, &rig.certificate.key).unwrap();
    let output = check(&rig.config());
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("certificate"), "{output}");
}

// --- conf/edge.toml, the reference ---

fn shipped() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf/edge.toml");
    fs::read_to_string(path).unwrap()
}

/// Switches on every commented default: a line `# key = value` or `# [table]` becomes one.
fn switched_on(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let bare = line
            .trim_start()
            .strip_prefix('#')
            .map(|rest| rest.strip_prefix(' ').unwrap_or(rest));
        let code = bare.filter(|bare| is_code(bare));
        out.push_str(code.unwrap_or(line));
        out.push('\n');
    }
    out
}

fn is_code(line: &str) -> bool {
    let key = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let table = line.strip_prefix('[').is_some_and(|rest| {
        let name = rest
            .trim_start_matches('[')
            .split(']')
            .next()
            .unwrap_or_default();
        rest.contains(']') && name.split('.').all(key)
    });
    table
        || line
            .split_once(" = ")
            .is_some_and(|(name, _)| name.split('.').all(key))
}

/// Writes a shipped config where what it names exists, and returns its path.
fn made_real(rig: &Rig, text: &str) -> PathBuf {
    let folder = rig.config().parent().unwrap().to_owned();
    let mut text = text.to_owned();
    for place in [
        "/etc/tidegate",
        "/var/lib/tidegate",
        "/var/lib/registry",
        "/var/log/tidegate/edge",
        "/var/log/tidegate/registry",
        "/run/tidegate",
    ] {
        let real = folder.join(place.trim_start_matches('/'));
        fs::create_dir_all(&real).unwrap();
        text = text.replace(place, &real.to_string_lossy());
    }
    // The key of RFC 7517, appendix A.1.
    let jwks = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1",
        "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;
    fs::write(rig.path("jwks"), jwks).unwrap();
    // And a text in base64url.
    fs::write(rig.path("secret"), "aGVsbG8").unwrap();
    // Whatever certificate, key or htpasswd file is named is there; what stands between two texts is none.
    let words = text.split('"').filter(|word| !word.contains('\n'));
    for word in words.map(str::to_owned).collect::<Vec<_>>() {
        let path = PathBuf::from(&word);
        let source = match path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
        {
            Some(name) if name == "eab.key" || name == "dns-hook" => &rig.path("secret"),
            Some(name) if name.ends_with("key.pem") || name.ends_with(".key") => {
                &rig.certificate.key
            }
            Some(name) if name == "jwks.json" => &rig.path("jwks"),
            Some(name) if name.ends_with(".pem") || name.ends_with(".crt") => &rig.certificate.cert,
            Some(name) if name.contains("htpasswd") || name == "groups" => &rig.path("htpasswd"),
            _ => continue,
        };
        let target = folder.join(&path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        if !target.exists() {
            fs::copy(source, target).unwrap();
        }
    }
    let config = folder.join("shipped.toml");
    fs::write(&config, text).unwrap();
    config
}

#[test]
fn the_shipped_config_is_good_as_it_is() {
    let rig = Setup::default().prepare();
    let output = check(&made_real(&rig, &shipped()));
    assert!(output.success, "{output}");
}

#[test]
fn the_shipped_config_is_good_with_every_commented_default_on() {
    let rig = Setup::default().prepare();
    let text = switched_on(&shipped());
    assert!(
        text != shipped(),
        "no commented default was found: the test proves nothing"
    );
    let output = check(&made_real(&rig, &text));
    assert!(output.success, "{output}");
}

/// The keys that the program reads, from top to bottom.
const KEYS: &[&str] = &[
    "drain_timeout",
    "workers",
    "trusted_proxies",
    "address",
    "tls",
    "hosts",
    "certificate",
    "upstream",
    "max_body_size",
    "allow_methods",
    "realm",
    "htpasswd_file",
    "remember_for",
    "insecure_plain_passwords",
    "group_file",
    "state_dir",
    "hsts",
    "agree_to_terms",
    "email",
    "directory",
    "staging",
    "root_file",
    "challenge",
    "key_type",
    "profile",
    "preferred_chain",
    "external_account",
    "program",
    "timeout",
    "propagation",
    "scheme",
    "lifetime",
    "refresh_lifetime",
    "service",
    "issuer",
    "root_certificate_files",
    "jwks_file",
    "jwks_url",
    "jwks_ca_file",
    "allow_from",
    "deny_from",
    "satisfy",
    "repositories",
    "who",
    "actions",
    "effect",
    "name",
    "peers",
    "connect_timeout",
    "min_version",
    "ticket_key_files",
    "header_timeout",
    "format",
    "min_body_rate",
    "http2_max_streams",
    "http2_max_resets",
    "http2_max_transfers",
    "max_transfers_per_address",
    "max_transfers",
    "per_address",
    "per_user",
    "forget_after",
    "site",
    "principal",
    "rate",
    "concurrent",
    "level",
    "file",
    "access_file",
    "listen",
    "allow_users",
    "upload_expiry",
    "max_uploads",
    "max_uploads_per_repository",
    "max_uploads_per_principal",
    "delete",
    "max_manifest_size",
    "sparse_images",
    "filesystem",
    "storage.filesystem.root",
    "storage.filesystem.direct_io",
];

#[test]
fn the_shipped_config_names_every_key_the_program_reads() {
    let text = shipped();
    for key in KEYS {
        let documented = text.lines().any(|line| {
            let bare = line.trim_start_matches(['#', ' ']);
            bare.starts_with(&format!("{key} =")) || bare.contains(&format!("{{ {key} ="))
        });
        assert!(documented, "conf/edge.toml does not document {key}");
    }
}
