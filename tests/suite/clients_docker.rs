//! The real Docker engine and its client: login, push, pull, logout.

use std::fs;
use std::path::Path;

use crate::acme::{issued, presented, setup, site, tidegate_with};
use crate::harness::{
    Dockerd, PASSWORD, Pebble, Rig, Setup, USER, eventually, heavy, need, run, skip, tar_of,
    tidegate,
};

const MIB: u64 = 1 << 20;

/// Docker as users have it. Only root can run an engine.
macro_rules! need_docker {
    () => {
        need!("dockerd", "docker", "unshare");
        if !rustix::process::getuid().is_root() {
            skip("only root can run a Docker engine");
            return;
        }
    };
}

/// Builds an image of one layer for each of `sizes`, the large ones to come last: the engine's
/// vfs storage copies all that is below a layer.
fn build(engine: &Dockerd, tag: &str, seed: u64, sizes: &[u64]) -> String {
    let context = engine.scratch().join(format!("context-{seed}"));
    fs::create_dir_all(&context).unwrap();
    let mut recipe = String::from("FROM scratch\n");
    for (number, &size) in (1_u64..).zip(sizes) {
        tar_of(
            &context.join(format!("layer{number}.tar")),
            &format!("f{number}"),
            seed + number,
            size,
        );
        recipe += &format!("ADD layer{number}.tar /\n");
    }
    recipe += "CMD [\"/none\"]\n";
    fs::write(context.join("Dockerfile"), recipe).unwrap();
    engine.run(&["build", "-q", "-t", tag, &context.to_string_lossy()]);
    fs::remove_dir_all(&context).unwrap();
    id_of(engine, tag)
}

fn id_of(engine: &Dockerd, tag: &str) -> String {
    engine.run(&[
        "image",
        "inspect",
        "--format",
        "{{.Id}} {{len .RootFS.Layers}}",
        tag,
    ])
}

fn login(engine: &Dockerd, registry: &str, password: &str) -> crate::harness::Output {
    engine.try_run(&["login", "-u", USER, "-p", password, registry])
}

/// Has the engine trust `root`, without which it does not even log in.
fn trust_at_last(engine: &Dockerd, registry: &str, root: &Path) {
    let unknown = login(engine, registry, PASSWORD);
    assert!(
        !unknown.success && unknown.stderr.contains("x509"),
        "{unknown}"
    );
    engine.trust(registry, root);
}

/// A rig with a certificate made by `tidegate gencert`.
fn with_own_certificate() -> Rig {
    let mut rig = Setup::default().prepare();
    let mut gencert = tidegate();
    gencert
        .args([
            "gencert",
            "--force",
            "--name",
            "registry.test,localhost",
            "--ip",
            "127.0.0.1",
        ])
        .arg("--cert")
        .arg(&rig.certificate.cert)
        .arg("--key")
        .arg(&rig.certificate.key);
    run(&mut gencert);
    rig.start_registry();
    rig.start_edge();
    rig.wait_until_ready();
    rig
}

#[test]
fn docker_logs_in_pushes_pulls_and_logs_out() {
    need_docker!();
    let _one = heavy();
    let rig = with_own_certificate();
    let engine = Dockerd::start();
    let registry = format!("registry.test:{}", rig.https.port());
    let image = format!("{registry}/team/app:v1");

    // The certificate is checked, then the password.
    trust_at_last(&engine, &registry, &rig.certificate.cert);
    let wrong = login(&engine, &registry, "wrong");
    assert!(!wrong.success && wrong.stderr.contains("401"), "{wrong}");
    let right = login(&engine, &registry, PASSWORD);
    assert!(
        right.success && right.stdout.contains("Login Succeeded"),
        "{right}"
    );

    let built = build(&engine, &image, 1, &[1000, 70_000, MIB]);
    engine.run(&["push", &image]);
    engine.run(&["rmi", "-f", &image]);
    engine.run(&["pull", &image]);
    assert_eq!(id_of(&engine, &image), built);

    // A second push finds everything there; another repository mounts it.
    let again = engine.run(&["push", &image]);
    assert!(again.contains("Layer already exists"), "{again}");
    let elsewhere = format!("{registry}/other/app:v1");
    engine.run(&["tag", &image, &elsewhere]);
    let mounted = engine.run(&["push", &elsewhere]);
    assert!(mounted.contains("Mounted from team/app"), "{mounted}");

    engine.run(&["logout", &registry]);
    engine.run(&["rmi", "-f", &image, &elsewhere]);
    let refused = engine.try_run(&["pull", &image]);
    assert!(
        !refused.success && refused.stderr.contains("no basic auth"),
        "{refused}"
    );
}

