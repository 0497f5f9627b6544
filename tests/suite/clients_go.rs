//! crane, regctl and oras: the clients of pipelines and of artifacts.

use std::fs;

use serde_json::Value;

use crate::harness::{
    INDEX, MANIFEST, PASSWORD, Rig, USER, digest, image, index_of, layout_with_layers, need, noise,
    push_image, push_manifest, run, tar_of, try_run,
};

#[test]
fn crane_pushes_pulls_copies_lists_and_deletes() {
    need!("crane");
    let rig = Rig::start();
    let crane = |arguments: &[&str]| run(rig.go_client("crane").args(arguments));
    let name = rig.name();
    let wrong = ["auth", "login", &name, "-u", USER, "-p", "wrong"];
    drop(try_run(rig.go_client("crane").args(wrong)));
    assert!(!try_run(rig.go_client("crane").args(["catalog", &name])).success);
    crane(&["auth", "login", &name, "-u", USER, "-p", PASSWORD]);

    tar_of(&rig.path("layer.tar"), "file", 5, 2_000_000);
    let layer = rig.path("layer.tar");
    let app = format!("{name}/crane/app");
    crane(&[
        "append",
        "-f",
        &layer.to_string_lossy(),
        "-t",
        &format!("{app}:v1"),
    ]);
    let pushed = crane(&["digest", &format!("{app}:v1")]);
    crane(&["validate", "--remote", &format!("{app}:v1")]);
    crane(&[
        "copy",
        &format!("{app}:v1"),
        &format!("{name}/crane/copy:v1"),
    ]);
    assert_eq!(crane(&["digest", &format!("{name}/crane/copy:v1")]), pushed);
    crane(&["tag", &format!("{app}:v1"), "v2"]);
    assert_eq!(crane(&["ls", &app]), "v1\nv2\n");
    assert_eq!(crane(&["catalog", &name]), "crane/app\ncrane/copy\n");

    let saved = rig.path("saved.tar").to_string_lossy().into_owned();
    crane(&["pull", &format!("{app}:v1"), &saved]);
    crane(&["push", &saved, &format!("{name}/crane/again:v1")]);
    crane(&["validate", "--remote", &format!("{name}/crane/again:v1")]);
    crane(&[
        "index",
        "append",
        "-m",
        &format!("{app}:v1"),
        "-t",
        &format!("{app}:multi"),
    ]);
    crane(&["validate", "--remote", &format!("{app}:multi")]);

    crane(&["delete", &format!("{app}@{}", pushed.trim())]);
    assert!(
        !try_run(
            rig.go_client("crane")
                .args(["digest", &format!("{app}:v1")])
        )
        .success
    );
}

/// regctl, logged in.
fn regctl(rig: &Rig) -> impl Fn(&[&str]) -> String {
    let regctl = |arguments: &[&str]| run(rig.go_client("regctl").args(arguments));
    let login = ["registry", "login", "--skip-check", &rig.name()];
    regctl(&[&login[..], &["-u", USER, "-p", PASSWORD]].concat());
    regctl
}

#[test]
fn regctl_copies_images_and_puts_artifacts() {
    need!("regctl");
    let rig = Rig::start();
    let regctl = regctl(&rig);
    let name = rig.name();
    let layout = rig.path("layout");
    let source = layout_with_layers(&layout, 6, &[1000, 5_000_000]);
    let app = format!("{name}/regctl/app");

    let image_in = format!("ocidir://{}:latest", layout.display());
    regctl(&["image", "copy", &image_in, &format!("{app}:v1")]);
    assert_eq!(
        regctl(&["image", "digest", &format!("{app}:v1")]).trim(),
        source
    );
    // Mounts, from one repository to the other.
    regctl(&[
        "image",
        "copy",
        &format!("{app}:v1"),
        &format!("{name}/regctl/copy:v1"),
    ]);
    assert_eq!(regctl(&["tag", "ls", &app]).trim(), "v1");
    assert!(regctl(&["repo", "ls", &name]).contains("regctl/copy"));

    let bill = rig.path("bill.json");
    fs::write(&bill, "{}").unwrap();
    regctl(&[
        "artifact",
        "put",
        "--artifact-type",
        "application/vnd.example.sbom",
        "--subject",
        &format!("{app}:v1"),
        "-f",
        &bill.to_string_lossy(),
    ]);
    let listed = regctl(&[
        "artifact",
        "list",
        &format!("{app}:v1"),
        "--format",
        "{{json .}}",
    ]);
    assert!(listed.contains("application/vnd.example.sbom"), "{listed}");
    let back = regctl(&["artifact", "get", "--subject", &format!("{app}:v1")]);
    assert_eq!(back.trim(), "{}");

    regctl(&["tag", "rm", &format!("{app}:v1")]);
    assert_eq!(regctl(&["tag", "ls", &app]).trim(), "");
    regctl(&[
        "manifest",
        "get",
        "--format",
        "raw-body",
        &format!("{app}@{source}"),
    ]);
}

