//! Uploads that go wrong: what the client is told, and that nothing of them is left to see.

use tokio::io::AsyncWriteExt as _;

use super::{Rig, sha256};

const CONTENT: &[u8] = b"0123456789";

#[tokio::test]
async fn a_chunk_out_of_order_is_refused_and_the_upload_goes_on() {
    let rig = Rig::new();
    let location = rig.begin("a").await;
    rig.send(&format!("PATCH {location}"), &CONTENT[..4]).await;
    let digest = sha256(CONTENT);
    let reply = rig
        .send(
            &format!("PATCH {location}\ncontent-range: 7-9"),
            &CONTENT[7..],
        )
        .await;
    let id = location.rsplit('/').next().unwrap();
    insta::assert_snapshot!(reply.to_string().replace(id, "UUID"), @r#"
    416 Range Not Satisfiable
    content-length: 91
    content-type: application/json
    location: /v2/a/blobs/uploads/UUID
    range: 0-3

    {"errors":[{"code":"RANGE_INVALID","message":"chunk starts at 7, but the upload is at 4"}]}
    "#);
    for range in ["7-9", "0-2", "9-4", "x", "bytes 3-5/*"] {
        let put = format!("PUT {location}?digest={digest}\ncontent-range: {range}");
        let reply = rig.send(&put, &CONTENT[7..]).await;
        assert_eq!(
            (reply.status, reply.header("range")),
            (416, Some("0-3")),
            "{range}"
        );
        assert_eq!(reply.header("location"), Some(location.as_str()));
    }
    assert_eq!(rig.get(&location).await.header("range"), Some("0-3"));
    let last = format!("PUT {location}?digest={digest}\ncontent-range: 4-9");
    assert_eq!(rig.send(&last, &CONTENT[4..]).await.status, 201);
}

#[tokio::test]
async fn a_chunk_of_another_length_than_its_range_leaves_the_upload_as_it_was() {
    let rig = Rig::new();
    let location = rig.begin("a").await;
    rig.send(&format!("PATCH {location}"), &CONTENT[..4]).await;
    let reply = rig
        .send(
            &format!("PATCH {location}\ncontent-range: 4-9"),
            &CONTENT[4..6],
        )
        .await;
    insta::assert_snapshot!(reply, @r#"
    400 Bad Request
    content-length: 83
    content-type: application/json

    {"errors":[{"code":"SIZE_INVALID","message":"body has 2 bytes, announced were 6"}]}
    "#);
    for chunks in ["2\r\n45\r\n0\r\n\r\n", "a\r\n4567890123\r\n0\r\n\r\n"] {
        let head = format!("PATCH {location}\ncontent-range: 4-9\ntransfer-encoding: chunked");
        let reply = rig.send(&head, chunks).await;
        assert_eq!(
            (reply.status, reply.code()),
            (400, "SIZE_INVALID".to_owned()),
            "{chunks}"
        );
        assert_eq!(rig.get(&location).await.header("range"), Some("0-3"));
    }
    let put = format!("PUT {location}?digest={}", sha256(CONTENT));
    assert_eq!(rig.send(&put, &CONTENT[4..]).await.status, 201);
}

#[tokio::test]
async fn a_wrong_digest_leaves_nothing() {
    let rig = Rig::new();
    let wrong = sha256(b"something else");
    let location = rig.begin("a").await;
    let reply = rig
        .send(&format!("PUT {location}?digest={wrong}"), CONTENT)
        .await;
    insta::assert_snapshot!(reply, @r#"
    400 Bad Request
    content-length: 401
    content-type: application/json

    {"errors":[{"code":"DIGEST_INVALID","message":"content has the digest sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882, not sha256:f41f3fa625ff120ddca7ef456bf66371ecea23c129f4e4c32367101edb516cf8","detail":{"actual":"sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882","expected":"sha256:f41f3fa625ff120ddca7ef456bf66371ecea23c129f4e4c32367101edb516cf8"}}]}
    "#);
    assert_eq!(rig.get(&location).await.status, 404);
    let posted = rig
        .send(
            &format!("POST /v2/a/blobs/uploads/?digest={wrong}"),
            CONTENT,
        )
        .await;
    assert_eq!(
        (posted.status, posted.code()),
        (400, "DIGEST_INVALID".to_owned())
    );
    for digest in [&wrong, &sha256(CONTENT)] {
        assert_eq!(rig.get(&format!("/v2/a/blobs/{digest}")).await.status, 404);
    }
    assert_eq!(
        rig.count("blobs") + rig.count("repositories") + rig.count("_tidegate"),
        0
    );
}

#[tokio::test]
async fn a_digest_that_is_none_is_refused_and_the_upload_goes_on() {
    let rig = Rig::new();
    let location = rig.begin("a").await;
    for query in [
        "",
        "?digest=",
        "?digest=sha256:abc",
        "?digest=md5:abc",
        "?digest=x",
    ] {
        let reply = rig.send(&format!("PUT {location}{query}"), CONTENT).await;
        assert_eq!(
            (reply.status, reply.code()),
            (400, "DIGEST_INVALID".to_owned()),
            "{query}"
        );
    }
    for query in ["?digest=sha256:abc", "?digest-algorithm=md5"] {
        let reply = rig
            .send(&format!("POST /v2/a/blobs/uploads/{query}"), CONTENT)
            .await;
        assert_eq!(
            (reply.status, reply.code()),
            (400, "DIGEST_INVALID".to_owned()),
            "{query}"
        );
    }
    let put = format!("PUT {location}?digest={}", sha256(CONTENT));
    assert_eq!(rig.send(&put, CONTENT).await.status, 201);
}

#[tokio::test]
async fn an_unknown_upload_is_unknown_to_every_verb_and_repository() {
    let rig = Rig::new();
    let elsewhere = rig.begin("b").await.replace("/b/", "/a/");
    let never = "/v2/a/blobs/uploads/6c3f62a0-0000-4000-8000-0123456789ab".to_owned();
    for location in [elsewhere, never, "/v2/a/blobs/uploads/nonsense".to_owned()] {
        let put = format!("PUT {location}?digest={}", sha256(CONTENT));
        for head in [
            format!("GET {location}"),
            format!("PATCH {location}"),
            format!("DELETE {location}"),
            put,
        ] {
            let reply = rig.send(&head, CONTENT).await;
            assert_eq!(
                (reply.status, reply.code()),
                (404, "BLOB_UPLOAD_UNKNOWN".to_owned()),
                "{head}"
            );
        }
    }
    assert!(!rig.path("repositories/a").exists());
}

#[tokio::test]
async fn a_post_that_is_cut_leaves_nothing() {
    let rig = Rig::new();
    let mut stream = rig.connect().await;
    let path = format!("/v2/a/blobs/uploads/?digest={}", sha256(CONTENT));
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n0123");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    super::eventually("the upload to be removed", || {
        rig.path("repositories/a/_uploads").exists() && rig.count("repositories") == 0
    })
    .await;
}

#[tokio::test]
async fn one_writer_at_a_time() {
    let rig = Rig::new();
    let location = rig.begin("a").await;
    let mut slow = rig.connect().await;
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n01234");
    slow.write_all(head.as_bytes()).await.unwrap();
    let id = location.rsplit('/').next().unwrap();
    let data = rig.path(&format!("repositories/a/_uploads/{id}/data"));
    super::eventually("the first writer to have begun", || data.exists()).await;
    tokio::time::pause();
    let second = rig.send(&format!("PATCH {location}"), "x").await;
    tokio::time::resume();
    insta::assert_snapshot!(second, @r#"
    409 Conflict
    content-length: 97
    content-type: application/json

    {"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"another request is writing to this upload"}]}
    "#);
    slow.write_all(b"56789").await.unwrap();
    let put = format!("PUT {location}?digest={}", sha256(CONTENT));
    assert_eq!(rig.send(&put, "").await.status, 201);
}

#[tokio::test]
async fn what_cannot_be_mounted_is_to_be_uploaded() {
    let rig = Rig::new();
    let digest = rig.push_blob("from", CONTENT).await;
    let missing = sha256(b"missing");
    for query in [
        format!("mount={missing}&from=from"),
        format!("mount={digest}&from=elsewhere"),
        format!("mount={digest}&from=Not-A-Name"),
        format!("mount={missing}"),
        "mount=sha256:abc&from=from".to_owned(),
        "from=from".to_owned(),
    ] {
        let reply = rig
            .send(&format!("POST /v2/to/blobs/uploads/?{query}"), "")
            .await;
        assert_eq!(reply.status, 202, "{query}");
        assert!(
            reply
                .header("location")
                .unwrap()
                .starts_with("/v2/to/blobs/uploads/")
        );
    }
    // Bytes that no repository has are nobody's to give.
    rig.send(&format!("DELETE /v2/from/blobs/{digest}"), "")
        .await;
    let reply = rig
        .send(&format!("POST /v2/to/blobs/uploads/?mount={digest}"), "")
        .await;
    assert_eq!(reply.status, 202);
}