#[test]
fn docker_moves_an_image_of_twelve_layers_with_one_of_a_gibibyte() {
    need_docker!();
    let _one = heavy();
    let rig = Rig::start();
    let engine = Dockerd::start();
    let registry = format!("registry.test:{}", rig.https.port());
    engine.trust(&registry, &rig.certificate.cert);
    assert!(login(&engine, &registry, PASSWORD).success);
    let image = format!("{registry}/large/app:v1");
    let mut sizes = [2000; 12];
    sizes[11] = 1024 * MIB;
    let built = build(&engine, &image, 100, &sizes);
    assert!(built.trim().ends_with(" 12"), "{built}");

    engine.run(&["push", &image]);
    engine.run(&["rmi", "-f", &image]);
    assert_eq!(blobs_above(&rig.tree(), 1000 * MIB), 1);
    engine.run(&["pull", &image]);

    // The engine checks each layer against the config's digests, so the same id is the same bytes.
    assert_eq!(id_of(&engine, &image), built);
}

#[test]
fn docker_trusts_an_acme_ca_through_certs_d_and_pushes_before_and_after_a_renewal() {
    need_docker!();
    need!("pebble", "pebble-challtestsrv");
    let _one = heavy();
    let mut rig = Setup::default().prepare();
    let ca = Pebble::start(&rig);
    let sites = site("\"registry.test\"");
    rig.write_config(&setup(&ca.keys(), &sites));
    // The usual site leaves its name to the one that the CA certifies.
    let text = fs::read_to_string(rig.config()).unwrap();
    let text = text.replace(
        ", \"registry.test\"]\ncertificate = {",
        "]\ncertificate = {",
    );
    fs::write(rig.config(), text).unwrap();
    rig.start_registry();
    rig.start_edge();
    issued(&rig, "registry.test");
    let engine = Dockerd::start();
    let registry = format!("registry.test:{}", rig.https.port());
    let image = format!("{registry}/team/app:v1");

    trust_at_last(&engine, &registry, &ca.root());
    assert!(login(&engine, &registry, PASSWORD).success);
    build(&engine, &image, 200, &[1000, MIB]);
    engine.run(&["push", &image]);

    let before = presented(&rig, "registry.test");
    let renewed = tidegate_with(&rig, &["renew"]);
    assert!(renewed.success, "{renewed}");
    eventually("the new certificate", || {
        (presented(&rig, "registry.test") != before).then_some(())
    });
    let image = format!("{registry}/team/app:v2");
    let built = build(&engine, &image, 210, &[2000, MIB]);
    engine.run(&["push", &image]);
    engine.run(&["rmi", "-f", &image]);
    engine.run(&["pull", &image]);
    assert_eq!(id_of(&engine, &image), built);
}

/// How many blobs of the tree are larger than this.
fn blobs_above(tree: &Path, size: u64) -> usize {
    let mut count = 0;
    for prefix in fs::read_dir(tree.join("blobs/sha256")).unwrap().flatten() {
        for blob in fs::read_dir(prefix.path()).unwrap().flatten() {
            count += usize::from(blob.path().join("data").metadata().unwrap().len() > size);
        }
    }
    count
}
