//! Manifests and tags: pushed, pulled, moved, deleted, refused.

use serde_json::json;

use super::{
    CONFIG, INDEX, LAYER, MANIFEST, Rig, blob_path, descriptor, image, referrer, sha256, sha512,
};

#[tokio::test]
async fn a_manifest_is_put_and_sent_as_it_was() {
    let rig = Rig::new();
    rig.push_image("a/b", "seed", &image("1")).await;
    let content = format!(" {}\n", image("2"));
    let head = format!("PUT /v2/a/b/manifests/v1\ncontent-type: {MANIFEST}; charset=utf-8");
    insta::assert_snapshot!(rig.send(&head, &content).await, @"
    201 Created
    content-length: 0
    docker-content-digest: sha256:d15fd4107c70e1348dcdaad3203bb41d9dadc97dd534b336191f0151e87bac1f
    location: /v2/a/b/manifests/sha256:d15fd4107c70e1348dcdaad3203bb41d9dadc97dd534b336191f0151e87bac1f
    ");
    let digest = sha256(content.as_bytes());
    let by_tag = rig.get("/v2/a/b/manifests/v1").await;
    insta::assert_snapshot!(by_tag, @r#"
    200 OK
    content-length: 422
    content-type: application/vnd.oci.image.manifest.v1+json
    docker-content-digest: sha256:d15fd4107c70e1348dcdaad3203bb41d9dadc97dd534b336191f0151e87bac1f
    etag: "sha256:d15fd4107c70e1348dcdaad3203bb41d9dadc97dd534b336191f0151e87bac1f"

     {"annotations":{"note":"2"},"config":{"digest":"sha256:acd6f2226f6019b3db1d0a7bbb62ccf13738d2d3bd9c583edbe654a4f39afc3b","mediaType":"application/vnd.oci.image.config.v1+json","size":15},"layers":[{"digest":"sha256:e28d98ac666afd34f089b971a663264d54d67a60ddc82996d48d8f3c204eb75f","mediaType":"application/vnd.oci.image.layer.v1.tar","size":7}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}
    "#);
    assert_eq!(by_tag.body, content.as_bytes());
    let by_digest = rig.get(&format!("/v2/a/b/manifests/{digest}")).await;
    assert_eq!(by_digest.to_string(), by_tag.to_string());
    let head = rig.send("HEAD /v2/a/b/manifests/v1", "").await;
    assert_eq!(
        head.head.replace("date", ""),
        by_tag.head.replace("date", "")
    );
    assert!(head.body.is_empty());
    // Manifests are blobs, too.
    assert_eq!(
        rig.get(&format!("/v2/a/b/blobs/{digest}")).await.body,
        content.as_bytes()
    );
}

#[tokio::test]
async fn a_manifest_that_the_client_has_is_not_sent_again() {
    let rig = Rig::new();
    let digest = rig.push_image("a", "v1", &image("1")).await;
    let head = format!("GET /v2/a/manifests/v1\nif-none-match: \"{digest}\"");
    insta::assert_snapshot!(rig.send(&head, "").await, @r#"
    304 Not Modified
    docker-content-digest: sha256:510a4f5714c3b3ccc6886dd98404940cbdedb2c8cae48ba8cd1ce7f6a5d6d372
    etag: "sha256:510a4f5714c3b3ccc6886dd98404940cbdedb2c8cae48ba8cd1ce7f6a5d6d372"
    "#);
    rig.put_manifest("a", "v1", &image("2")).await;
    assert_eq!(rig.send(&head, "").await.status, 200);
}

#[tokio::test]
async fn many_tags_are_put_at_once() {
    let rig = Rig::new();
    rig.push_image("a", "seed", &image("1")).await;
    let content = image("2").to_string();
    let digest = sha256(content.as_bytes());
    let path = format!("/v2/a/manifests/{digest}?tag=x&tag=y");
    let head = format!("PUT {path}\ncontent-type: {MANIFEST}");
    insta::assert_snapshot!(rig.send(&head, &content).await, @"
    201 Created
    content-length: 0
    docker-content-digest: sha256:2f49f4f52ef151094cccec0f7c4e222d31402d45d91124d1fd180818760d3656
    location: /v2/a/manifests/sha256:2f49f4f52ef151094cccec0f7c4e222d31402d45d91124d1fd180818760d3656
    oci-tag: x
    oci-tag: y
    ");
    let tags = rig.get("/v2/a/tags/list").await.json();
    assert_eq!(tags["tags"], json!(["seed", "x", "y"]));
    let bad = format!("PUT /v2/a/manifests/{digest}?tag=z&tag=-\ncontent-type: {MANIFEST}");
    insta::assert_snapshot!(rig.send(&bad, &content).await, @r#"
    400 Bad Request
    content-length: 132
    content-type: application/json

    {"errors":[{"code":"TAG_INVALID","message":"tag must be up to 128 letters, digits, '_', '.' or '-', not starting with '.' or '-'"}]}
    "#);
    let many: Vec<String> = (0..101).map(|number| format!("tag=t{number}")).collect();
    let many = format!(
        "PUT /v2/a/manifests/{digest}?{}\ncontent-type: {MANIFEST}",
        many.join("&")
    );
    assert_eq!(rig.send(&many, &content).await.status, 414);
    assert_eq!(
        rig.get("/v2/a/tags/list").await.json()["tags"],
        tags["tags"]
    );
}

#[tokio::test]
async fn a_manifest_is_put_by_either_digest() {
    let rig = Rig::new();
    let first = rig.push_image("a", "v1", &image("1")).await;
    let content = image("1").to_string();
    let long = sha512(content.as_bytes());
    let head = format!("PUT /v2/a/manifests/{long}\ncontent-type: {MANIFEST}");
    let reply = rig.send(&head, &content).await;
    assert_eq!(
        (reply.status, reply.header("docker-content-digest").unwrap()),
        (201, long.to_string().as_str())
    );
    for digest in [first, long] {
        let reply = rig.get(&format!("/v2/a/manifests/{digest}")).await;
        assert_eq!(reply.body, content.as_bytes());
        assert_eq!(
            reply.header("docker-content-digest"),
            Some(digest.to_string().as_str())
        );
    }
    let wrong = sha256(b"wrong");
    let head = format!("PUT /v2/a/manifests/{wrong}\ncontent-type: {MANIFEST}");
    insta::assert_snapshot!(rig.send(&head, &content).await, @r#"
    400 Bad Request
    content-length: 401
    content-type: application/json

    {"errors":[{"code":"DIGEST_INVALID","message":"content has the digest sha256:510a4f5714c3b3ccc6886dd98404940cbdedb2c8cae48ba8cd1ce7f6a5d6d372, not sha256:8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225","detail":{"actual":"sha256:510a4f5714c3b3ccc6886dd98404940cbdedb2c8cae48ba8cd1ce7f6a5d6d372","expected":"sha256:8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225"}}]}
    "#);
    assert_eq!(
        rig.get(&format!("/v2/a/manifests/{wrong}")).await.status,
        404
    );
}

#[tokio::test]
async fn the_tree_is_written_as_distribution_would() {
    let rig = Rig::new();
    let digest = rig.push_image("a", "v1", &image("1")).await;
    let hex = digest.hex();
    for link in [
        format!("_manifests/revisions/sha256/{hex}/link"),
        format!("_manifests/tags/v1/index/sha256/{hex}/link"),
        "_manifests/tags/v1/current/link".to_owned(),
        format!("_layers/sha256/{}/link", sha256(LAYER).hex()),
    ] {
        let content = std::fs::read_to_string(rig.path(&format!("repositories/a/{link}")));
        let expected = if link.starts_with("_layers") {
            sha256(LAYER)
        } else {
            digest.clone()
        };
        assert_eq!(content.unwrap(), expected.to_string(), "{link}");
    }
    assert!(
        !rig.path(&format!("repositories/a/_layers/sha256/{hex}"))
            .exists()
    );
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    rig.put_manifest("only/an/index", "v1", &index).await;
    assert!(rig.path("repositories/only/an/index/_layers").is_dir());
}

#[tokio::test]
async fn what_a_manifest_points_at_must_be_there() {
    let rig = Rig::new();
    let content = image("1").to_string();
    let head = format!("PUT /v2/a/manifests/v1\ncontent-type: {MANIFEST}");
    insta::assert_snapshot!(rig.send(&head, &content).await, @r#"
    400 Bad Request
    content-length: 510
    content-type: application/json

    {"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"the repository does not have the blob sha256:acd6f2226f6019b3db1d0a7bbb62ccf13738d2d3bd9c583edbe654a4f39afc3b","detail":{"digest":"sha256:acd6f2226f6019b3db1d0a7bbb62ccf13738d2d3bd9c583edbe654a4f39afc3b"}},{"code":"MANIFEST_BLOB_UNKNOWN","message":"the repository does not have the blob sha256:e28d98ac666afd34f089b971a663264d54d67a60ddc82996d48d8f3c204eb75f","detail":{"digest":"sha256:e28d98ac666afd34f089b971a663264d54d67a60ddc82996d48d8f3c204eb75f"}}]}
    "#);
    assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 404);
    rig.push_image("b", "v1", &image("1")).await;
    assert_eq!(
        rig.send(&head, &content).await.status,
        400,
        "another repository's blobs do not count"
    );
}

#[tokio::test]
async fn layers_must_be_there_unless_images_may_be_sparse() {
    let rig = Rig::new();
    rig.push_blob("a", CONFIG).await;
    let head = format!("PUT /v2/a/manifests/whole\ncontent-type: {MANIFEST}");
    let reply = rig.send(&head, image("1").to_string()).await;
    assert_eq!(
        (reply.status, reply.code()),
        (400, "MANIFEST_BLOB_UNKNOWN".to_owned())
    );
    assert_eq!(
        reply.json()["errors"][0]["detail"]["digest"],
        json!(sha256(LAYER))
    );
    rig.allow_sparse_images();
    rig.put_manifest("a", "sparse", &image("1")).await;
}

#[tokio::test]
async fn each_missing_blob_is_named_once_and_no_more_than_a_hundred_of_them() {
    let rig = Rig::new();
    rig.push_blob("a", CONFIG).await;
    let layer = |number: u32| {
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let mut layer = descriptor(kind, format!("layer {}", number / 2).as_bytes());
        // To be had elsewhere, too: it is needed here all the same.
        layer["urls"] = json!(["https://example.com/layer"]);
        layer
    };
    let head = format!("PUT /v2/a/manifests/v1\ncontent-type: {MANIFEST}");
    for (count, named) in [(6, 3), (2000, 100)] {
        let mut manifest = image("1");
        manifest["layers"] = (0..count).map(layer).collect();
        let reply = rig.send(&head, manifest.to_string()).await;
        assert_eq!(reply.status, 400);
        let json = reply.json();
        let errors = json["errors"].as_array().unwrap();
        assert_eq!(errors.len(), named);
        for (number, error) in (0..).zip(errors) {
            assert_eq!(error["code"], "MANIFEST_BLOB_UNKNOWN");
            assert_eq!(error["detail"]["digest"], layer(number * 2)["digest"]);
        }
    }
}

#[tokio::test]
async fn what_may_be_absent_may_be_absent() {
    let rig = Rig::new();
    rig.push_image("a", "v1", &image("1")).await;
    let mut foreign = image("foreign");
    let media_type = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    foreign["layers"] = json!([descriptor(media_type, b"elsewhere")]);
    rig.put_manifest("a", "foreign", &foreign).await;
    let sparse = descriptor(MANIFEST, b"a platform that was not copied");
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [sparse] });
    rig.put_manifest("a", "sparse", &index).await;
    rig.put_manifest("a", "orphan", &referrer(&json!("missing"), None))
        .await;
}

#[tokio::test]
async fn what_is_no_manifest_is_refused() {
    let rig = Rig::new();
    rig.push_image("a", "v1", &image("1")).await;
    let ambiguous =
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "layers": [] });
    let schema1 = json!({ "schemaVersion": 1, "name": "a", "fsLayers": [] });
    for (content_type, content) in [
        (MANIFEST, String::new()),
        (MANIFEST, "{".to_owned()),
        (MANIFEST, "[]".to_owned()),
        (INDEX, image("1").to_string()),
        (INDEX, ambiguous.to_string()),
        (MANIFEST, schema1.to_string()),
        ("text/plain", image("1").to_string()),
        ("text/plain", "{\"schemaVersion\":2}".to_owned()),
    ] {
        let head = format!("PUT /v2/a/manifests/bad\ncontent-type: {content_type}");
        let reply = rig.send(&head, &content).await;
        assert_eq!(
            (reply.status, reply.code()),
            (400, "MANIFEST_INVALID".to_owned()),
            "{content}"
        );
    }
    assert_eq!(rig.get("/v2/a/manifests/bad").await.status, 404);
    assert!(!rig.path("repositories/a/_manifests/tags/bad").exists());
}

#[tokio::test]
async fn a_large_manifest_passes_and_a_huge_one_does_not() {
    let rig = Rig::new();
    rig.push_image("a", "v1", &image("1")).await;
    let large = image(&"x".repeat(4_190_000));
    let digest = rig.put_manifest("a", "large", &large).await;
    assert_eq!(
        rig.get("/v2/a/manifests/large").await.body,
        large.to_string().as_bytes()
    );
    let referrer = referrer(&large, None);
    rig.put_manifest("a", "referrer", &referrer).await;
    let listed = rig.get(&format!("/v2/a/referrers/{digest}")).await.json();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 1);
    let head = format!("PUT /v2/a/manifests/huge\ncontent-type: {MANIFEST}");
    let reply = rig
        .send(&head, image(&"x".repeat(5_000_000)).to_string())
        .await;
    insta::assert_snapshot!(reply, @r#"
    413 Payload Too Large
    content-length: 86
    content-type: application/json

    {"errors":[{"code":"SIZE_INVALID","message":"manifest is larger than 4194304 bytes"}]}
    "#);
}

#[tokio::test]
async fn a_tag_is_deleted_and_its_manifest_stays() {
    let rig = Rig::new();
    let digest = rig.push_image("a", "v1", &image("1")).await;
    insta::assert_snapshot!(rig.send("DELETE /v2/a/manifests/v1", "").await, @"
    202 Accepted
    content-length: 0
    ");
    assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 404);
    assert_eq!(
        rig.get(&format!("/v2/a/manifests/{digest}")).await.status,
        200
    );
    insta::assert_snapshot!(rig.send("DELETE /v2/a/manifests/v1", "").await, @r#"
    404 Not Found
    content-length: 115
    content-type: application/json

    {"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown to the repository","detail":{"reference":"v1"}}]}
    "#);
    rig.put_manifest("a", "v1", &image("1")).await;
    assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 200);
}

#[tokio::test]
async fn a_deleted_manifest_takes_its_tags_along() {
    let rig = Rig::new();
    let digest = rig.push_image("a", "v1", &image("1")).await;
    rig.put_manifest("a", "same", &image("1")).await;
    rig.put_manifest("a", "other", &image("2")).await;
    let path = format!("/v2/a/manifests/{digest}");
    assert_eq!(rig.send(&format!("DELETE {path}"), "").await.status, 202);
    for gone in [path.as_str(), "/v2/a/manifests/v1", "/v2/a/manifests/same"] {
        let reply = rig.get(gone).await;
        assert_eq!(
            (reply.status, reply.code()),
            (404, "MANIFEST_UNKNOWN".to_owned()),
            "{gone}"
        );
    }
    assert_eq!(
        rig.get("/v2/a/tags/list").await.json()["tags"],
        json!(["other"])
    );
    let again = rig.send(&format!("DELETE {path}"), "").await;
    assert_eq!(
        (again.status, again.code()),
        (404, "MANIFEST_UNKNOWN".to_owned())
    );
}

#[tokio::test]
async fn torn_links_and_manifests_are_absent_and_can_be_mended() {
    let rig = Rig::new();
    let digest = rig.push_image("a", "v1", &image("1")).await;
    let hex = digest.hex();
    let links = [
        "repositories/a/_manifests/tags/v1/current/link".to_owned(),
        format!("repositories/a/_manifests/revisions/sha256/{hex}/link"),
        blob_path(&digest),
    ];
    for link in links {
        std::fs::write(rig.path(&link), "").unwrap();
        let reply = rig.get("/v2/a/manifests/v1").await;
        assert_eq!(
            (reply.status, reply.code()),
            (404, "MANIFEST_UNKNOWN".to_owned()),
            "{link}"
        );
        rig.put_manifest("a", "v1", &image("1")).await;
        assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 200, "{link}");
    }
    std::fs::write(
        rig.path("repositories/a/_manifests/tags/v1/current/link"),
        "",
    )
    .unwrap();
    std::fs::create_dir_all(rig.path("repositories/a/_manifests/tags/phantom")).unwrap();
    assert_eq!(rig.get("/v2/a/tags/list").await.json()["tags"], json!([]));
}
