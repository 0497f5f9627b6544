//! One tree, two programs: what Debian's `docker-registry` wrote is served, and the other way.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Client, DockerRegistry, INDEX, Image, MANIFEST, Rig, Setup, digest, files_below, image,
    index_of, need, push_image, push_manifest,
};

/// What both sides must agree on.
struct Stock {
    images: [Image; 2],
    index: Vec<u8>,
}

impl Stock {
    fn new() -> Self {
        let images = [image(70, &[5000, 70_000]), image(71, &[300])];
        let index = index_of(&images.iter().collect::<Vec<_>>());
        Self { images, index }
    }

    /// Pushes two repositories, one of them nested, with tags that moved and an index.
    fn push(&self, client: &Client) {
        for image in &self.images {
            push_image(client, "deep/er/app", &image.digest(), image);
        }
        push_image(client, "deep/er/app", "latest", &self.images[1]);
        push_image(client, "deep/er/app", "latest", &self.images[0]);
        push_image(client, "deep/er/app", "v1.0_x", &self.images[1]);
        push_manifest(client, "deep/er/app", "multi", INDEX, &self.index).expect(201);
        push_image(client, "plain", "only", &self.images[1]);
    }

    fn assert_served(&self, client: &Client) {
        let [first, second] = &self.images;
        let manifest = |reference: &str| {
            let path = format!("/v2/deep/er/app/manifests/{reference}");
            let accept = format!("{MANIFEST}, {INDEX}");
            client
                .request("GET", &path)
                .header("Accept", &accept)
                .send()
                .expect(200)
        };
        for (reference, expected) in [
            ("latest", &first.manifest),
            ("v1.0_x", &second.manifest),
            ("multi", &self.index),
            (&first.digest(), &first.manifest),
            (&digest(&self.index), &self.index),
        ] {
            let reply = manifest(reference);
            assert_eq!(&reply.body, expected, "{reference}");
            let digest = digest(expected);
            assert_eq!(reply.header("Docker-Content-Digest"), Some(digest.as_str()));
        }
        for blob in first.layers.iter().chain([&first.config]) {
            let path = format!("/v2/deep/er/app/blobs/{}", digest(blob));
            assert_eq!(&client.get(&path).expect(200).body, blob);
        }
        assert_eq!(
            sorted(client, "/v2/deep/er/app/tags/list", "tags"),
            ["latest", "multi", "v1.0_x"]
        );
        assert_eq!(sorted(client, "/v2/plain/tags/list", "tags"), ["only"]);
        assert_eq!(
            sorted(client, "/v2/_catalog", "repositories"),
            ["deep/er/app", "plain"]
        );
    }
}

fn sorted(client: &Client, path: &str, key: &str) -> Vec<String> {
    let json = client.get(path).expect(200).json();
    let list = json[key].as_array().unwrap_or_else(|| panic!("{json}"));
    let mut list: Vec<String> = list
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    list.sort_unstable();
    list
}

/// A tree that Debian's registry has written.
fn debians_tree() -> (TempDir, Stock) {
    let folder = TempDir::new().unwrap();
    let stock = Stock::new();
    let peer = DockerRegistry::on(folder.path());
    stock.push(&peer.client());
    peer.stop();
    (folder, stock)
}

#[test]
fn a_tree_of_debians_registry_is_served_and_grows_and_goes_back() {
    need!("docker-registry");
    let (folder, stock) = debians_tree();

    let rig = Setup {
        root: Some(folder.path().to_owned()),
        ..Setup::default()
    }
    .start();
    stock.assert_served(&rig.client());
    let added = image(72, &[1234]);
    push_image(&rig.client(), "deep/er/app", "added", &added);
    rig.client().delete("/v2/plain/manifests/only").expect(202);
    drop(rig);

    let peer = DockerRegistry::on(folder.path());
    let client = peer.client();
    let reply = client
        .request("GET", "/v2/deep/er/app/manifests/added")
        .header("Accept", MANIFEST)
        .send()
        .expect(200);
    assert_eq!(reply.body, added.manifest);
    let tags = sorted(&client, "/v2/deep/er/app/tags/list", "tags");
    assert_eq!(tags, ["added", "latest", "multi", "v1.0_x"]);
    client
        .request("GET", "/v2/plain/manifests/only")
        .header("Accept", MANIFEST)
        .send()
        .expect(404);
}

