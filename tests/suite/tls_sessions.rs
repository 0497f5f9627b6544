//! Sessions that clients go on with: for how long, and with whom.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{Rig, Setup, eventually, run, tidegate, try_run};

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// `openssl s_client` that makes a request; returns whether it went on with a session.
fn resumes(rig: &Rig, more: &[&str]) -> bool {
    let script = format!(
        "printf 'GET /v2/ HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | \
         openssl s_client -connect {} -servername localhost -CAfile {} -ign_eof \"$@\" 2>&1",
        rig.https,
        rig.certificate.cert.display(),
    );
    let said = try_run(Command::new("sh").args(["-c", &script, "sh"]).args(more)).stdout;
    assert!(said.contains("401 Unauthorized"), "{said}");
    // In TLS 1.3 a ticket is for one use, and the next one comes with it.
    let next = said.contains("Post-Handshake New Session Ticket arrived");
    assert_eq!(next, said.contains("TLSv1.3"), "{said}");
    said.contains("Reused, ")
}

/// Begins a session of each version, kept by this name; returns what goes on with it.
fn begin(rig: &Rig, name: &str) -> Vec<[String; 3]> {
    let begin = |version: &str| {
        let file = rig.path(&format!("{name}{version}")).display().to_string();
        assert!(!resumes(rig, &[version, "-sess_out", &file]));
        [version.to_owned(), "-sess_in".to_owned(), file]
    };
    VERSIONS.map(begin).to_vec()
}

fn all_resume(rig: &Rig, sessions: &[[String; 3]]) -> bool {
    let resumed: Vec<bool> = sessions
        .iter()
        .map(|session| resumes(rig, &session.each_ref().map(String::as_str)))
        .collect();
    assert!(resumed.iter().all(|one| *one == resumed[0]), "{resumed:?}");
    resumed[0]
}

fn key(path: &Path) -> String {
    run(Command::new("openssl")
        .args(["rand", "-out"])
        .arg(path)
        .arg("80"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    format!("{:?}", path.display().to_string())
}

fn with_keys(files: &str) -> Setup {
    Setup {
        tables: format!("[tls]\nticket_key_files = [{files}]\n"),
        ..Setup::default()
    }
}

#[test]
fn a_session_goes_on_through_a_reload_and_ends_with_the_edge() {
    let mut rig = Rig::start();
    let sessions = begin(&rig, "first");
    assert!(all_resume(&rig, &sessions));
    // Again: nothing was used up, and a connection that was cut is held against nobody.
    assert!(all_resume(&rig, &sessions));
    let config = fs::read_to_string(rig.config()).unwrap();
    fs::write(rig.config(), format!("drain_timeout = \"1m\"\n{config}")).unwrap();
    rig.reload_edge();
    eventually("the reload", || {
        rig.edge_log().contains("config reloaded").then_some(())
    });
    assert!(all_resume(&rig, &sessions));
    rig.edge().terminate();
    rig.start_edge();
    rig.wait_until_ready();
    assert!(!all_resume(&rig, &sessions));
}

#[test]
fn sessions_by_keys_from_files_last_as_long_as_the_keys() {
    let folder = tempfile::TempDir::new().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let (one, other) = (key(&first), key(&second));
    let mut rig = with_keys(&one).start();
    let sessions = begin(&rig, "first");
    rig.edge().terminate();
    rig.start_edge();
    rig.wait_until_ready();
    assert!(all_resume(&rig, &sessions), "after a restart");

    // A new key makes tickets, the old one still opens what it has made.
    rig.write_config(&with_keys(&format!("{other}, {one}")));
    rig.reload_edge();
    eventually("the reload", || {
        rig.edge_log().contains("config reloaded").then_some(())
    });
    assert!(all_resume(&rig, &sessions));
    let newer = begin(&rig, "newer");

    // And then it is no more: a file is read again as soon as it changes.
    key(&first);
    eventually("the change to be seen", || {
        rig.edge_log()
            .contains("keys of session tickets changed")
            .then_some(())
    });
    assert!(!all_resume(&rig, &sessions) && all_resume(&rig, &newer));

    fs::set_permissions(&second, fs::Permissions::from_mode(0o644)).unwrap();
    let checked = try_run(tidegate().args(["check", "--config"]).arg(rig.config()));
    assert!(
        checked.stderr.contains("tls.ticket_key_files: ")
            && checked.stderr.contains("anyone may read it"),
        "{checked}"
    );
}
