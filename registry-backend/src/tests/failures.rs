//! Disks that are full or broken, and the order in which things become durable.

use std::sync::Arc;

use super::{
    CONFIG, LAYER, MANIFEST, Rig, blob_path, image, push_foreign, referrer, sha256, sha512,
};
use crate::storage::faulty::{Faults, Faulty};

const CONTENT: &[u8] = b"0123456789";

pub(super) fn rig() -> (Rig, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let inner = Arc::clone(&faults);
    let rig = Rig::with_driver(|driver| Box::new(Faulty::new(driver, inner)));
    (rig, faults)
}

/// The record with digests by their role.
fn shown(faults: &Faults, names: &[(&str, &[u8])]) -> String {
    let mut shown = faults
        .take_record()
        .join("\n")
        .replace("docker/registry/v2/", "");
    for (name, content) in names {
        let digest = sha256(content);
        shown = shown.replace(&blob_path(&digest), &format!("blobs/sha256/{name}/data"));
        shown = shown.replace(digest.hex(), name);
    }
    shown
}

#[tokio::test]
async fn data_is_durable_before_the_link_to_it() {
    let (rig, faults) = rig();
    rig.push_blob("a", CONTENT).await;
    insta::assert_snapshot!(shown(&faults, &[("BLOB", CONTENT)]), @"
    publish blobs/sha256/BLOB/data
    write repositories/a/_layers/sha256/BLOB/link
    ");
}

#[tokio::test]
async fn a_manifest_is_durable_before_its_tags() {
    let (rig, faults) = rig();
    rig.push_blob("a", CONFIG).await;
    rig.push_blob("a", LAYER).await;
    faults.take_record();
    let manifest = image("1");
    let content = manifest.to_string();
    rig.put_manifest("a", "v1", &manifest).await;
    insta::assert_snapshot!(shown(&faults, &[("MANIFEST", content.as_bytes())]), @"
    make repositories/a/_layers
    write blobs/sha256/MANIFEST/data
    write repositories/a/_manifests/revisions/sha256/MANIFEST/link
    write repositories/a/_manifests/tags/v1/index/sha256/MANIFEST/link
    write repositories/a/_manifests/tags/v1/current/link
    ");
    let digest = sha256(content.as_bytes());
    rig.send(&format!("DELETE /v2/a/manifests/{digest}"), "")
        .await;
    insta::assert_snapshot!(shown(&faults, &[("MANIFEST", content.as_bytes())]), @"
    delete repositories/a/_manifests/tags/v1
    delete repositories/a/_manifests/revisions/sha256/MANIFEST
    ");
}

#[tokio::test]
async fn of_many_tags_each_is_the_old_one_or_the_new_one_whatever_fails() {
    let (rig, faults) = rig();
    let old = rig.push_image("a", "t0", &image("1")).await;
    let new = image("2").to_string();
    let digest = sha256(new.as_bytes());
    let query: Vec<String> = (0..20).map(|number| format!("tag=t{number}")).collect();
    let put = format!(
        "PUT /v2/a/manifests/{digest}?{}\ncontent-type: {MANIFEST}",
        query.join("&")
    );
    for part in [
        blob_path(&digest),
        format!("revisions/sha256/{}/", digest.hex()),
        format!("tags/t0/index/sha256/{}", digest.hex()),
        format!("tags/t13/index/sha256/{}", digest.hex()),
        "tags/t0/current".to_owned(),
        "tags/t13/current".to_owned(),
    ] {
        faults.break_keys(Some(&part));
        assert_eq!(rig.send(&put, &new).await.status, 500, "{part}");
        let moved = part == "tags/t13/current";
        for number in 0..20 {
            let reply = rig.get(&format!("/v2/a/manifests/t{number}")).await;
            let wanted = match (number, moved) {
                (0..13, true) => Some(&digest),
                (0, false) => Some(&old),
                _ => None,
            };
            assert_eq!(reply.status, if wanted.is_some() { 200 } else { 404 });
            let wanted = wanted.map(ToString::to_string);
            let named = reply.header("docker-content-digest");
            assert_eq!(named, wanted.as_deref(), "{part}: t{number}");
        }
    }
    faults.break_keys(None);
    faults.take_record();
    assert_eq!(rig.send(&put, &new).await.status, 201);
    let record = faults.take_record();
    let last_link = record.iter().rposition(|step| !step.contains("/current/"));
    let first_name = record.iter().position(|step| step.contains("/current/"));
    assert!(last_link < first_name, "{record:?}");
    assert_eq!(record.len(), 1 + 1 + 1 + 20 + 20, "{record:?}");
    let tags = rig.get("/v2/a/tags/list").await.json();
    assert_eq!(tags["tags"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn a_full_disk_is_a_clear_error_and_room_brings_writes_back() {
    let (rig, faults) = rig();
    let kept = rig.push_image("a", "v1", &image("1")).await;
    let location = rig.begin("a").await;
    rig.send(&format!("PATCH {location}"), &CONTENT[..4]).await;
    faults.set_full(true);

    let digest = sha256(CONTENT);
    let put = format!("PUT {location}?digest={digest}");
    insta::assert_snapshot!(rig.send(&put, &CONTENT[4..]).await, @r#"
    507 Insufficient Storage
    content-length: 67
    content-type: application/json

    {"errors":[{"code":"UNKNOWN","message":"no space left on device"}]}
    "#);
    // What was sent so far may be what fills the disk.
    assert_eq!(rig.count("repositories/a/_uploads"), 0);
    assert_eq!(rig.get(&location).await.status, 404);
    let put = format!("PUT /v2/a/manifests/v2\ncontent-type: {MANIFEST}");
    assert_eq!(rig.send(&put, image("2").to_string()).await.status, 507);
    assert_eq!(rig.send("POST /v2/a/blobs/uploads/", "").await.status, 507);
    assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 200);
    assert_eq!(
        rig.get(&format!("/v2/a/referrers/{kept}")).await.status,
        200
    );
    assert_eq!(rig.send("DELETE /v2/a/manifests/v1", "").await.status, 202);

    faults.set_full(false);
    rig.push_blob("a", CONTENT).await;
    rig.put_manifest("a", "v2", &image("2")).await;
    assert_eq!(
        rig.get(&format!("/v2/a/blobs/{digest}")).await.body,
        CONTENT
    );
}

#[tokio::test]
async fn a_broken_disk_is_an_error_that_tells_no_paths_and_shows_nothing_partial() {
    let (rig, faults) = rig();
    rig.push_image("a", "v1", &image("1")).await;
    let digest = sha256(CONTENT);
    for part in ["blobs/", "_layers/"] {
        faults.break_keys(Some(part));
        let location = rig.begin("a").await;
        let reply = rig
            .send(&format!("PUT {location}?digest={digest}"), CONTENT)
            .await;
        insta::allow_duplicates! { insta::assert_snapshot!(reply, @r#"
        500 Internal Server Error
        content-length: 111
        content-type: application/json

        {"errors":[{"code":"UNKNOWN","message":"the registry could not read or write its storage; its log says more"}]}
        "#); }
        assert_eq!(rig.get(&format!("/v2/a/blobs/{digest}")).await.status, 404);
        assert_eq!(rig.count("repositories/a/_uploads"), 0);
    }
    for part in ["revisions/", "tags/v2/index", "tags/v2/current"] {
        faults.break_keys(Some(part));
        let put = format!("PUT /v2/a/manifests/v2\ncontent-type: {MANIFEST}");
        assert_eq!(
            rig.send(&put, image("2").to_string()).await.status,
            500,
            "{part}"
        );
        assert_eq!(rig.get("/v2/a/manifests/v2").await.status, 404, "{part}");
    }
    faults.break_keys(None);
    rig.push_blob("a", CONTENT).await;
    rig.put_manifest("a", "v2", &image("2")).await;
}

#[tokio::test]
async fn a_referrer_that_someone_else_pushes_meanwhile_is_found() {
    let (rig, faults) = rig();
    let digest = rig.push_image("a", "v1", &image("1")).await;
    let path = format!("/v2/a/referrers/{digest}");
    rig.put_manifest("a", "r1", &referrer(&image("1"), None))
        .await;
    let count = |reply: super::Reply| reply.json()["manifests"].as_array().unwrap().len();
    assert_eq!(count(rig.get(&path).await), 1);
    let foreign = referrer(&image("1"), Some("application/x.foreign")).to_string();
    let tree = rig.path("");
    faults.before_list("_referrers", move || push_foreign(&tree, &foreign));
    assert_eq!(count(rig.get(&path).await), 2);
}

#[tokio::test]
async fn what_cannot_be_read_or_removed_is_passed_over() {
    let (rig, faults) = rig();
    for name in ["a", "b", "c"] {
        rig.push_image(name, "v1", &image("1")).await;
    }
    let (stuck, gone) = (rig.begin("b").await, rig.begin("b").await);
    let id = stuck.rsplit('/').next().unwrap();
    faults.break_keys(Some(id));
    faults.break_reads(Some("repositories/a"));
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    assert_eq!(rig.app.registry.expire_uploads(later).unwrap(), 1);
    assert_eq!(rig.get(&stuck).await.status, 204);
    assert_eq!(rig.get(&gone).await.status, 404);
    let listed = rig.get("/v2/_catalog").await;
    assert_eq!(
        (listed.status, &listed.json()["repositories"]),
        (200, &serde_json::json!(["a", "b", "c"]))
    );
}

#[tokio::test]
async fn what_is_received_is_not_read_again_for_another_hash() {
    let (rig, faults) = rig();
    let location = rig.begin("a").await;
    faults.break_reads(Some("_uploads"));
    let put = format!("PUT {location}?digest={}", sha512(CONTENT));
    assert_eq!(rig.send(&put, CONTENT).await.status, 201);
}

#[tokio::test]
async fn referrers_are_found_where_no_index_can_be_written() {
    let (rig, faults) = rig();
    let digest = rig.push_image("a", "v1", &image("1")).await;
    faults.break_keys(Some("_tidegate"));
    rig.put_manifest("a", "referrer", &referrer(&image("1"), None))
        .await;
    let listed = rig.get(&format!("/v2/a/referrers/{digest}")).await.json();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 1);
}
