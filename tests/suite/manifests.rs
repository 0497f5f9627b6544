//! Manifests: pushed, pulled, tagged, deleted; indexes, artifacts and what must be refused.

use serde_json::{Value, json};

use crate::harness::{
    INDEX, Image, MANIFEST, Rig, Setup, digest, digest512, image, image_with, index_of, push_blob,
    push_image, push_manifest,
};

const REPOSITORY: &str = "team/app";

fn path(reference: &str) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}")
}

#[test]
fn an_image_comes_back_as_it_was_pushed_by_tag_and_by_digest() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(30, &[1000, 100_000]);

    let digest = push_image(&client, REPOSITORY, "v1", &image);

    for reference in ["v1", &digest] {
        let get = client.get(&path(reference)).expect(200);
        let head = client.head(&path(reference)).expect(200);
        assert_eq!(get.body, image.manifest);
        for reply in [&get, &head] {
            assert_eq!(reply.header("Content-Type"), Some(MANIFEST));
            assert_eq!(reply.header("Docker-Content-Digest"), Some(digest.as_str()));
            assert_eq!(reply.header("ETag"), Some(format!("\"{digest}\"").as_str()));
            let length = image.manifest.len().to_string();
            assert_eq!(reply.header("Content-Length"), Some(length.as_str()));
        }
    }
    let unchanged = client
        .request("GET", &path("v1"))
        .header("If-None-Match", &format!("\"{digest}\""))
        .send();
    unchanged.expect(304);
}

#[test]
fn a_pushed_manifest_says_where_it_is() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(31, &[10]);
    push_image(&client, REPOSITORY, "v1", &image);

    let reply = push_manifest(&client, REPOSITORY, "v2", MANIFEST, &image.manifest).expect(201);

    assert_eq!(
        reply.header("Docker-Content-Digest"),
        Some(image.digest().as_str())
    );
    assert_eq!(
        client.get(&reply.location()).expect(200).body,
        image.manifest
    );
}

#[test]
fn a_multi_architecture_index_serves_itself_and_its_images() {
    let rig = Rig::start();
    let client = rig.client();
    let images = [image(32, &[100]), image(33, &[200])];
    for image in &images {
        push_image(&client, REPOSITORY, &image.digest(), image);
    }
    let index = index_of(&images.iter().collect::<Vec<&Image>>());

    push_manifest(&client, REPOSITORY, "multi", INDEX, &index).expect(201);

    let reply = client.get(&path("multi")).expect(200);
    assert_eq!(reply.header("Content-Type"), Some(INDEX));
    assert_eq!(reply.body, index);
    for image in &images {
        client.get(&path(&image.digest())).expect(200);
    }
}

#[test]
fn a_tag_moves_and_the_old_digest_stays() {
    let rig = Rig::start();
    let client = rig.client();
    let (old, new) = (image(34, &[10]), image(35, &[20]));
    push_image(&client, REPOSITORY, "latest", &old);
    push_image(&client, REPOSITORY, "latest", &new);

    assert_eq!(client.get(&path("latest")).expect(200).body, new.manifest);
    assert_eq!(
        client.get(&path(&old.digest())).expect(200).body,
        old.manifest
    );
}

#[test]
fn many_tags_are_set_by_one_put_of_a_digest() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(36, &[10]);
    let digest = push_image(&client, REPOSITORY, "seed", &image);
    let query: Vec<String> = (0..10).map(|number| format!("tag=t{number}")).collect();

    let reference = format!("{digest}?{}", query.join("&"));
    let reply = push_manifest(&client, REPOSITORY, &reference, MANIFEST, &image.manifest);

    let reply = reply.expect(201);
    let mut tags: Vec<&str> = reply
        .all("OCI-Tag")
        .iter()
        .flat_map(|v| v.split(", "))
        .collect();
    tags.sort_unstable();
    assert_eq!(tags.len(), 10, "{reply:?}");
    for number in 0..10 {
        assert_eq!(
            client.get(&path(&format!("t{number}"))).expect(200).body,
            image.manifest
        );
    }
}

#[test]
fn a_manifest_is_pushed_by_its_sha512() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(37, &[10]);
    push_image(&client, REPOSITORY, "v1", &image);
    let long = digest512(&image.manifest);

    let reply = push_manifest(&client, REPOSITORY, &long, MANIFEST, &image.manifest).expect(201);

    assert_eq!(reply.header("Docker-Content-Digest"), Some(long.as_str()));
    let get = client.get(&path(&long)).expect(200);
    assert_eq!(get.header("Docker-Content-Digest"), Some(long.as_str()));
    assert_eq!(get.body, image.manifest);
}

