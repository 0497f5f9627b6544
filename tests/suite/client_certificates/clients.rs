//! Real clients, each with the certificate where it looks for one.

use std::fs;
use std::process::Command;

use super::Doors;
use crate::harness::{
    Dockerd, eventually, heavy, layout_with_layers, need, run, skip, tar_of, try_run,
};

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
