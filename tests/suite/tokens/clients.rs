//! Real clients where anyone pulls what is public and a name is asked for the rest: the reason why
//! there are tokens.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::public;
use crate::harness::{
    Dockerd, Image, MANIFEST, Output, PASSWORD, Process, Rig, Setup, USER, digest, eventually,
    heavy, layout_with_layers, need, push_image, run, skip, tar_of, tidegate, try_run,
};

/// A site where anyone pulls what is public, with an image in it and one beside it.
fn served() -> Rig {
    filled(public())
}

fn filled(setup: Setup) -> Rig {
    let rig = setup.start();
    let image = unpackable(&rig.path("layer.tar"));
    push_image(&rig.client(), "public/app", "v1", &image);
    push_image(&rig.client(), "team/app", "v1", &image);
    fs::create_dir(rig.path("certs")).unwrap();
    fs::copy(&rig.certificate.cert, rig.path("certs/ca.crt")).unwrap();
    rig
}

/// An image whose layer is a tar, for those who unpack what they pull.
fn unpackable(scratch: &Path) -> Image {
    tar_of(scratch, "file", 81, 50_000);
    let layer = fs::read(scratch).unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/none"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let descriptor = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest(bytes), "size": bytes.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("config.v1+json", &config),
        "layers": [descriptor("layer.v1.tar", &layer)],
    });
    Image {
        config,
        layers: vec![layer],
        manifest: manifest.to_string().into_bytes(),
    }
}

fn refused(output: &Output) {
    let text = format!("{}{}", output.stdout, output.stderr).to_lowercase();
    let told = ["unauthorized", "denied", "authentication required"];
    assert!(!output.success, "{output}");
    assert!(told.iter().any(|word| text.contains(word)), "{output}");
}

/// Docker's own word for what `docker login` has kept.
fn kept(engine: &Dockerd, registry: &str) -> (bool, bool) {
    let config = engine
        .scratch()
        .with_file_name("client")
        .join("config.json");
    let config = fs::read_to_string(config).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let entry = &config["auths"][registry];
    let password = openssl::base64::decode_block(entry["auth"].as_str().unwrap_or_default());
    let password = String::from_utf8(password.unwrap()).unwrap();
    (
        entry["identitytoken"].is_string(),
        password.contains(PASSWORD),
    )
}

#[test]
fn docker_pulls_without_a_name_and_pushes_with_one() {
    need!("dockerd", "docker", "unshare");
    if !rustix::process::getuid().is_root() {
        skip("only root can run a Docker engine");
        return;
    }
    let _one = heavy();
    let mut rig = served();
    let engine = Dockerd::start();
    let registry = format!("registry.test:{}", rig.https.port());
    engine.trust(&registry, &rig.certificate.cert);
    let at = |name: &str| format!("{registry}/{name}");
    engine.run(&["pull", &at("public/app:v1")]);
    refused(&engine.try_run(&["pull", &at("team/app:v1")]));
    engine.run(&["tag", &at("public/app:v1"), &at("team/new:v1")]);
    refused(&engine.try_run(&["push", &at("team/new:v1")]));

    let wrong = engine.try_run(&["login", "-u", USER, "-p", "wrong", &registry]);
    assert!(
        !wrong.success && wrong.stderr.contains("unauthorized"),
        "{wrong}"
    );
    let login = engine.try_run(&["login", "-u", USER, "-p", PASSWORD, &registry]);
    assert!(login.success, "{login}");
    // What Docker keeps is a token that can be revoked, and not the password.
    assert_eq!(kept(&engine, &registry), (true, false));
    engine.run(&["push", &at("team/new:v1")]);
    engine.run(&["pull", &at("team/app:v1")]);
    let elsewhere = at("other/new:v1");
    engine.run(&["tag", &at("team/new:v1"), &elsewhere]);
    let mounted = engine.run(&["push", &elsewhere]);
    assert!(mounted.contains("Mounted from team/new"), "{mounted}");

    rig.crash_edge();
    engine.run(&["push", &at("team/new:v1")]);
    let mut end = tidegate();
    end.args(["token", "end-sessions", "--all", "--config"])
        .arg(rig.config());
    run(&mut end);
    eventually("Docker to be refused", || {
        let push = engine.try_run(&["push", &at("team/new:v1")]);
        (!push.success).then_some(())
    });
    engine.run(&["logout", &registry]);
    engine.run(&["pull", &at("public/app:v1")]);
    refused(&engine.try_run(&["pull", &at("team/app:v1")]));

    // A robot is a login as any other, within its bounds.
    let mut create = tidegate();
    create
        .args(["token", "create", "ci", "--repository", "team/**"])
        .args(["--action", "pull,push", "--config"])
        .arg(rig.config());
    let secret = run(&mut create);
    let login = eventually("the robot to be known", || {
        let login = engine.try_run(&["login", "-u", "ci", "-p", secret.trim(), &registry]);
        login.success.then_some(login)
    });
    assert!(login.stdout.contains("Login Succeeded"), "{login}");
    engine.run(&["push", &at("team/new:v1")]);
    engine.run(&["tag", &at("team/new:v1"), &at("other/new:v2")]);
    refused(&engine.try_run(&["push", &at("other/new:v2")]));
}

