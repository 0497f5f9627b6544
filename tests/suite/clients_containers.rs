//! Podman, Skopeo and Buildah, each as its own manual says.

use std::fs;
use std::process::Command;

use crate::harness::{
    INDEX, PASSWORD, Rig, USER, blobs_of, digest, image, index_of, layout_with_layers, need,
    push_image, push_manifest, run, tar_of, try_run,
};

/// What these three share: trust in the edge's certificate, and a file of credentials.
struct Kit {
    rig: Rig,
}

impl Kit {
    fn new() -> Self {
        let rig = Rig::start();
        fs::create_dir(rig.path("certs")).unwrap();
        fs::copy(&rig.certificate.cert, rig.path("certs/ca.crt")).unwrap();
        Self { rig }
    }

    fn path(&self, name: &str) -> String {
        self.rig.path(name).to_string_lossy().into_owned()
    }

    fn reference(&self, image: &str) -> String {
        format!("docker://{}/{image}", self.rig.name())
    }

    /// One of the three, with storage of its own where it has any.
    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if program != "skopeo" {
            command
                .args([
                    "--root",
                    &self.path("storage"),
                    "--runroot",
                    &self.path("run"),
                ])
                .args(["--storage-driver", "vfs"]);
        }
        // A policy of the test's own: the machine need not have one.
        let policy = self.path("policy.json");
        fs::write(
            &policy,
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        )
        .unwrap();
        if program == "skopeo" {
            command.args(["--policy", &policy]);
        }
        command.env("REGISTRY_AUTH_FILE", self.path("auth.json"));
        command.env("XDG_RUNTIME_DIR", self.path("run"));
        command
    }

    fn login(&self, program: &str) {
        let (certs, name) = (self.path("certs"), self.rig.name());
        let login = |password| {
            let mut command = self.tool(program);
            command.args(["login", "--cert-dir", &certs, "-u", USER]);
            try_run(command.args(["-p", password, &name]))
        };
        assert!(!login("wrong").success);
        let right = login(PASSWORD);
        assert!(right.success, "{right}");
    }
}

#[test]
fn skopeo_copies_in_and_out_inspects_lists_and_deletes() {
    need!("skopeo");
    let kit = Kit::new();
    kit.login("skopeo");
    let certs = kit.path("certs");
    let source = layout_with_layers(&kit.rig.path("source"), 1, &[1000, 200_000, 3_000_000]);
    let skopeo = |arguments: &[&str]| run(kit.tool("skopeo").args(arguments));

    let from = format!("oci:{}:latest", kit.path("source"));
    let image = kit.reference("skopeo/app:v1");
    let into = [
        "copy",
        "--preserve-digests",
        "--dest-cert-dir",
        &certs,
        &from,
        &image,
    ];
    skopeo(&into);
    let found = skopeo(&[
        "inspect",
        "--cert-dir",
        &certs,
        "--format",
        "{{.Digest}}",
        &image,
    ]);
    assert_eq!(found.trim(), source);
    skopeo(&[
        "copy",
        "--src-cert-dir",
        &certs,
        "--dest-cert-dir",
        &certs,
        &image,
        &kit.reference("skopeo/app:v2"),
    ]);
    let tags = skopeo(&[
        "list-tags",
        "--cert-dir",
        &certs,
        &kit.reference("skopeo/app"),
    ]);
    assert!(tags.contains("\"v1\"") && tags.contains("\"v2\""), "{tags}");

    let back = format!("oci:{}:latest", kit.path("back"));
    skopeo(&[
        "copy",
        "--preserve-digests",
        "--src-cert-dir",
        &certs,
        &image,
        &back,
    ]);
    let blobs = |folder: &str| blobs_of(&kit.rig.path(folder));
    assert_eq!(blobs("back"), blobs("source"));

    skopeo(&["delete", "--cert-dir", &certs, &image]);
    let gone = try_run(
        kit.tool("skopeo")
            .args(["inspect", "--cert-dir", &certs, &image]),
    );
    assert!(
        !gone.success && gone.stderr.contains("manifest unknown"),
        "{gone}"
    );
    run(kit.tool("skopeo").args(["logout", &kit.rig.name()]));
    let refused = try_run(kit.tool("skopeo").args(into));
    assert!(!refused.success, "{refused}");
}

#[test]
fn skopeo_copies_every_architecture_of_an_index() {
    need!("skopeo");
    let kit = Kit::new();
    kit.login("skopeo");
    let certs = kit.path("certs");
    let images = [image(110, &[1000]), image(111, &[2000])];
    for image in &images {
        push_image(&kit.rig.client(), "multi/one", &image.digest(), image);
    }
    let index = index_of(&images.iter().collect::<Vec<_>>());
    push_manifest(&kit.rig.client(), "multi/one", "v1", INDEX, &index).expect(201);

    let (one, two) = (kit.reference("multi/one:v1"), kit.reference("multi/two:v1"));
    let flags = [
        "copy",
        "--all",
        "--preserve-digests",
        "--src-cert-dir",
        &certs,
        "--dest-cert-dir",
        &certs,
        &one,
        &two,
    ];
    run(kit.tool("skopeo").args(flags));

    let copied = kit
        .rig
        .client()
        .get("/v2/multi/two/manifests/v1")
        .expect(200);
    assert_eq!(digest(&copied.body), digest(&index));
    for image in &images {
        kit.rig
            .client()
            .get(&format!("/v2/multi/two/manifests/{}", image.digest()))
            .expect(200);
    }
}

#[test]
fn podman_logs_in_pushes_pulls_and_logs_out() {
    need!("podman");
    let kit = Kit::new();
    kit.login("podman");
    let certs = kit.path("certs");
    tar_of(&kit.rig.path("root.tar"), "file", 2, 300_000);
    let podman = |arguments: &[&str]| run(kit.tool("podman").args(arguments));
    let image = format!("{}/podman/app:v1", kit.rig.name());

    let id = podman(&["import", "-q", &kit.path("root.tar")]);
    let id = id.trim().trim_start_matches("sha256:");
    podman(&["push", "--cert-dir", &certs, id, &image]);
    podman(&["rmi", "-f", id]);
    let pulled = podman(&["pull", "-q", "--cert-dir", &certs, &image]);
    assert_eq!(pulled.trim(), id);

    podman(&["logout", &kit.rig.name()]);
    podman(&["rmi", "-f", id]);
    let refused = try_run(
        kit.tool("podman")
            .args(["pull", "-q", "--cert-dir", &certs, &image]),
    );
    assert!(
        !refused.success && refused.stderr.contains("unauthorized"),
        "{refused}"
    );
}

#[test]
fn buildah_pushes_what_it_built_and_pulls_it_again() {
    need!("buildah");
    let kit = Kit::new();
    kit.login("buildah");
    let certs = kit.path("certs");
    let file = kit.rig.path("content");
    tar_of(&file, "content", 3, 500_000);
    let buildah = |arguments: &[&str]| run(kit.tool("buildah").args(arguments));
    let image = kit.reference("buildah/app:v1");

    let container = buildah(&["from", "scratch"]).trim().to_owned();
    buildah(&["copy", &container, &file.to_string_lossy(), "/content"]);
    let id = buildah(&["commit", "-q", &container]).trim().to_owned();
    buildah(&["push", "-q", "--cert-dir", &certs, &id, &image]);
    buildah(&["rm", &container]);
    buildah(&["rmi", "-f", &id]);
    let pulled = buildah(&["pull", "-q", "--cert-dir", &certs, &image]);

    assert_eq!(pulled.trim(), id.trim_start_matches("sha256:"));
}