#[test]
fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(38, &[10]);
    push_image(&client, REPOSITORY, "v1", &image);
    let other = digest(b"other");

    push_manifest(&client, REPOSITORY, &other, MANIFEST, &image.manifest)
        .expect_error(400, "DIGEST_INVALID");
    client
        .get(&path(&other))
        .expect_error(404, "MANIFEST_UNKNOWN");
    let bad = "sha256:baddigeststring";
    assert_eq!(
        push_manifest(&client, REPOSITORY, bad, MANIFEST, &image.manifest).status,
        400
    );
    assert!(matches!(client.get(&path(bad)).status, 400 | 404));
}

#[test]
fn a_manifest_that_names_what_is_not_there_is_refused() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(39, &[10, 20]);
    push_blob(&client, REPOSITORY, &image.config);
    push_blob(&client, REPOSITORY, &image.layers[0]);

    let reply = push_manifest(&client, REPOSITORY, "v1", MANIFEST, &image.manifest);

    assert!(matches!(reply.status, 400 | 404), "{reply:?}");
    assert_eq!(reply.error_code(), "MANIFEST_BLOB_UNKNOWN");
    client
        .get(&path("v1"))
        .expect_error(404, "MANIFEST_UNKNOWN");
}

#[test]
fn malformed_manifests_are_refused_and_leave_nothing() {
    let rig = Rig::start();
    let client = rig.client();
    let bodies: [&[u8]; 7] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\"text\"",
        b"{\"schemaVersion\":1}",
        b"\xff\xfe{}",
    ];
    for body in bodies {
        let reply = push_manifest(&client, REPOSITORY, "bad", MANIFEST, body);
        assert_eq!(reply.status, 400, "{body:?}: {reply:?}");
        assert_eq!(reply.error_code(), "MANIFEST_INVALID", "{body:?}");
    }
    let lie = image(40, &[]);
    push_blob(&client, REPOSITORY, &lie.config);
    let reply = push_manifest(&client, REPOSITORY, "bad", INDEX, &lie.manifest);
    assert_eq!(
        reply.status, 400,
        "the body says another media type: {reply:?}"
    );
    client
        .get(&path("bad"))
        .expect_error(404, "MANIFEST_UNKNOWN");
}

#[test]
fn malformed_tags_are_refused() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(41, &[10]);
    push_image(&client, REPOSITORY, "v1", &image);
    for bad in [
        "-starts-wrong",
        ".hidden",
        "has%20space",
        &"x".repeat(129),
        "a:b",
    ] {
        let reply = push_manifest(&client, REPOSITORY, bad, MANIFEST, &image.manifest);
        assert!(matches!(reply.status, 400 | 404), "{bad}: {reply:?}");
        assert!(
            [
                "TAG_INVALID",
                "DIGEST_INVALID",
                "MANIFEST_INVALID",
                "NAME_INVALID"
            ]
            .contains(&reply.error_code().as_str())
        );
    }
    push_manifest(
        &client,
        REPOSITORY,
        &"x".repeat(128),
        MANIFEST,
        &image.manifest,
    )
    .expect(201);
}

#[test]
fn a_manifest_of_almost_four_megabytes_passes_and_a_huge_one_is_413() {
    let rig = Rig::start();
    let client = rig.client();
    let annotations: serde_json::Map<String, Value> = (0..390)
        .map(|number| {
            (
                format!("com.example.{number}"),
                Value::from("x".repeat(10_000)),
            )
        })
        .collect();
    let large = image_with(42, &[10], &json!({ "annotations": annotations }));
    assert!(large.manifest.len() > 3_900_000);
    push_image(&client, REPOSITORY, "large", &large);
    assert_eq!(client.get(&path("large")).expect(200).body, large.manifest);

    let rig = Setup {
        registry: "max_manifest_size = \"4MiB\"".to_owned(),
        ..Setup::default()
    };
    let rig = rig.start();
    let huge = vec![b' '; 5 << 20];
    let reply = push_manifest(&rig.client(), REPOSITORY, "huge", MANIFEST, &huge);
    assert!(matches!(reply.status, 400 | 413), "{reply:?}");
    reply.error_code();
}