#[test]
fn a_tree_of_tidegate_is_served_by_debians_registry_and_grows_and_comes_back() {
    need!("docker-registry");
    let folder = TempDir::new().unwrap();
    let stock = Stock::new();
    let setup = || Setup {
        root: Some(folder.path().to_owned()),
        ..Setup::default()
    };
    let rig = setup().start();
    stock.push(&rig.client());
    stock.assert_served(&rig.client());
    drop(rig);

    let peer = DockerRegistry::on(folder.path());
    stock.assert_served(&peer.client());
    let added = image(73, &[999]);
    push_image(&peer.client(), "new/one", "v1", &added);
    let layer = digest(&stock.images[0].layers[0]);
    peer.client()
        .delete(&format!("/v2/deep/er/app/blobs/{layer}"))
        .expect(202);
    peer.stop();

    let rig = setup().start();
    let reply = rig.client().get("/v2/new/one/manifests/v1").expect(200);
    assert_eq!(reply.body, added.manifest);
    rig.client()
        .get(&format!("/v2/deep/er/app/blobs/{layer}"))
        .expect(404);
}

#[test]
fn debians_registry_can_collect_garbage_in_a_tree_of_tidegate() {
    need!("docker-registry");
    let folder = TempDir::new().unwrap();
    let rig = Setup {
        root: Some(folder.path().to_owned()),
        ..Setup::default()
    }
    .start();
    let stock = Stock::new();
    stock.push(&rig.client());
    let config = rig.path("distribution.yml");
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n",
        folder.path().display()
    );
    fs::write(&config, text).unwrap();
    let mut collect = std::process::Command::new("docker-registry");
    crate::harness::run(collect.arg("garbage-collect").arg(&config));
    stock.assert_served(&rig.client());
}

#[test]
fn torn_and_empty_links_are_absent_and_said_so() {
    need!("docker-registry");
    let (folder, stock) = debians_tree();
    let repository = folder
        .path()
        .join("docker/registry/v2/repositories/deep/er/app");
    let [first, second] = &stock.images;
    let tear = |path: &str, left: &str| {
        let link = repository.join(path);
        assert!(link.is_file(), "{}", link.display());
        fs::write(link, left).unwrap();
    };
    tear("_manifests/tags/latest/current/link", "");
    tear("_manifests/tags/v1.0_x/current/link", "sha256:0123");
    let layer = digest(&first.layers[0]).replace(':', "/");
    tear(&format!("_layers/{layer}/link"), "");
    let revision = first.digest().replace(':', "/");
    tear(&format!("_manifests/revisions/{revision}/link"), "garbage");

    let rig = Setup {
        root: Some(folder.path().to_owned()),
        ..Setup::default()
    }
    .start();
    let client = rig.client();

    for tag in ["latest", "v1.0_x"] {
        client
            .get(&format!("/v2/deep/er/app/manifests/{tag}"))
            .expect_error(404, "MANIFEST_UNKNOWN");
    }
    let path = format!("/v2/deep/er/app/manifests/{}", first.digest());
    client.get(&path).expect_error(404, "MANIFEST_UNKNOWN");
    let path = format!("/v2/deep/er/app/blobs/{}", digest(&first.layers[0]));
    client.get(&path).expect_error(404, "BLOB_UNKNOWN");
    let listed = sorted(&client, "/v2/deep/er/app/tags/list", "tags");
    assert_eq!(listed, ["multi"]);
    assert!(
        rig.registry_log().contains("link"),
        "nothing was reported:\n{}",
        rig.registry_log()
    );

    // A push repairs what was torn.
    push_image(&client, "deep/er/app", "latest", first);
    push_manifest(&client, "deep/er/app", "v1.0_x", MANIFEST, &second.manifest).expect(201);
    stock.assert_served(&client);
}

#[test]
fn links_are_exactly_a_digest_and_nothing_foreign_lies_where_distribution_looks() {
    let rig = Rig::start();
    Stock::new().push(&rig.client());
    let mut links = 0;
    for path in files_below(&rig.tree()) {
        let name = path.file_name().unwrap().to_string_lossy();
        let inside = path.strip_prefix(rig.tree()).unwrap();
        if name == "link" {
            let text = fs::read_to_string(&path).unwrap();
            let (algorithm, hex) = text.split_once(':').unwrap();
            assert_eq!(algorithm, "sha256", "{path:?}");
            assert!(
                hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()),
                "{text:?}"
            );
            links += 1;
        } else if inside.starts_with("blobs") {
            assert_eq!(name, "data", "{path:?}");
            let bytes = fs::read(&path).unwrap();
            let hex = path
                .parent()
                .unwrap()
                .file_name()
                .unwrap()
                .to_string_lossy();
            assert_eq!(digest(&bytes), format!("sha256:{hex}"), "{path:?}");
        } else if inside.starts_with("repositories") {
            panic!("a foreign file: {path:?}");
        }
    }
    // Each repository: layers and configs, revisions, current and index of each tag.
    assert!(links > 15, "only {links} links");
}
