//! `tidegate check` is as strict as the run: it sees what each role's user sees, and how long
//! certificates hold. And what a role cannot do is told in plain words.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{
    Client, Output, Pair, Process, Rig, Setup, eventually, free_port, need, run, skip, tidegate,
    try_run,
};

const DAY_SECS: i64 = 24 * 60 * 60;

/// Somebody else, who is on every machine.
const NOBODY: &str = "nobody";

fn check(rig: &Rig, flags: &[&str]) -> Output {
    let mut command = tidegate();
    command.arg("check").args(flags).arg("--config");
    try_run(command.arg(rig.config()))
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A rig whose edge is to run as [`NOBODY`], and may; nothing of it is secret.
fn open_to_all() -> Option<Rig> {
    if !rustix::process::getuid().is_root() {
        skip("only root can look as another user");
        return None;
    }
    let rig = Setup {
        registry: format!("allow_users = [\"{NOBODY}\"]"),
        ..Setup::default()
    }
    .prepare();
    fs::create_dir(&rig.root).unwrap();
    set_mode(rig.config().parent().unwrap(), 0o755);
    for file in [&rig.certificate.key, &rig.path("htpasswd")] {
        set_mode(file, 0o644);
    }
    Some(rig)
}

#[test]
fn root_sees_what_the_edges_user_may_not_read() {
    let Some(rig) = open_to_all() else { return };
    let output = check(&rig, &[]);
    assert!(output.success, "{output}");
    for (file, key) in [
        (&rig.certificate.key, "site[0].certificate.key_file"),
        (&rig.path("htpasswd"), "site[0].auth.htpasswd_file"),
    ] {
        set_mode(file, 0o600);
        for flags in [&[][..], &["--role", "edge"]] {
            let output = check(&rig, flags);
            assert_eq!(output.code, Some(1), "{output}");
            let shown = file.display();
            let told = format!("{key}: {shown}: user {NOBODY} may not read it");
            assert!(output.stderr.contains(&told), "{told} is not in {output}");
            assert!(output.stderr.contains("chmod g+r"), "{output}");
            assert_eq!(output.stderr.lines().count(), 1, "{output}");
        }
        // The registry has no need of it, and root may have meant itself.
        for flags in [&["--role", "registry"][..], &["--edge-user", "root"]] {
            let output = check(&rig, flags);
            assert!(output.success, "{output}");
        }
        set_mode(file, 0o644);
    }
    set_mode(rig.config().parent().unwrap(), 0o700);
    // Who cannot even read the config does not run with it.
    let output = check(&rig, &[]);
    assert!(output.success, "{output}");
    let output = check(&rig, &["--edge-user", NOBODY]);
    assert_eq!(output.code, Some(1), "{output}");
    let told = format!("user {NOBODY} may not enter the folder");
    assert!(output.stderr.contains(&told), "{output}");
}

#[test]
fn root_sees_where_the_registrys_user_may_not_write() {
    let Some(rig) = open_to_all() else { return };
    let registry = ["--registry-user", NOBODY];
    let refused = |told: &str| {
        let output = check(&rig, &registry);
        assert_eq!(output.code, Some(1), "{output}");
        let key = "registry.storage.filesystem.root: ";
        assert!(output.stderr.contains(key), "{output}");
        assert!(output.stderr.contains(told), "{told} is not in {output}");
    };
    let root = rig.root.display().to_string();
    refused(&format!(
        "{root}: user {NOBODY} may not write to this folder"
    ));
    chown(&rig.root, Some(65534), None).unwrap();
    let output = check(&rig, &registry);
    assert!(output.success, "{output}");
    // As another registry, which ran as root, has left it.
    let blobs = rig.tree().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    refused(&format!("chown -R {NOBODY} "));
    run(Command::new("chown").args(["-R", NOBODY]).arg(&rig.root));
    let output = check(&rig, &registry);
    assert!(output.success, "{output}");
    fs::remove_dir_all(&rig.root).unwrap();
    refused(&format!("is not there, and user {NOBODY} may not make it"));
    refused(&format!("install -d -o {NOBODY} -m 700 {root}"));
}

#[test]
fn root_sees_a_log_that_a_role_may_not_write() {
    let Some(rig) = open_to_all() else { return };
    let text = fs::read_to_string(rig.config()).unwrap();
    let log = rig.path("edge.log");
    let text = format!("log.file = \"{}\"\n{text}", log.display());
    fs::write(rig.config(), text).unwrap();
    let output = check(&rig, &[]);
    assert_eq!(output.code, Some(1), "{output}");
    let folder = rig.config().parent().unwrap().display().to_string();
    let told = format!("log.file: {folder}: user {NOBODY} may not write to this folder");
    assert!(output.stderr.contains(&told), "{told} is not in {output}");
    fs::write(&log, "").unwrap();
    chown(&log, Some(65534), None).unwrap();
    let output = check(&rig, &[]);
    assert!(output.success, "{output}");
}

#[test]
fn a_user_to_look_as_must_be_there_and_only_root_can() {
    let Some(rig) = open_to_all() else { return };
    let output = check(&rig, &["--edge-user", "no-such-user"]);
    assert_eq!(output.code, Some(1), "{output}");
    let told = "--edge-user: there is no user \"no-such-user\"";
    assert!(output.stderr.contains(told), "{output}");
    // The folder of `tidegate up` is one user's, whoever that is.
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("data");
    run(tidegate().args(["setup", "--dir"]).arg(&dir));
    let config = dir.join("edge.toml");
    let output = try_run(tidegate().arg("check").arg(&config));
    assert!(output.success && output.stderr.is_empty(), "{output}");
}

#[test]
fn a_certificate_that_has_expired_is_an_error_and_the_edge_serves_it_all_the_same() {
    let mut rig = Setup::default().prepare();
    fs::create_dir(&rig.root).unwrap();
    rig.certificate.end_in(-2 * DAY_SECS);
    let output = check(&rig, &[]);
    assert_eq!(output.code, Some(1), "{output}");
    let file = rig.certificate.cert.display().to_string();
    let told = format!("error: {file}: expired on ");
    assert!(output.stderr.contains(&told), "{told} is not in {output}");
    let output = check(&rig, &["--role", "edge"]);
    assert!(output.success, "it can be started: {output}");
    let certs = tidegate()
        .arg("certs")
        .arg("--config")
        .arg(rig.config())
        .output();
    assert_eq!(certs.unwrap().status.code(), Some(1));

    rig.start_registry();
    rig.start_edge();
    eventually("the edge to start and say so", || {
        let log = rig.edge().log();
        assert!(rig.edge().exited().is_none(), "{log}");
        let mut lines = log.lines().filter(|line| line.contains(": expired on "));
        let line = lines.next()?;
        assert!(line.contains("ERROR"), "{line}");
        log.contains("ready").then_some(())
    });
}

#[test]
fn a_certificate_that_soon_expires_is_a_warning() {
    let rig = Setup::default().prepare();
    fs::create_dir(&rig.root).unwrap();
    let certs = || try_run(tidegate().arg("certs").arg("--config").arg(rig.config()));
    rig.certificate.end_in(15 * DAY_SECS);
    for output in [check(&rig, &[]), certs()] {
        assert!(output.success && output.stderr.is_empty(), "{output}");
    }
    rig.certificate.end_in(4 * DAY_SECS + 60);
    for output in [check(&rig, &[]), certs()] {
        assert!(output.success, "{output}");
        let file = rig.certificate.cert.display();
        let told = format!("tidegate: warning: {file}: expires in 4 days");
        assert!(
            output.stderr.starts_with(&told),
            "{told} is not in {output}"
        );
    }
}

#[test]
fn a_folder_that_is_moved_works_at_its_new_place() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let port = || format!("127.0.0.1:{}", free_port());
    run(tidegate()
        .args(["setup", "--https", &port(), "--http", &port(), "--dir"])
        .arg(at("old")));
    let text = fs::read_to_string(at("old/edge.toml")).unwrap();
    assert!(
        text.contains("listen = \"unix:run/registry.sock\""),
        "{text}"
    );
    assert!(!text.contains(&*folder.path().to_string_lossy()), "{text}");
    fs::rename(at("old"), at("new")).unwrap();
    let mut registry = Process::start(
        tidegate()
            .args(["registry", "--config"])
            .arg(at("new/edge.toml")),
        &at("log"),
    );
    eventually("the socket to be there", || {
        assert!(registry.exited().is_none(), "{}", registry.log());
        at("new/run/registry.sock").exists().then_some(())
    });
    assert!(!at("old").exists());
}

