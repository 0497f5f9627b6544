//! Uploads: begun, continued, finished, given up.

use tokio::io::AsyncWriteExt as _;

use super::{Rig, blob_path, sha256, sha512};

const CONTENT: &[u8] = b"0123456789";

#[tokio::test]
async fn a_blob_is_posted_whole() {
    let rig = Rig::new();
    let digest = sha256(CONTENT);
    let reply = rig
        .send(
            &format!("POST /v2/a/b/blobs/uploads/?digest={digest}"),
            CONTENT,
        )
        .await;
    insta::assert_snapshot!(reply, @"
    201 Created
    content-length: 0
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    location: /v2/a/b/blobs/sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    ");
    assert_eq!(
        rig.get(reply.header("location").unwrap()).await.body,
        CONTENT
    );
    assert_eq!(rig.count("repositories/a/b/_uploads"), 0);
}

#[tokio::test]
async fn an_upload_begins_empty() {
    let rig = Rig::new();
    let reply = rig.send("POST /v2/a/b/blobs/uploads/", "").await;
    insta::assert_snapshot!(reply, @"
    202 Accepted
    content-length: 0
    docker-upload-uuid: UUID
    location: /v2/a/b/blobs/uploads/UUID
    range: 0-0
    ");
    let status = rig.get(reply.header("location").unwrap()).await;
    insta::assert_snapshot!(status, @"
    204 No Content
    docker-upload-uuid: UUID
    location: /v2/a/b/blobs/uploads/UUID
    range: 0-0
    ");
}

#[tokio::test]
async fn chunks_make_a_blob() {
    let rig = Rig::new();
    let location = rig.begin("a").await;
    let reply = rig
        .send(
            &format!("PATCH {location}\ncontent-range: 0-3"),
            &CONTENT[..4],
        )
        .await;
    insta::assert_snapshot!(reply, @"
    202 Accepted
    content-length: 0
    docker-upload-uuid: UUID
    location: /v2/a/blobs/uploads/UUID
    range: 0-3
    ");
    // Without a range, and without a length.
    let chunked = "2\r\n45\r\n1\r\n6\r\n0\r\n\r\n";
    let reply = rig
        .send(
            &format!("PATCH {location}\ntransfer-encoding: chunked"),
            chunked,
        )
        .await;
    assert_eq!((reply.status, reply.header("range")), (202, Some("0-6")));
    let digest = sha256(CONTENT);
    let last = format!("PUT {location}?digest={digest}\ncontent-range: 7-9");
    let reply = rig.send(&last, &CONTENT[7..]).await;
    insta::assert_snapshot!(reply, @"
    201 Created
    content-length: 0
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    location: /v2/a/blobs/sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    ");
    assert_eq!(
        rig.get(&format!("/v2/a/blobs/{digest}")).await.body,
        CONTENT
    );
    assert_eq!(rig.get(&location).await.status, 404);
}

#[tokio::test]
async fn a_large_blob_comes_in_chunks_of_any_size_whichever_way_it_is_written() {
    let content: Vec<u8> = (0..=250).cycle().take(8_000_000).collect();
    let digest = sha256(&content);
    for mut rig in [Rig::new(), Rig::buffered()] {
        let location = rig.begin("a").await;
        let mut rest = content.as_slice();
        for size in [1, 2_500_000, 4095, 1_048_576, 700_000, 3_000_000] {
            let (chunk, after) = rest.split_at(size);
            let reply = rig.send(&format!("PATCH {location}"), chunk).await;
            assert_eq!(reply.status, 202, "{reply}");
            rest = after;
            if size == 4095 {
                rig.restart().await; // the hash is that of what is read back
            }
        }
        // One that lies about its length leaves the end where it was, in the middle of a block.
        let too_long = format!("PATCH {location}\ncontent-range: 7252672-7252675");
        assert_eq!(rig.send(&too_long, &rest[..5]).await.status, 400);
        let put = format!("PUT {location}?digest={digest}");
        let reply = rig.send(&put, rest).await;
        assert_eq!(reply.status, 201, "{reply}");
        let pulled = rig.get(&format!("/v2/a/blobs/{digest}")).await;
        assert!(pulled.body == content);
    }
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let rig = Rig::new();
    let digest = sha256(b"");
    let location = rig.begin("a").await;
    let reply = rig
        .send(&format!("PUT {location}?digest={digest}"), "")
        .await;
    assert_eq!(reply.status, 201);
    let reply = rig.get(&format!("/v2/a/blobs/{digest}")).await;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("0"))
    );
    let reply = rig
        .send(&format!("GET /v2/a/blobs/{digest}\nrange: bytes=0-"), "")
        .await;
    assert_eq!(reply.status, 416);
    let posted = rig
        .send(&format!("POST /v2/b/blobs/uploads/?digest={digest}"), "")
        .await;
    assert_eq!(posted.status, 201);
}

#[tokio::test]
async fn a_sha512_is_answered_and_stored_as_one() {
    let rig = Rig::new();
    let digest = sha512(CONTENT);
    let begun = rig
        .send("POST /v2/a/blobs/uploads/?digest-algorithm=sha512", "")
        .await;
    let unannounced = rig.begin("b").await;
    for (repository, location) in [
        ("a", begun.header("location").unwrap()),
        ("b", &unannounced),
    ] {
        rig.send(&format!("PATCH {location}"), &CONTENT[..5]).await;
        let reply = rig
            .send(&format!("PUT {location}?digest={digest}"), &CONTENT[5..])
            .await;
        assert_eq!(reply.status, 201, "{reply}");
        assert_eq!(
            reply.header("docker-content-digest"),
            Some(digest.to_string().as_str())
        );
        let reply = rig.get(&format!("/v2/{repository}/blobs/{digest}")).await;
        assert_eq!(reply.body, CONTENT);
    }
    assert_eq!(
        std::fs::read(rig.path(&blob_path(&digest))).unwrap(),
        CONTENT
    );
    let posted = rig
        .send(
            &format!("POST /v2/c/blobs/uploads/?digest={digest}"),
            CONTENT,
        )
        .await;
    assert_eq!(posted.status, 201);
}

#[tokio::test]
async fn an_upload_is_given_up() {
    let rig = Rig::new();
    let location = rig.begin("a").await;
    rig.send(&format!("PATCH {location}"), CONTENT).await;
    insta::assert_snapshot!(rig.send(&format!("DELETE {location}"), "").await, @"204 No Content");
    assert_eq!(rig.count("repositories"), 0);
    insta::assert_snapshot!(rig.get(&location).await, @r#"
    404 Not Found
    content-length: 91
    content-type: application/json

    {"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown to the registry"}]}
    "#);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let mut rig = Rig::new();
    let (first, digest) = (rig.begin("a").await, sha512(CONTENT));
    rig.send(&format!("PATCH {first}"), &CONTENT[..4]).await;
    rig.restart().await;
    assert_eq!(rig.get(&first).await.header("range"), Some("0-3"));
    let reply = rig
        .send(
            &format!("PATCH {first}\ncontent-range: 4-6"),
            &CONTENT[4..7],
        )
        .await;
    assert_eq!((reply.status, reply.header("range")), (202, Some("0-6")));
    rig.restart().await;
    let reply = rig
        .send(&format!("PUT {first}?digest={digest}"), &CONTENT[7..])
        .await;
    assert_eq!(reply.status, 201, "{reply}");
    assert_eq!(
        rig.get(&format!("/v2/a/blobs/{digest}")).await.body,
        CONTENT
    );
}

#[tokio::test]
async fn the_state_of_distributions_hash_is_not_needed() {
    let mut rig = Rig::new();
    let location = rig.begin("a").await;
    rig.send(&format!("PATCH {location}"), &CONTENT[..4]).await;
    let id = location.rsplit('/').next().unwrap();
    let states = rig.path(&format!("repositories/a/_uploads/{id}/hashstates/sha256"));
    std::fs::create_dir_all(&states).unwrap();
    std::fs::write(states.join("4"), "not what it says").unwrap();
    rig.restart().await;
    let put = format!("PUT {location}?digest={}", sha256(CONTENT));
    assert_eq!(rig.send(&put, &CONTENT[4..]).await.status, 201);
    assert_eq!(rig.count("repositories/a/_uploads"), 0);
}

#[tokio::test]
async fn what_came_before_a_cut_is_kept() {
    let rig = Rig::new();
    let location = rig.begin("a").await;
    for head in [
        format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n0123"),
        format!(
            "PATCH {location} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n45\r\n"
        ),
    ] {
        let mut stream = rig.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
    }
    // The next request waits for the last one to let go, so nothing need be waited for here.
    let digest = sha256(CONTENT);
    let reply = rig.send(&format!("PATCH {location}"), "").await;
    let received = reply.header("range").unwrap();
    let from: usize = received.trim_start_matches("0-").parse::<usize>().unwrap() + 1;
    let reply = rig
        .send(&format!("PUT {location}?digest={digest}"), &CONTENT[from..])
        .await;
    assert_eq!(reply.status, 201, "{reply}");
}

#[tokio::test]
async fn a_blob_is_mounted() {
    let rig = Rig::new();
    let digest = rig.push_blob("from/here", CONTENT).await;
    let path = format!("/v2/to/blobs/uploads/?mount={digest}&from=from/here");
    insta::assert_snapshot!(rig.send(&format!("POST {path}"), "").await, @"
    201 Created
    content-length: 0
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    location: /v2/to/blobs/sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    ");
    assert_eq!(
        rig.get(&format!("/v2/to/blobs/{digest}")).await.body,
        CONTENT
    );
    let anonymous = rig
        .send(&format!("POST /v2/x/blobs/uploads/?mount={digest}"), "")
        .await;
    assert_eq!(anonymous.status, 201);
    assert_eq!(
        rig.get(&format!("/v2/x/blobs/{digest}")).await.body,
        CONTENT
    );
}

#[tokio::test]
async fn a_blob_is_mounted_from_what_can_be_seen_alone() {
    let rig = Rig::new();
    let digest = rig.push_blob("secret/app", CONTENT).await;
    rig.push_blob("open/app", b"another").await;
    for (visible, from, status) in [
        ("+open/**", "&from=secret/app", 202),
        ("+open/**", "", 202),
        ("+open/**,", "&from=secret/app", 202),
        ("-secret/**,+**", "", 202),
        ("", "&from=secret/app", 202),
        ("+secret/app", "&from=secret/app", 201),
        ("+**", "", 201),
    ] {
        let head = format!(
            "POST /v2/to/blobs/uploads/?mount={digest}{from}\nx-tidegate-catalog: {visible}"
        );
        let reply = rig.send(&head, "").await;
        assert_eq!(reply.status, status, "{visible} {from}");
        let blob = format!("/v2/to/blobs/{digest}");
        let expected = if status == 201 { 200 } else { 404 };
        assert_eq!(rig.get(&blob).await.status, expected, "{visible} {from}");
        rig.send(&format!("DELETE {blob}"), "").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_blob_pushed_by_many_at_once_ends_as_one() {
    let rig = std::sync::Arc::new(Rig::new());
    let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = sha256(&content);
    let content = std::sync::Arc::new(content);
    let mut pushes = tokio::task::JoinSet::new();
    for number in 0..32 {
        let (rig, content) = (std::sync::Arc::clone(&rig), std::sync::Arc::clone(&content));
        pushes.spawn(async move { rig.push_blob(&format!("r{}", number % 5), &content).await });
    }
    for pushed in pushes.join_all().await {
        assert_eq!(pushed, digest);
    }
    assert_eq!(rig.count("blobs"), 1);
    assert!(rig.get(&format!("/v2/r3/blobs/{digest}")).await.body == *content);
    assert_eq!(rig.count("repositories"), 5);
}

#[tokio::test]
async fn an_upload_that_rests_too_long_is_removed_and_one_under_way_is_not() {
    let rig = Rig::new();
    let (resting, busy) = (rig.begin("a").await, rig.begin("a/b").await);
    rig.send(&format!("PATCH {resting}"), CONTENT).await;
    let mut slow = rig.connect().await;
    let head = format!("PATCH {busy} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n01234");
    slow.write_all(head.as_bytes()).await.unwrap();
    let id = busy.rsplit('/').next().unwrap();
    let data = rig.path(&format!("repositories/a/b/_uploads/{id}/data"));
    super::eventually("the writer to have begun", || data.exists()).await;
    let foreign = rig.path("repositories/a/_uploads/not-an-upload");
    std::fs::create_dir_all(&foreign).unwrap();

    let expire = |before| rig.app.registry.expire_uploads(before).unwrap();
    let now = std::time::SystemTime::now();
    let minute = std::time::Duration::from_secs(60);
    assert_eq!(expire(now - minute), 0);
    assert_eq!(rig.get(&resting).await.status, 204);
    assert_eq!(expire(now + minute), 1);

    assert_eq!(rig.get(&resting).await.status, 404);
    assert!(foreign.exists());
    slow.write_all(b"56789").await.unwrap();
    let put = format!("PUT {busy}?digest={}", sha256(CONTENT));
    assert_eq!(rig.send(&put, "").await.status, 201);
}
