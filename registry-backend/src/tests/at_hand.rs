//! What is in memory already is answered without a wait, and is what the disk holds.

use std::sync::Arc;

use super::{LAYER, Rig, blob_path, image, sha256};
use crate::storage::faulty::{Faults, Faulty};
use crate::storage::{Driver as _, Durability, Filesystem, Wait, layout};

/// Whether this system can say what it has in memory.
fn can_say() -> bool {
    let root = tempfile::tempdir().unwrap();
    let driver = Filesystem::open(root.path(), true).unwrap();
    let key = layout::staging().child("x");
    driver.write(&key, b"x", Durability::Process).unwrap();
    driver.read(&key, 1, Wait::Never).is_ok()
}

#[tokio::test]
async fn what_is_in_memory_is_answered_without_a_wait() {
    let faults = Arc::new(Faults::default());
    let inner = Arc::clone(&faults);
    let rig = Rig::with_driver(|driver| Box::new(Faulty::new(driver, inner)));
    let digest = rig.push_image("a", "v1", &image("1")).await;
    let layer = sha256(LAYER);
    let can_say = can_say();
    for path in [
        "manifests/v1".to_owned(),
        format!("manifests/{digest}"),
        format!("blobs/{layer}"),
    ] {
        for method in ["GET", "HEAD"] {
            faults.take_waits();
            let reply = rig.send(&format!("{method} /v2/a/{path}"), "").await;
            assert_eq!(reply.status, 200);
            assert_eq!(faults.take_waits() == 0, can_say, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_large_manifest_is_hashed_where_nobody_waits_for_it() {
    let faults = Arc::new(Faults::default());
    let inner = Arc::clone(&faults);
    let rig = Rig::with_driver(|driver| Box::new(Faulty::new(driver, inner)));
    rig.push_image("a", "v1", &image(&"x".repeat(1 << 20)))
        .await;
    faults.take_waits();
    assert!(rig.get("/v2/a/manifests/v1").await.body.len() > 1 << 20);
    assert!(faults.take_waits() > 0);
}

#[tokio::test]
async fn what_someone_else_writes_is_answered_at_once() {
    let rig = Rig::new();
    let first = rig.push_image("a", "v1", &image("1")).await;
    let second = rig.put_manifest("a", "v2", &image("2")).await;
    let link = rig.path("repositories/a/_manifests/tags/v1/current/link");
    for digest in [&second, &first, &second] {
        std::fs::write(&link, digest.to_string()).unwrap();
        let reply = rig.get("/v2/a/manifests/v1").await;
        let found = reply.header("docker-content-digest").map(str::to_owned);
        assert_eq!(found, Some(digest.to_string()));
    }
    std::fs::write(&link, "").unwrap();
    assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 404);
    std::fs::remove_file(&link).unwrap();
    assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 404);

    let blob = rig.path(&blob_path(&second));
    let content = std::fs::read(&blob).unwrap();
    std::fs::write(&blob, "torn").unwrap();
    let path = format!("/v2/a/manifests/{second}");
    assert_eq!(rig.get(&path).await.status, 404);
    std::fs::write(&blob, &content).unwrap();
    assert_eq!(rig.get(&path).await.body, content);
}

#[tokio::test]
async fn a_folder_in_the_place_of_a_link_is_no_link() {
    let rig = Rig::new();
    rig.push_image("a", "v1", &image("1")).await;
    let link = rig.path("repositories/a/_manifests/tags/v1/current/link");
    std::fs::remove_file(&link).unwrap();
    std::fs::create_dir(&link).unwrap();
    assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 404);
    std::fs::remove_dir(&link).unwrap();
    rig.put_manifest("a", "v1", &image("2")).await;
    assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 200);
}
