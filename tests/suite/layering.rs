//! Who may import whom, read from the `use` lines.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below a folder (or the file itself).
fn sources(path: &str) -> Vec<PathBuf> {
    let path = root().join(path);
    if path.is_file() {
        return vec![path];
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
        let path = entry.path();
        let inside = path
            .strip_prefix(root())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() || inside.ends_with(".rs") {
            files.extend(sources(&inside));
        }
    }
    files
}

/// Whether a line of code names a path that begins with `what`.
fn names(line: &str, what: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(what).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + what.len()..].chars().next();
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !word(before)
            && before != Some(':')
            && !word(after)
            && (code.trim_start().starts_with("use ")
                || code.trim_start().starts_with("pub") && code.contains(" use ")
                || code[at + what.len()..].starts_with("::"))
    })
}

/// Lines below `path` (but not below `except`) that name any of `forbidden`.
fn offenders(path: &str, except: &[&str], forbidden: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let files = sources(path);
    assert!(
        !files.is_empty(),
        "nothing below {path}: the rule checks nothing"
    );
    for file in files {
        let inside = file
            .strip_prefix(root())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        if except.iter().any(|except| inside.starts_with(except)) {
            continue;
        }
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            for what in forbidden {
                if names(line, what) {
                    found.push(format!("{inside}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    found
}

#[track_caller]
fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_forbidden_import_would_be_seen() {
    assert!(names("use pingora::proxy::Session;", "pingora"));
    assert!(names("    let x = pingora::new();", "pingora"));
    assert!(names("pub(crate) use crate::http::Error;", "crate::http"));
    assert!(!names("use crate::pingora_like;", "pingora"));
    assert!(!names("// use pingora;", "pingora"));
    assert!(!names("//! the edge, on pingora::x", "pingora"));
}

#[test]
fn the_vocabulary_knows_no_runtime_no_server_and_none_of_ours() {
    let forbidden = [
        "tokio",
        "hyper",
        "hyper_util",
        "pingora",
        "settings",
        "proxy",
        "registry_backend",
    ];
    assert_none(&offenders("registry-backend/oci/src", &[], &forbidden));
}

#[test]
fn the_settings_reader_knows_none_of_ours() {
    let forbidden = [
        "oci",
        "proxy",
        "registry_backend",
        "tokio",
        "hyper",
        "pingora",
    ];
    assert_none(&offenders("settings/src", &[], &forbidden));
}

#[test]
fn instruments_know_nothing_of_what_they_measure() {
    let forbidden = [
        "oci",
        "proxy",
        "registry_backend",
        "settings",
        "tokio",
        "hyper",
        "pingora",
    ];
    assert_none(&offenders("instruments/src", &[], &forbidden));
}

#[test]
fn the_two_roles_never_meet() {
    assert_none(&offenders(
        "proxy/src",
        &[],
        &["registry_backend", "tidegate", "hyper"],
    ));
    assert_none(&offenders(
        "registry-backend/src",
        &[],
        &["proxy", "tidegate", "pingora", "openssl"],
    ));
}

#[test]
fn only_the_rooms_that_carry_requests_know_pingora() {
    let rooms = [
        "proxy/src/edge/",
        "proxy/src/acme/client.rs",
        "proxy/src/fetch.rs",
        "proxy/src/sentence.rs",
        "proxy/src/listener/",
        "proxy/src/upstream.rs",
        "proxy/src/tls/accept.rs",
        "proxy/src/server.rs",
    ];
    assert_none(&offenders("proxy/src", &rooms, &["pingora"]));
}

#[test]
fn filters_limits_and_authentication_see_config_vocabulary_and_the_head_alone() {
    let forbidden = [
        "pingora",
        "tokio",
        "crate::edge",
        "crate::listener",
        "crate::upstream",
        "crate::tls",
    ];
    assert_none(&offenders("proxy/src/filter", &[], &forbidden));
    let forbidden = [
        "pingora",
        "crate::edge",
        "crate::listener",
        "crate::upstream",
        "crate::tls",
    ];
    assert_none(&offenders("proxy/src/auth", &[], &forbidden));
    assert_none(&offenders("proxy/src/limits", &[], &forbidden));
}

#[test]
fn the_registry_looks_down_and_never_up_or_past() {
    let base = "registry-backend/src";
    let up = ["crate::http", "hyper", "http", "StatusCode"];
    assert_none(&offenders(&format!("{base}/registry"), &[], &up));
    let up = ["crate::http", "crate::registry", "hyper", "http"];
    assert_none(&offenders(&format!("{base}/storage"), &[], &up));
    assert_none(&offenders(
        &format!("{base}/http"),
        &[],
        &["crate::storage"],
    ));
}

#[test]
fn only_the_command_line_prints_or_ends_the_process() {
    for room in [
        "proxy/src",
        "registry-backend/src",
        "registry-backend/oci/src",
        "instruments/src",
        "settings/src",
    ] {
        for file in sources(room) {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for call in ["println!(", "eprintln!(", "process::exit(", "anyhow"] {
                    let tests = text.find("#[cfg(test)]").unwrap_or(usize::MAX);
                    let at = text
                        .lines()
                        .take(number)
                        .map(|line| line.len() + 1)
                        .sum::<usize>();
                    let said = code.contains(call) && at < tests;
                    assert!(!said, "{}:{}: {line}", display(&file), number + 1);
                }
            }
        }
    }
}

#[test]
fn files_stay_short_enough_to_read() {
    for room in [
        "instruments",
        "proxy",
        "registry-backend",
        "settings",
        "src",
        "tests",
    ] {
        for file in sources(room) {
            if file.components().any(|part| part.as_os_str() == "target") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let code = text
                .split("#[cfg(test)]\nmod tests")
                .next()
                .unwrap_or_default();
            let lines = code.lines().count();
            assert!(
                lines <= 480,
                "{}: {lines} lines before its tests",
                display(&file)
            );
        }
    }
}

fn display(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}
