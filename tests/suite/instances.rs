//! Several registries in one process: whatever is in one of them, the others have never heard of it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{
    Client, PASSWORD, Pair, Rig, Setup, USER, digest, eventually, image, push_blob, push_image,
    tidegate,
};

const TEAM_USER: &str = "ali";
const TEAM_PASSWORD: &str = "open sesame";

/// A second registry, `team`, behind a site and a user of its own.
struct Team {
    folder: PathBuf,
    certificate: PathBuf,
    /// Its part of the config.
    tables: String,
}

impl Team {
    /// Writes its files; `keys` are more keys of its table.
    fn prepare(keys: &str) -> Self {
        let folder = TempDir::with_prefix("team").unwrap().keep();
        let pair = Pair::create(&folder, "team", &["team.test"]);
        let hashed = bcrypt::hash(TEAM_PASSWORD, 4).unwrap();
        fs::write(folder.join("htpasswd"), format!("{TEAM_USER}:{hashed}\n")).unwrap();
        let tables = format!(
            r#"
[[site]]
hosts = ["team.test"]
certificate = {{ cert_file = "{cert}", key_file = "{key}" }}
upstream = "team"
[site.auth]
realm = "Team"
htpasswd_file = "{folder}/htpasswd"
[[registry.instance]]
name = "team"
listen = "unix:{folder}/team.sock"
storage.filesystem.root = "{folder}/registry"
{keys}
"#,
            cert = pair.cert.display(),
            key = pair.key.display(),
            folder = folder.display(),
        );
        Self {
            folder,
            certificate: pair.cert,
            tables,
        }
    }

    fn setup(&self) -> Setup {
        Setup {
            tables: self.tables.clone(),
            ..Setup::default()
        }
    }
}

/// Two registries, and a client of each.
struct Two {
    rig: Rig,
    first: Client,
    team: Client,
}

impl Two {
    fn start(team: &Team) -> Self {
        let rig = team.setup().start();
        let client = Client::tls(rig.https, "team.test", &team.certificate);
        Self {
            first: rig.client(),
            team: client.as_user(TEAM_USER, TEAM_PASSWORD),
            rig,
        }
    }
}

#[test]
fn what_is_pushed_to_one_registry_is_unknown_to_the_other() {
    let two = Two::start(&Team::prepare(""));
    let image = image(1, &[10_000]);
    let manifest = push_image(&two.team, "app", "v1", &image);
    let layer = digest(&image.layers[0]);
    two.team.get("/v2/app/manifests/v1").expect(200);
    two.team.get(&format!("/v2/app/blobs/{layer}")).expect(200);

    let first = &two.first;
    first
        .get("/v2/app/manifests/v1")
        .expect_error(404, "MANIFEST_UNKNOWN");
    first
        .get(&format!("/v2/app/manifests/{manifest}"))
        .expect_error(404, "MANIFEST_UNKNOWN");
    for method in ["GET", "HEAD"] {
        let path = format!("/v2/app/blobs/{layer}");
        first.request(method, &path).send().expect(404);
    }
    first
        .get("/v2/app/tags/list")
        .expect_error(404, "NAME_UNKNOWN");
    let list = |client: &Client| client.get("/v2/_catalog").expect(200).json().to_string();
    assert_eq!(list(first), r#"{"repositories":[]}"#);
    assert_eq!(list(&two.team), r#"{"repositories":["app"]}"#);
}

#[test]
fn no_mount_and_no_upload_leads_from_one_registry_to_the_other() {
    let two = Two::start(&Team::prepare(""));
    let layer = push_blob(&two.team, "app", b"of the team alone");
    for query in [format!("mount={layer}&from=app"), format!("mount={layer}")] {
        let path = format!("/v2/app/blobs/uploads/?{query}");
        two.first.post(&path).expect(202);
        two.team.post(&path).expect(201);
    }
    let session = two.team.post("/v2/app/blobs/uploads/").expect(202);
    let location = session.location();
    two.team.get(&location).expect(204);
    two.first
        .get(&location)
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    let stolen = two.first.request("PATCH", &location).body("x").send();
    stolen.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn each_registry_has_its_own_users() {
    let two = Two::start(&Team::prepare(""));
    two.first.get("/v2/").expect(200);
    two.team.get("/v2/").expect(200);
    let stranger = two.first.as_user(TEAM_USER, TEAM_PASSWORD);
    stranger.get("/v2/").expect_error(401, "UNAUTHORIZED");
    let stranger = two.team.as_user(USER, PASSWORD);
    let refused = stranger.get("/v2/").expect_error(401, "UNAUTHORIZED");
    assert_eq!(
        refused.header("WWW-Authenticate"),
        Some("Basic realm=\"Team\", charset=\"UTF-8\"")
    );
}

#[test]
fn a_reload_reaches_every_registry_and_none_is_added_while_they_run() {
    let mut team = Team::prepare("delete = false");
    let mut two = Two::start(&team);
    let blob = push_blob(&two.team, "app", b"x");
    let path = format!("/v2/app/blobs/{blob}");
    two.team.delete(&path).expect_error(405, "UNSUPPORTED");

    let more = "[[registry.instance]]\nname = \"more\"\nlisten = \"unix:/tmp/more.sock\"\n\
                storage.filesystem.root = \"more\"\n";
    team.tables = team.tables.replace("delete = false", "");
    let mut three = team.setup();
    three.tables.push_str(more);
    two.rig.write_config(&three);
    two.rig.registry().signal(Signal::HUP);
    eventually("the reload, but for the new registry", || {
        let said = "config reloaded, but for what needs a restart: registry.instance";
        two.rig.registry_log().contains(said).then_some(())
    });
    two.team.delete(&path).expect(202);
    assert!(!std::path::Path::new("/tmp/more.sock").exists());
}

#[test]
fn one_registry_that_cannot_start_is_named() {
    let team = Team::prepare("");
    let rig = team.setup().prepare();
    let root = team.folder.join("registry");
    fs::write(&root, "no folder").unwrap();
    let output = Command::new("timeout")
        .arg("20")
        .arg(tidegate().get_program())
        .args(["registry", "--config"])
        .arg(rig.config())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    let expected = format!("registry \"team\": registry storage in {}", root.display());
    assert!(told.contains(&expected), "{told}");
}

#[test]
fn all_registries_finish_their_uploads_when_the_process_stops() {
    let mut two = Two::start(&Team::prepare(""));
    let bytes = b"sent while the registry is told to stop";
    let session = two.team.post("/v2/app/blobs/uploads/").expect(202);
    let location = format!("{}?digest={}", session.location(), digest(bytes));
    let mut upload = two
        .team
        .request("PUT", &location)
        .header("Content-Length", &bytes.len().to_string())
        .header("Expect", "100-continue")
        .open()
        .unwrap();
    assert_eq!(upload.reply_head().unwrap().status, 100);
    two.rig.registry().signal(Signal::TERM);
    eventually("both to stop", || {
        let log = two.rig.registry_log();
        let waiting = log.matches("waiting for requests under way").count();
        (waiting == 2 && log.contains("registry=\"team\" requests=1")).then_some(())
    });
    upload.write(bytes).unwrap();
    upload.reply().unwrap().expect(201);
    assert!(two.rig.registry().wait(Duration::from_secs(30)).success());
}