/// Why `both` is not the usual scheme: two challenges are too many for Docker without a name.
#[test]
fn docker_with_a_name_gets_along_with_both_challenges() {
    need!("dockerd", "docker", "unshare");
    if !rustix::process::getuid().is_root() {
        skip("only root can run a Docker engine");
        return;
    }
    let _one = heavy();
    let rig = filled(Setup {
        auth: "scheme = \"both\"".to_owned(),
        ..public()
    });
    let engine = Dockerd::start();
    let registry = format!("registry.test:{}", rig.https.port());
    engine.trust(&registry, &rig.certificate.cert);
    let image = format!("{registry}/public/app:v1");
    let anonymous = engine.try_run(&["pull", &image]);
    assert!(
        anonymous.stderr.contains("no basic auth credentials"),
        "{anonymous}"
    );
    engine.run(&["login", "-u", USER, "-p", PASSWORD, &registry]);
    engine.run(&["pull", &image]);
    engine.run(&["push", &image]);
}

#[test]
fn podman_and_skopeo_pull_without_a_name_and_push_with_one() {
    need!("podman", "skopeo");
    for scheme in ["bearer", "both"] {
        let rig = filled(Setup {
            auth: format!("scheme = \"{scheme}\""),
            ..public()
        });
        let path = |name: &str| rig.path(name).to_string_lossy().into_owned();
        fs::write(
            rig.path("policy.json"),
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        )
        .unwrap();
        fs::write(rig.path("auth.json"), "{}").unwrap();
        let certs = path("certs");
        let tool = |program: &str| {
            let mut command = Command::new(program);
            if program == "podman" {
                command
                    .args(["--root", &path("storage"), "--runroot", &path("run")])
                    .args(["--storage-driver", "vfs"]);
            } else {
                command.args(["--policy", &path("policy.json")]);
            }
            command.env("REGISTRY_AUTH_FILE", path("auth.json"));
            command.env("XDG_RUNTIME_DIR", path("run"));
            command
        };
        let at = |name: &str| format!("docker://{}/{name}", rig.name());
        let podman = |arguments: &[&str]| try_run(tool("podman").args(arguments));
        let skopeo = |arguments: &[&str]| try_run(tool("skopeo").args(arguments));
        let pulled = podman(&["pull", "--cert-dir", &certs, &at("public/app:v1")]);
        assert!(pulled.success, "{scheme}: {pulled}");
        refused(&podman(&["pull", "--cert-dir", &certs, &at("team/app:v1")]));
        let source = format!("oci:{}:latest", path("source"));
        layout_with_layers(&rig.path("source"), 83, &[1000, 200_000]);
        let to = at("team/new:v1");
        let push = ["copy", "--dest-cert-dir", &certs, &source, &to];
        refused(&skopeo(&push));

        let name = rig.name();
        let login = ["login", "--cert-dir", &certs, "-u", USER, "-p"];
        let wrong = podman(&[&login[..], &["wrong", &name]].concat());
        assert!(!wrong.success, "{wrong}");
        let right = podman(&[&login[..], &[PASSWORD, &name]].concat());
        assert!(right.success, "{scheme}: {right}");
        for done in [
            skopeo(&push),
            podman(&["pull", "--cert-dir", &certs, &to]),
            podman(&[
                "push",
                "--cert-dir",
                &certs,
                &format!("{name}/team/new:v1"),
                &at("team/x:v1"),
            ]),
            skopeo(&["list-tags", "--cert-dir", &certs, &at("team/new")]),
            skopeo(&["delete", "--cert-dir", &certs, &to]),
        ] {
            assert!(done.success, "{scheme}: {done}");
        }
    }
}

