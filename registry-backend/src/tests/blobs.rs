//! Blobs: whole, in parts, not at all.

use super::{Rig, sha256};

const CONTENT: &[u8] = b"0123456789";

async fn rig_with_blob() -> (Rig, String) {
    let rig = Rig::new();
    let digest = rig.push_blob("a/b", CONTENT).await;
    (rig, format!("/v2/a/b/blobs/{digest}"))
}

#[tokio::test]
async fn a_blob_is_sent_whole() {
    let (rig, path) = rig_with_blob().await;
    insta::assert_snapshot!(rig.get(&path).await, @r#"
    200 OK
    accept-ranges: bytes
    cache-control: private, max-age=31536000, immutable
    content-length: 10
    content-type: application/octet-stream
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    etag: "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"

    0123456789
    "#);
}

#[tokio::test]
async fn the_head_of_a_blob_says_what_the_blob_would() {
    let (rig, path) = rig_with_blob().await;
    let get = rig.get(&path).await;
    let head = rig.send(&format!("HEAD {path}"), "").await;
    assert!(head.body.is_empty());
    for name in [
        "content-length",
        "docker-content-digest",
        "etag",
        "content-type",
        "accept-ranges",
    ] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[tokio::test]
async fn a_blob_that_the_client_has_is_not_sent_again() {
    let (rig, path) = rig_with_blob().await;
    let tag = format!("if-none-match: \"x\", W/\"{}\"", sha256(CONTENT));
    insta::assert_snapshot!(rig.send(&format!("GET {path}\n{tag}"), "").await, @r#"
    304 Not Modified
    accept-ranges: bytes
    cache-control: private, max-age=31536000, immutable
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    etag: "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    "#);
    let head = rig.send(&format!("HEAD {path}\n{tag}"), "").await;
    assert_eq!(head.status, 304);
    let other = rig
        .send(&format!("GET {path}\nif-none-match: \"x\""), "")
        .await;
    assert_eq!(other.status, 200);
    // A tag is no way to learn of blobs of other repositories.
    let foreign = rig
        .send(&format!("GET {}\n{tag}", path.replace("a/b", "c")), "")
        .await;
    assert_eq!(foreign.status, 404);
}

#[tokio::test]
async fn a_range_of_a_blob_is_sent() {
    let (rig, path) = rig_with_blob().await;
    let reply = rig.send(&format!("GET {path}\nrange: bytes=2-4"), "").await;
    insta::assert_snapshot!(reply, @r#"
    206 Partial Content
    accept-ranges: bytes
    cache-control: private, max-age=31536000, immutable
    content-length: 3
    content-range: bytes 2-4/10
    content-type: application/octet-stream
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    etag: "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"

    234
    "#);
    for (range, expected) in [
        ("7-", "789"),
        ("-2", "89"),
        ("0-0", "0"),
        ("8-99", "89"),
        ("-99", "0123456789"),
    ] {
        let reply = rig
            .send(&format!("GET {path}\nrange: bytes={range}"), "")
            .await;
        assert_eq!(reply.status, 206, "{range}");
        assert_eq!(reply.body, expected.as_bytes(), "{range}");
        assert_eq!(
            reply.header("content-length"),
            Some(expected.len().to_string().as_str())
        );
    }
}

#[tokio::test]
async fn several_ranges_are_sent_in_the_order_asked() {
    let (rig, path) = rig_with_blob().await;
    let reply = rig
        .send(&format!("GET {path}\nrange: bytes=8-9,0-1, 4-4"), "")
        .await;
    let boundary = reply
        .header("content-type")
        .unwrap()
        .split("boundary=")
        .nth(1)
        .unwrap();
    let shown = reply
        .to_string()
        .replace(boundary, "BOUNDARY")
        .replace('\r', "");
    insta::assert_snapshot!(shown, @r#"
    206 Partial Content
    accept-ranges: bytes
    cache-control: private, max-age=31536000, immutable
    content-length: 372
    content-type: multipart/byteranges; boundary=BOUNDARY
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    etag: "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"


    --BOUNDARY
    content-type: application/octet-stream
    content-range: bytes 8-9/10

    89
    --BOUNDARY
    content-type: application/octet-stream
    content-range: bytes 0-1/10

    01
    --BOUNDARY
    content-type: application/octet-stream
    content-range: bytes 4-4/10

    4
    --BOUNDARY--
    "#);
    assert_eq!(
        reply.header("content-length").unwrap(),
        reply.body.len().to_string()
    );
}

#[tokio::test]
async fn ranges_that_lie_outside_are_refused_or_left_out() {
    let (rig, path) = rig_with_blob().await;
    for range in ["10-", "5-3", "-0", "20-30,40-50"] {
        let reply = rig
            .send(&format!("GET {path}\nrange: bytes={range}"), "")
            .await;
        assert_eq!(
            (reply.status, reply.header("content-range")),
            (416, Some("bytes */10")),
            "{range}"
        );
        assert_eq!(reply.code(), "RANGE_INVALID");
    }
    let reply = rig
        .send(&format!("GET {path}\nrange: bytes=20-30,1-2"), "")
        .await;
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (206, b"12".as_slice())
    );
    // What is no range of bytes is no range, and more than everything is everything.
    for range in ["lines=1-2", "bytes=x", "bytes=0-9,0-9"] {
        let reply = rig.send(&format!("GET {path}\nrange: {range}"), "").await;
        assert_eq!(
            (reply.status, reply.body.as_slice()),
            (200, CONTENT),
            "{range}"
        );
    }
}

#[tokio::test]
async fn a_range_of_what_has_changed_is_all_of_it() {
    let (rig, path) = rig_with_blob().await;
    let tag = sha256(CONTENT);
    let same = rig
        .send(
            &format!("GET {path}\nrange: bytes=0-1\nif-range: \"{tag}\""),
            "",
        )
        .await;
    assert_eq!(same.status, 206);
    let other = rig
        .send(
            &format!("GET {path}\nrange: bytes=0-1\nif-range: \"x\""),
            "",
        )
        .await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn a_blob_larger_than_any_buffer_comes_whole_and_in_parts() {
    let rig = Rig::new();
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    let digest = rig.push_blob("a", &content).await;
    let reply = rig.get(&format!("/v2/a/blobs/{digest}")).await;
    assert!(reply.body == content);
    let head = format!("GET /v2/a/blobs/{digest}\nrange: bytes=1000000-9999999,3-5");
    let reply = rig.send(&head, "").await;
    assert!(
        reply
            .body
            .windows(32)
            .any(|window| window == &content[9_999_968..10_000_000])
    );
    assert_eq!(
        reply.header("content-length").unwrap(),
        reply.body.len().to_string()
    );
}

#[tokio::test]
async fn a_blob_of_another_repository_is_unknown() {
    let (rig, path) = rig_with_blob().await;
    insta::assert_snapshot!(rig.get(&path.replace("a/b", "a")).await, @r#"
    404 Not Found
    content-length: 173
    content-type: application/json

    {"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to the repository","detail":{"digest":"sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"}}]}
    "#);
    let head = rig
        .send(&format!("HEAD {}", path.replace("a/b", "a")), "")
        .await;
    assert_eq!((head.status, head.body.len()), (404, 0));
}

#[tokio::test]
async fn a_deleted_blob_is_gone_from_its_repository_alone() {
    let (rig, path) = rig_with_blob().await;
    rig.push_blob("c", CONTENT).await;
    insta::assert_snapshot!(rig.send(&format!("DELETE {path}"), "").await, @"
    202 Accepted
    content-length: 0
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    ");
    assert_eq!(rig.get(&path).await.status, 404);
    assert_eq!(rig.get(&path.replace("a/b", "c")).await.body, CONTENT);
    let again = rig.send(&format!("DELETE {path}"), "").await;
    assert_eq!(
        (again.status, again.code()),
        (404, "BLOB_UNKNOWN".to_owned())
    );
}

#[tokio::test]
async fn deleting_can_be_switched_off() {
    let (rig, path) = rig_with_blob().await;
    let mut config = rig.app.settings().config.clone();
    config.delete = false;
    rig.app.change(config);
    insta::assert_snapshot!(rig.send(&format!("DELETE {path}"), "").await, @r#"
    405 Method Not Allowed
    content-length: 89
    content-type: application/json

    {"errors":[{"code":"UNSUPPORTED","message":"deleting is switched off on this registry"}]}
    "#);
    let tag = rig.send("DELETE /v2/a/b/manifests/v1", "").await;
    assert_eq!((tag.status, tag.code()), (405, "UNSUPPORTED".to_owned()));
}

#[tokio::test]
async fn an_alias_of_distribution_leads_to_the_bytes() {
    // `registry:2` stores what was pushed as sha512 under the sha256 of its own choice.
    let (rig, _) = rig_with_blob().await;
    let alias = super::sha512(CONTENT);
    let folder = rig.path(&format!("repositories/a/b/_layers/sha512/{}", alias.hex()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("link"), sha256(CONTENT).to_string()).unwrap();
    let reply = rig.get(&format!("/v2/a/b/blobs/{alias}")).await;
    assert_eq!(reply.body, CONTENT);
    assert_eq!(
        reply.header("docker-content-digest"),
        Some(alias.to_string().as_str())
    );
}

#[tokio::test]
async fn torn_links_are_absent_and_can_be_mended() {
    let (rig, path) = rig_with_blob().await;
    let digest = sha256(CONTENT);
    let link = rig.path(&format!(
        "repositories/a/b/_layers/sha256/{}/link",
        digest.hex()
    ));
    for torn in [
        "",
        "sha256:",
        "sha256:abc",
        &format!("{digest}\n"),
        &"x".repeat(100_000),
    ] {
        std::fs::write(&link, torn).unwrap();
        let reply = rig.get(&path).await;
        assert_eq!(
            (reply.status, reply.code()),
            (404, "BLOB_UNKNOWN".to_owned()),
            "{torn:.20}"
        );
    }
    rig.push_blob("a/b", CONTENT).await;
    assert_eq!(rig.get(&path).await.body, CONTENT);
    // A link to nothing is nothing, too.
    std::fs::remove_dir_all(rig.path("blobs")).unwrap();
    assert_eq!(rig.get(&path).await.status, 404);
    rig.push_blob("a/b", CONTENT).await;
    assert_eq!(rig.get(&path).await.body, CONTENT);
}
