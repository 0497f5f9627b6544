//! `tidegate check`: each mistake is told in words that say what to write instead.

use std::fs;

use crate::harness::{Output, Rig, Setup, tidegate, try_run};

fn check(rig: &Rig) -> Output {
    try_run(tidegate().arg("check").arg("--config").arg(rig.config()))
}

/// What is said of the usual config with `new` in the place of `old`.
fn told(old: &str, new: &str) -> Output {
    let rig = Setup {
        site: "access.rule = [{ who = [\"docker\"], actions = [\"pull\"] }]".to_owned(),
        tables: "[limits]\nread_timeout = \"60s\"\nmax_header_size = \"32KiB\"\n\
                 [log]\nlevel = \"info\"\n"
            .to_owned(),
        ..Setup::default()
    }
    .prepare();
    fs::create_dir(&rig.root).unwrap();
    let good = check(&rig);
    assert!(good.success, "{good}");
    let text = fs::read_to_string(rig.config()).unwrap();
    assert!(text.contains(old), "{old} is not in\n{text}");
    fs::write(rig.config(), text.replacen(old, new, 1)).unwrap();
    check(&rig)
}

/// What is wrong must be told in exactly one line.
#[track_caller]
fn assert_told(old: &str, new: &str, expected: &str) {
    let output = told(old, new);
    assert_eq!(output.code, Some(1), "{new}: {output}");
    let lines = output
        .stderr
        .lines()
        .filter(|line| !line.contains("warning: "));
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), 1, "{new}: {output}");
    assert!(lines[0].ends_with(expected), "{new}: {output}");
}

const HOSTS: &str = "hosts = [\"localhost\", \"127.0.0.1\", \"registry.test\"]";

#[test]
fn a_text_for_a_list_is_written_as_a_list() {
    let expected = "site[0].hosts: must be a list: write it as [\"r.lan\"]";
    assert_told(HOSTS, "hosts = \"r.lan\"", expected);
    let expected = "site[0].allow_from: unknown key";
    assert_told(
        HOSTS,
        &format!("{HOSTS}\nallow_from = \"10.0.0.0/8\""),
        expected,
    );
}

#[test]
fn a_network_for_a_list_of_them_is_written_as_a_list() {
    assert_told(
        "access.rule",
        "access.allow_from = \"10.0.0.0/8\"\naccess.rule",
        "site[0].access.allow_from: must be a list: write it as [\"10.0.0.0/8\"]",
    );
}

#[test]
fn a_duration_has_a_unit() {
    let hint = "needs a unit (write it as \"30s\", \"5m\" or \"1h\")";
    let expected = format!("limits.read_timeout: 60: {hint}");
    assert_told("read_timeout = \"60s\"", "read_timeout = 60", &expected);
    let expected = format!("limits.read_timeout: \"60\": {hint}");
    assert_told("read_timeout = \"60s\"", "read_timeout = \"60\"", &expected);
}

#[test]
fn a_flag_is_true_or_false() {
    let expected = "listener[1].tls: must be true or false, without quotes";
    assert_told("tls = true", "tls = \"yes\"", expected);
}

#[test]
fn an_upstream_that_is_misspelt_is_recognised() {
    let expected = "site[0].upstream: unknown upstream \"registy\", did you mean \"registry\"?";
    assert_told(
        "upstream = \"registry\"",
        "upstream = \"registy\"",
        expected,
    );
}

#[test]
fn an_action_that_is_misspelt_is_recognised() {
    let expected = "site[0].access.rule[0].actions[0]: \"pul\": must be one of \"pull\", \"push\", \
                    \"delete\", \"catalog\" or \"*\", did you mean \"pull\"?";
    assert_told("actions = [\"pull\"]", "actions = [\"pul\"]", expected);
}

#[test]
fn a_level_is_one_of_those_there_are_and_is_told_once() {
    let list = "must be one of \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
    let expected = format!("log.level: \"verbose\": {list}");
    assert_told("level = \"info\"", "level = \"verbose\"", &expected);
    let expected = format!("log.level: \"inof\": {list}, did you mean \"info\"?");
    assert_told("level = \"info\"", "level = \"inof\"", &expected);
}

#[test]
fn a_size_is_told_how_it_is_written() {
    let expected = "limits.max_header_size: \"32 kilobytes\": is not a valid size (write it as \
                    \"64KiB\" or \"5GiB\")";
    assert_told("\"32KiB\"", "\"32 kilobytes\"", expected);
}

#[test]
fn where_else_the_other_registry_stores_is_said_not_to_be_supported() {
    for driver in ["s3", "gcs", "azure", "swift", "inmemory"] {
        let expected = format!(
            "registry.storage.{driver}: only the filesystem is supported so far: write filesystem = \
             {{ root = \"/var/lib/registry\" }}"
        );
        assert_told("filesystem = {", &format!("{driver} = {{"), &expected);
    }
}

#[test]
fn what_the_other_registry_calls_the_root_is_recognised() {
    assert_told(
        "{ root =",
        "{ rootdirectory =",
        "registry.storage.filesystem.rootdirectory: unknown key, did you mean \"root\"?",
    );
}

#[test]
fn a_certificate_and_a_key_that_are_swapped_are_recognised() {
    let rig = Setup::default().prepare();
    let text = fs::read_to_string(rig.config()).unwrap();
    let text = text.replace("cert_file", "other_file");
    let text = text.replace("key_file", "cert_file");
    fs::write(rig.config(), text.replace("other_file", "key_file")).unwrap();
    let output = check(&rig);
    assert_eq!(output.code, Some(1), "{output}");
    let expected = "holds a private key and no certificate: are cert_file and key_file swapped?";
    assert!(output.stderr.contains(expected), "{output}");
}

#[test]
fn no_message_says_that_a_thing_is_no_thing() {
    let output = told(HOSTS, "hosts = [\"a b\"]");
    assert!(
        output.stderr.contains("\"a b\": is not a valid host name"),
        "{output}"
    );
}

#[test]
fn users_and_groups_that_are_not_there_are_a_warning() {
    for (new, expected) in [
        (
            "who = [\"dokcer\"]",
            "site[0].access.rule[0].who[0]: \"dokcer\": there is no such user in ",
        ),
        (
            "who = [\"@dev\"]",
            "site[0].access.rule[0].who[0]: \"@dev\": nobody is in it, for there is neither a \
             group_file nor a client_ca_file",
        ),
    ] {
        let output = told("who = [\"docker\"]", new);
        assert_eq!(output.code, Some(0), "{output}");
        let warned = output
            .stderr
            .lines()
            .any(|line| line.starts_with("tidegate: warning: ") && line.contains(expected));
        assert!(warned, "{expected} is not in {output}");
    }
    let output = told(
        "[registry]",
        "[registry]\nallow_users = [\"tidegate-egde\"]",
    );
    let expected = "registry.allow_users[0]: \"tidegate-egde\": there is no such user";
    assert!(output.stderr.contains(expected), "{output}");
}

#[test]
fn storage_that_is_not_there_is_a_warning() {
    let rig = Setup::default().prepare();
    let output = check(&rig);
    assert_eq!(output.code, Some(0), "{output}");
    let expected = "registry.storage.filesystem.root: ";
    assert!(output.stderr.contains(expected), "{output}");
    assert!(output.stderr.contains("is not there yet"), "{output}");
    assert!(!rig.root.exists(), "a check makes nothing");
}
