//! What clients ask for and do not take: it costs the registry next to nothing, and nobody waits.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use openssl::base64;
use serde_json::{Value, json};

use crate::harness::{
    Client, Exchange, INDEX, PASSWORD, Rig, USER, digest, heavy, image, memory_peak_bytes, noise,
    push_image, push_manifest,
};

const MIB: u64 = 1 << 20;

/// Sends a request for each of `paths` and takes nothing of the replies but their heads.
fn take_heads(client: &Client, paths: impl Iterator<Item = String>) -> Vec<Exchange> {
    let open = |path: String| client.request("GET", &path).open().unwrap();
    let mut readers: Vec<Exchange> = paths.map(open).collect();
    for reader in &mut readers {
        reader.reply_head().unwrap().expect(200);
    }
    readers
}

/// A manifest of almost 4 MiB.
fn large_manifest() -> Vec<u8> {
    let note = "x".repeat((4 << 20) - 500);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [],
        "annotations": { "note": note },
    });
    index.to_string().into_bytes()
}

#[test]
fn large_manifests_that_nobody_takes_cost_the_registry_little() {
    let _one = heavy();
    let rig = Rig::start();
    let client = rig.client();
    let manifest = large_manifest();
    let name = digest(&manifest);
    push_manifest(&client, "a", "large", INDEX, &manifest).expect(201);

    let direct = Client::unix(&rig.socket());
    let path = "/v2/a/manifests/large".to_owned();
    let readers = take_heads(&direct, std::iter::repeat_n(path, 400));
    for _ in 0..4 {
        let head = client.head("/v2/a/manifests/large").expect(200);
        let length = manifest.len().to_string();
        assert_eq!(head.header("Content-Length"), Some(length.as_str()));
        for client in [&client, &direct] {
            let pulled = client.get("/v2/a/manifests/large").expect(200);
            assert_eq!(digest(&pulled.body), name);
            assert_eq!(pulled.header("Content-Type"), Some(INDEX));
        }
    }
    let peak = memory_peak_bytes(rig.pids()[1]);
    assert!(peak < 128 * MIB, "registry: {} MiB", peak / MIB);
    // What was not taken is still to be had.
    for mut reader in readers.into_iter().take(4) {
        let mut taken = 0;
        let mut piece = vec![0; 64 << 10];
        while taken < manifest.len() {
            let read = reader.read_some(&mut piece).unwrap();
            assert!(piece[..read] == manifest[taken..taken + read]);
            taken += read;
        }
    }
}

/// Makes tags with long names in the tree itself; returns the names in order.
fn make_tags(tree: &Path, repository: &str, count: usize) -> Vec<String> {
    let tags: Vec<String> = (0..count).map(|number| format!("{number:0100}")).collect();
    let folder = tree.join(format!("repositories/{repository}/_manifests/tags"));
    let link = format!("sha256:{}", "0".repeat(64));
    for tag in &tags {
        let current = folder.join(tag).join("current");
        fs::create_dir_all(&current).unwrap();
        let file = fs::File::create(current.join("link")).unwrap();
        file.write_all_at(link.as_bytes(), 0).unwrap();
    }
    tags
}

#[test]
fn lists_that_nobody_takes_cost_little_memory_and_hold_up_no_push() {
    let _one = heavy();
    let rig = Rig::start();
    let client = rig.client();
    let tags = make_tags(&rig.tree(), "many", 20_000);

    let direct = Client::unix(&rig.socket());
    let path = "/v2/many/tags/list".to_owned();
    let readers = take_heads(&direct, std::iter::repeat_n(path, 200));
    let started = Instant::now();
    push_image(&client, "pushed", "v1", &image(1, &[100]));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "a push took {took:?}");
    let started = Instant::now();
    for client in [&client, &direct] {
        let all = client.get("/v2/many/tags/list").expect(200).json();
        assert!(all == json!({ "name": "many", "tags": tags }));
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(60), "two lists took {took:?}");
    let peak = memory_peak_bytes(rig.pids()[1]);
    assert!(peak < 128 * MIB, "registry: {} MiB", peak / MIB);
    drop(readers);
}

#[test]
fn a_list_in_pieces_reaches_every_kind_of_client_whole() {
    let rig = Rig::start();
    let tags = make_tags(&rig.tree(), "many", 6000);
    let expected = json!({ "name": "many", "tags": tags });
    let path = "/v2/many/tags/list";
    let reply = rig.client().get(path).expect(200);
    assert!(reply.json() == expected);
    // One that knows no chunks gets the bytes up to the end of the connection.
    let mut old = rig.client().connect().unwrap();
    let credentials = base64::encode_block(format!("{USER}:{PASSWORD}").as_bytes());
    let head = format!(
        "GET {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n\r\n"
    );
    old.write(head.as_bytes()).unwrap();
    let head = old.reply_head().unwrap().expect(200);
    assert_eq!(head.header("Transfer-Encoding"), None);
    let mut body = Vec::new();
    let mut piece = noise(1, 64 << 10);
    while let Ok(read @ 1..) = old.read_some(&mut piece) {
        body.extend_from_slice(&piece[..read]);
    }
    let listed: Value = serde_json::from_slice(&body).unwrap();
    assert!(listed == expected);
    let head = rig.client().head(path).expect(200);
    assert!(head.body.is_empty());
}