#[test]
fn regctl_copies_every_architecture_of_an_index() {
    need!("regctl");
    let rig = Rig::start();
    let regctl = regctl(&rig);
    let name = rig.name();
    let images = [image(120, &[100]), image(121, &[200])];
    for image in &images {
        push_image(&rig.client(), "regctl/multi", &image.digest(), image);
    }
    let index = index_of(&images.iter().collect::<Vec<_>>());
    push_manifest(&rig.client(), "regctl/multi", "v1", INDEX, &index).expect(201);
    regctl(&[
        "image",
        "copy",
        &format!("{name}/regctl/multi:v1"),
        &format!("{name}/regctl/multi2:v1"),
    ]);
    let copied = regctl(&["image", "digest", &format!("{name}/regctl/multi2:v1")]);
    assert_eq!(copied.trim(), digest(&index));
}

#[test]
fn regctl_uploads_a_blob_in_chunks() {
    need!("regctl");
    let rig = Rig::start();
    let regctl = regctl(&rig);
    let name = rig.name();
    regctl(&[
        "registry",
        "set",
        &name,
        "--skip-check",
        "--blob-chunk",
        "1000000",
        "--blob-max",
        "1000000",
    ]);
    let layout = rig.path("layout");
    let source = layout_with_layers(&layout, 7, &[5_500_000]);

    let reference = format!("{name}/regctl/chunks:v1");
    regctl(&[
        "image",
        "copy",
        &format!("ocidir://{}:latest", layout.display()),
        &reference,
    ]);

    assert_eq!(regctl(&["image", "digest", &reference]).trim(), source);
    let chunks = rig.edge_log().matches("PATCH").count();
    assert!(chunks >= 5, "only {chunks} chunks:\n{}", rig.edge_log());
}

#[test]
fn oras_pushes_attaches_discovers_and_pulls_artifacts() {
    need!("oras");
    let rig = Rig::start();
    let oras = |arguments: &[&str]| run(rig.go_client("oras").args(arguments));
    // oras speaks plain HTTP to anything called localhost.
    let name = format!("127.0.0.1:{}", rig.https.port());
    let wrong = ["login", &name, "-u", USER, "-p", "wrong"];
    assert!(!try_run(rig.go_client("oras").args(wrong)).success);
    oras(&["login", &name, "-u", USER, "-p", PASSWORD]);
    let home = rig.path("home");
    fs::write(home.join("model.bin"), noise(130, 3_000_000)).unwrap();
    fs::write(home.join("bill.json"), "{\"bill\":true}").unwrap();
    let app = format!("{name}/oras/app");

    oras(&[
        "push",
        &format!("{app}:v1"),
        "--artifact-type",
        "application/vnd.example.model",
        "model.bin",
    ]);
    oras(&[
        "attach",
        &format!("{app}:v1"),
        "--artifact-type",
        "application/vnd.example.sbom",
        "bill.json",
    ]);
    let found = oras(&["discover", &format!("{app}:v1"), "--format", "json"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    let kind = &found["manifests"][0]["artifactType"];
    assert_eq!(kind, "application/vnd.example.sbom", "{found}");

    fs::create_dir(home.join("out")).unwrap();
    oras(&["pull", &format!("{app}:v1"), "-o", "out"]);
    assert_eq!(
        fs::read(home.join("out/model.bin")).unwrap(),
        noise(130, 3_000_000)
    );
    oras(&[
        "cp",
        "-r",
        &format!("{app}:v1"),
        &format!("{name}/oras/copy:v1"),
    ]);
    let copied = oras(&[
        "discover",
        &format!("{name}/oras/copy:v1"),
        "--format",
        "json",
    ]);
    assert!(copied.contains("application/vnd.example.sbom"), "{copied}");
    assert_eq!(oras(&["repo", "tags", &app]).trim(), "v1");
    oras(&["manifest", "delete", "-f", &format!("{app}:v1")]);
    assert!(
        !try_run(
            rig.go_client("oras")
                .args(["manifest", "fetch", &format!("{app}:v1")])
        )
        .success
    );

    oras(&["logout", &name]);
    assert!(!try_run(rig.go_client("oras").args(["repo", "tags", &app])).success);
}

#[test]
fn what_one_client_pushed_another_pulls() {
    need!("crane", "regctl", "oras", "skopeo");
    let rig = Rig::start();
    // oras speaks plain HTTP to anything called localhost.
    let name = format!("127.0.0.1:{}", rig.https.port());
    let image = image(140, &[1000, 500_000]);
    push_image(&rig.client(), "any/app", "v1", &image);
    let reference = format!("{name}/any/app:v1");

    run(rig
        .go_client("crane")
        .args(["auth", "login", &name, "-u", USER, "-p", PASSWORD]));
    let by_crane = run(rig.go_client("crane").args(["digest", &reference]));
    let by_oras = run(rig.go_client("oras").args(["resolve", &reference]));
    let mut skopeo = rig.go_client("skopeo");
    skopeo.args([
        "inspect",
        "--creds",
        &format!("{USER}:{PASSWORD}"),
        "--format",
        "{{.Digest}}",
    ]);
    let by_skopeo = run(skopeo.arg(format!("docker://{reference}")));
    run(rig.go_client("regctl").args([
        "registry",
        "login",
        "--skip-check",
        &name,
        "-u",
        USER,
        "-p",
        PASSWORD,
    ]));
    let by_regctl = run(rig
        .go_client("regctl")
        .args(["image", "digest", &reference]));

    for (client, found) in [
        ("crane", by_crane),
        ("oras", by_oras),
        ("skopeo", by_skopeo),
        ("regctl", by_regctl),
    ] {
        assert_eq!(found.trim(), image.digest(), "{client} ({MANIFEST})");
    }
}