#[test]
fn a_config_is_named_with_a_flag_or_without() {
    let rig = Setup::default().prepare();
    fs::create_dir(&rig.root).unwrap();
    let output = try_run(tidegate().arg("check").arg(rig.config()));
    assert!(output.success, "{output}");
    let output = try_run(tidegate().args(["check", "/nowhere/edge.toml"]));
    assert_eq!(output.code, Some(1), "{output}");
    assert!(
        output.stderr.starts_with("/nowhere/edge.toml: "),
        "{output}"
    );
}

#[test]
fn arguments_of_apaches_htpasswd_are_told_where_the_password_comes_from() {
    let wrong = [
        &["add", "ht", "moby", "gordon"][..],
        &["-Bbn", "moby", "gordon"],
    ];
    for arguments in wrong {
        let output = try_run(tidegate().arg("htpasswd").args(arguments));
        assert_eq!(output.code, Some(2), "{output}");
        assert!(output.stderr.contains("else read from stdin"), "{output}");
    }
    let output = try_run(tidegate().args(["htpasswd", "--help"]));
    assert!(output.success && output.stderr.is_empty(), "{output}");
}

#[test]
fn an_address_to_listen_at_is_told_how_it_is_written() {
    for address in [":9000", "9000", "localhost:9000"] {
        let mut command = tidegate();
        command.args(["setup", "--https", address, "--dir", "/nowhere"]);
        let output = try_run(&mut command);
        assert_eq!(output.code, Some(2), "{output}");
        assert!(output.stderr.contains("127.0.0.1:9000"), "{output}");
    }
}