#[test]
fn crane_pulls_without_a_name_and_pushes_with_one() {
    need!("crane");
    for scheme in ["bearer", "both"] {
        let rig = filled(Setup {
            auth: format!("scheme = \"{scheme}\""),
            ..public()
        });
        let crane = |arguments: &[&str]| try_run(rig.go_client("crane").args(arguments));
        let name = rig.name();
        let at = |image: &str| format!("{name}/{image}");
        let saved = rig.path("saved.tar").to_string_lossy().into_owned();
        let pulled = crane(&["pull", &at("public/app:v1"), &saved]);
        assert!(pulled.success, "{scheme}: {pulled}");
        refused(&crane(&["digest", &at("team/app:v1")]));
        refused(&crane(&["push", &saved, &at("team/new:v1")]));
        tar_of(&rig.path("layer.tar"), "file", 5, 200_000);
        let layer = rig.path("layer.tar").to_string_lossy().into_owned();
        for arguments in [
            &["auth", "login", &name, "-u", USER, "-p", PASSWORD][..],
            &["append", "-f", &layer, "-t", &at("team/new:v1")],
            &["validate", "--remote", &at("team/new:v1")],
            &["copy", &at("team/new:v1"), &at("other/new:v1")],
            &["ls", &at("team/new")],
            &["catalog", &name],
        ] {
            let done = crane(arguments);
            assert!(done.success, "{scheme}: {arguments:?}: {done}");
        }
        let digest = crane(&["digest", &at("team/new:v1")]).stdout;
        let done = crane(&["delete", &format!("{}@{}", at("team/new"), digest.trim())]);
        assert!(done.success, "{scheme}: {done}");
    }
}

#[test]
fn regctl_pulls_without_a_name_and_pushes_with_one() {
    need!("regctl");
    let rig = served();
    let regctl = |arguments: &[&str]| try_run(rig.go_client("regctl").args(arguments));
    let name = rig.name();
    let at = |image: &str| format!("{name}/{image}");
    let out = format!("ocidir://{}", rig.path("out").display());
    let pulled = regctl(&["image", "copy", &at("public/app:v1"), &format!("{out}:v1")]);
    assert!(pulled.success, "{pulled}");
    refused(&regctl(&["image", "digest", &at("team/app:v1")]));
    for arguments in [
        &["registry", "login", &name, "-u", USER, "-p", PASSWORD][..],
        &["image", "copy", &format!("{out}:v1"), &at("team/new:v1")],
        &["image", "copy", &at("team/new:v1"), &at("other/new:v1")],
        &["tag", "ls", &at("team/new")],
        &["repo", "ls", &name],
        &["tag", "rm", &at("team/new:v1")],
    ] {
        let done = regctl(arguments);
        assert!(done.success, "{arguments:?}: {done}");
    }
}