#[test]
fn unknown_fields_and_absent_foreign_layers_are_kept_as_they_are() {
    let rig = Rig::start();
    let client = rig.client();
    let foreign = json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": digest(b"held elsewhere"), "size": 14, "urls": ["https://example.com/layer"],
    });
    let more = json!({ "layers": [foreign], "x-custom": { "kept": [1, 2, 3] } });
    let image = image_with(43, &[], &more);
    push_image(&client, REPOSITORY, "odd", &image);
    assert_eq!(client.get(&path("odd")).expect(200).body, image.manifest);
}

#[test]
fn a_deleted_tag_leaves_its_manifest_and_a_deleted_manifest_takes_its_tags() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(44, &[10]);
    let digest = push_image(&client, REPOSITORY, "one", &image);
    push_manifest(&client, REPOSITORY, "two", MANIFEST, &image.manifest).expect(201);

    client.delete(&path("one")).expect(202);
    client
        .get(&path("one"))
        .expect_error(404, "MANIFEST_UNKNOWN");
    client.get(&path("two")).expect(200);
    client.get(&path(&digest)).expect(200);

    client.delete(&path(&digest)).expect(202);
    client
        .get(&path(&digest))
        .expect_error(404, "MANIFEST_UNKNOWN");
    client
        .get(&path("two"))
        .expect_error(404, "MANIFEST_UNKNOWN");
    client
        .delete(&path(&digest))
        .expect_error(404, "MANIFEST_UNKNOWN");
    client.delete(&path("never")).expect(404);
}

#[test]
fn nothing_is_deleted_where_deleting_is_switched_off() {
    let rig = Setup {
        registry: "delete = false".to_owned(),
        ..Setup::default()
    }
    .start();
    let client = rig.client();
    let image = image(45, &[10]);
    let digest = push_image(&client, REPOSITORY, "v1", &image);

    client.delete(&path("v1")).expect_error(405, "UNSUPPORTED");
    client
        .delete(&path(&digest))
        .expect_error(405, "UNSUPPORTED");
    let layer = crate::harness::digest(&image.layers[0]);
    client
        .delete(&format!("/v2/{REPOSITORY}/blobs/{layer}"))
        .expect_error(405, "UNSUPPORTED");
    client.get(&path("v1")).expect(200);
    // Giving up an upload is no deletion.
    let upload = client
        .post(&format!("/v2/{REPOSITORY}/blobs/uploads/"))
        .expect(202)
        .location();
    client.delete(&upload).expect(204);
}

#[test]
fn indexes_may_nest_be_empty_and_hold_any_media_type() {
    let rig = Rig::start();
    let client = rig.client();
    let leaf = image(46, &[10]);
    push_image(&client, REPOSITORY, &leaf.digest(), &leaf);
    let inner = index_of(&[&leaf]);
    push_manifest(&client, REPOSITORY, "inner", INDEX, &inner).expect(201);
    let nested = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{ "mediaType": INDEX, "digest": digest(&inner), "size": inner.len() }],
    });
    let empty = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    for (tag, index) in [("nested", nested), ("empty", empty)] {
        let index = index.to_string().into_bytes();
        push_manifest(&client, REPOSITORY, tag, INDEX, &index).expect(201);
        assert_eq!(client.get(&path(tag)).expect(200).body, index);
    }
}

#[test]
fn artifacts_need_no_layers_and_may_carry_their_data() {
    let rig = Rig::start();
    let client = rig.client();
    push_blob(&client, REPOSITORY, b"{}");
    let empty = json!({
        "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2,
        "data": "e30=",
    });
    for layers in [json!([]), json!([empty])] {
        let artifact = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example",
            "config": empty, "layers": layers,
        });
        let artifact = artifact.to_string().into_bytes();
        push_manifest(&client, REPOSITORY, "artifact", MANIFEST, &artifact).expect(201);
        assert_eq!(client.get(&path("artifact")).expect(200).body, artifact);
    }
}

#[test]
fn what_is_deleted_is_gone_from_every_list_at_once() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(47, &[10]);
    let digest = push_image(&client, REPOSITORY, "one", &image);
    push_manifest(&client, REPOSITORY, "two", MANIFEST, &image.manifest).expect(201);
    let tags = || {
        let reply = client.get(&format!("/v2/{REPOSITORY}/tags/list"));
        if reply.status == 404 {
            0
        } else {
            reply.json()["tags"].as_array().map_or(0, Vec::len)
        }
    };
    assert_eq!(tags(), 2);
    client.delete(&path("one")).expect(202);
    assert_eq!(tags(), 1);
    client.delete(&path(&digest)).expect(202);
    assert_eq!(tags(), 0);
}