#[test]
fn what_is_roots_is_named_and_asks_for_sudo() {
    need!("setpriv");
    let Some(rig) = open_to_all() else { return };
    let state = rig.path("secret");
    fs::create_dir(&state).unwrap();
    set_mode(&state, 0o700);
    set_mode(&rig.path("htpasswd"), 0o600);
    let text = fs::read_to_string(rig.config()).unwrap();
    fs::write(rig.config(), format!("state_dir = \"secret\"\n{text}")).unwrap();
    // Where the program was built may be closed to others.
    let program = rig.path("tidegate");
    fs::copy(tidegate().get_program(), &program).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        let somebody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        command.args(somebody).arg(&program).args(arguments);
        try_run(&mut command)
    };
    let config = rig.config().display().to_string();
    let htpasswd = rig.path("htpasswd").display().to_string();
    for (arguments, path) in [
        (
            &["token", "list", "--config", &config][..],
            state.display().to_string(),
        ),
        (&["htpasswd", "list", &htpasswd], htpasswd.clone()),
    ] {
        let output = as_nobody(arguments);
        assert_eq!(output.code, Some(1), "{output}");
        assert!(output.stderr.contains(&path), "{output}");
        assert!(output.stderr.contains("sudo"), "{output}");
    }
}

#[test]
fn an_upstream_that_is_not_there_is_told_in_a_sentence() {
    let port = free_port();
    let names = TempDir::new().unwrap();
    let pair = Pair::create(names.path(), "web", &["web.test"]);
    let mut rig = Setup {
        tables: format!(
            "[[upstream]]\nname = \"web\"\npeers = [\"127.0.0.1:{port}\"]\n[[site]]\n\
             hosts = [\"web.test\"]\nupstream = \"web\"\n\
             certificate = {{ cert_file = \"{}\", key_file = \"{}\" }}\n",
            pair.cert.display(),
            pair.key.display()
        ),
        ..Setup::default()
    }
    .start();
    let web = Client::tls(rig.https, "web.test", &pair.cert);
    web.get("/").expect(503);
    let told = format!("error=\"connect to 127.0.0.1:{port}: connection refused\"");
    eventually("the access log to say so", || {
        rig.edge().log().contains(&told).then_some(())
    });
}

#[test]
fn a_ca_that_is_not_there_is_told_in_a_sentence() {
    let port = free_port();
    let site = "[[site]]\nhosts = [\"a.test\"]\ncertificate = \"acme\"\nupstream = \"registry\"\n";
    let rig = Setup {
        top: format!(
            "acme = {{ agree_to_terms = true, directory = \"https://127.0.0.1:{port}/dir\" }}"
        ),
        tables: site.to_owned(),
        ..Setup::default()
    }
    .prepare();
    let output = try_run(tidegate().arg("renew").arg("--config").arg(rig.config()));
    assert_eq!(output.code, Some(1), "{output}");
    let told = format!("connect to 127.0.0.1:{port}: connection refused");
    assert!(output.stderr.contains(&told), "{output}");
    for word in ["ConnectRefused", "context", "cause"] {
        assert!(!output.stderr.contains(word), "{output}");
    }
    for verb in ["certs", "check"] {
        let output = try_run(tidegate().arg(verb).arg("--config").arg(rig.config()));
        assert!(output.to_string().contains(&told), "{verb}: {output}");
    }
}