#[test]
fn oras_pulls_without_a_name_and_pushes_with_one() {
    need!("oras");
    let rig = served();
    let home = rig.path("home");
    let oras = |arguments: &[&str]| try_run(rig.go_client("oras").args(arguments));
    // oras speaks plain HTTP to anything called localhost.
    let name = format!("127.0.0.1:{}", rig.https.port());
    let at = |image: &str| format!("{name}/{image}");
    let fetched = oras(&["manifest", "fetch", &at("public/app:v1")]);
    assert!(fetched.success, "{fetched}");
    refused(&oras(&["manifest", "fetch", &at("team/app:v1")]));
    fs::write(home.join("bill.json"), "{}").unwrap();
    let push = ["push", &at("team/bill:v1"), "bill.json:application/json"];
    refused(&oras(&push));
    for arguments in [
        &["login", &name, "-u", USER, "-p", PASSWORD][..],
        &push,
        &["pull", &at("team/bill:v1"), "-o", "back"],
        &["copy", &at("team/bill:v1"), &at("other/bill:v1")],
        &["manifest", "delete", "--force", &at("team/bill:v1")],
    ] {
        let done = oras(arguments);
        assert!(done.success, "{arguments:?}: {done}");
    }
}

/// containerd asks with POST first, where it has a password.
#[test]
fn containerd_fetches_without_a_name_and_pushes_with_one() {
    need!("containerd", "ctr");
    if !rustix::process::getuid().is_root() {
        skip("only root can run containerd");
        return;
    }
    let _one = heavy();
    let rig = served();
    let path = |name: &str| rig.path(name).to_string_lossy().into_owned();
    let socket = path("containerd.sock");
    let mut daemon = Command::new("containerd");
    daemon.args([
        "--root",
        &path("containerd"),
        "--state",
        &path("containerd-state"),
    ]);
    let _daemon = Process::start(
        daemon.args(["--address", &socket]),
        &rig.path("containerd.log"),
    );
    let name = rig.name();
    let hosts = rig.path("hosts").join(&name);
    fs::create_dir_all(&hosts).unwrap();
    let trust = format!(
        "server = \"https://{name}\"\n[host.\"https://{name}\"]\nca = {:?}\n",
        path("certs/ca.crt")
    );
    fs::write(hosts.join("hosts.toml"), trust).unwrap();
    let ctr = |arguments: &[&str]| {
        let mut command = Command::new("ctr");
        try_run(command.args(["--address", &socket]).args(arguments))
    };
    eventually("containerd", || ctr(&["version"]).success.then_some(()));
    let at = |image: &str| format!("{name}/{image}");
    let folder = path("hosts");
    let user = format!("{USER}:{PASSWORD}");
    let fetch = |image: &str| ctr(&["content", "fetch", "--hosts-dir", &folder, &at(image)]);
    let fetched = fetch("public/app:v1");
    assert!(fetched.success, "{fetched}");
    let private = fetch("team/app:v1");
    assert!(!private.success, "{private}");
    let private = at("team/app:v1");
    for (user, right) in [(format!("{USER}:wrong"), false), (user.clone(), true)] {
        let options = ["--hosts-dir", &folder, "--user", &user];
        let done = ctr(&[&["content", "fetch"][..], &options, &[&private]].concat());
        assert_eq!(done.success, right, "{done}");
    }
    let pushed = |user: &str| {
        let options = ["--hosts-dir", &folder, "--user", user];
        let (to, from) = (at("team/new:v1"), at("public/app:v1"));
        ctr(&[&["images", "push"][..], &options, &[&to, &from]].concat())
    };
    assert!(!pushed(&format!("{USER}:wrong")).success);
    let pushed = pushed(&user);
    assert!(pushed.success, "{pushed}");
    rig.client()
        .request("GET", "/v2/team/new/manifests/v1")
        .header("Accept", MANIFEST)
        .send()
        .expect(200);
    assert!(
        rig.edge_log()
            .contains("method=\"POST\" path=\"/auth/token\" status=200")
    );
}
