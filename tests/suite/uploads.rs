//! Uploads in every way the spec and the real clients know, and in the ways that must fail.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Client, Response, Rig, Setup, digest, digest512, eventually, noise, push_blob, with_query,
};

const REPOSITORY: &str = "team/app";
const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

fn begin(client: &Client) -> String {
    client
        .post(&format!("/v2/{REPOSITORY}/blobs/uploads/"))
        .expect(202)
        .location()
}

fn append(client: &Client, location: &str, from: usize, bytes: &[u8]) -> Response {
    client
        .request("PATCH", location)
        .header(
            "Content-Range",
            &format!("{from}-{}", from + bytes.len() - 1),
        )
        .header("Content-Type", "application/octet-stream")
        .body(bytes)
        .send()
}

fn finish(client: &Client, location: &str, digest: &str) -> Response {
    client
        .request("PUT", &with_query(location, &format!("digest={digest}")))
        .send()
}

fn blob(client: &Client, digest: &str) -> Response {
    client.get(&format!("/v2/{REPOSITORY}/blobs/{digest}"))
}

/// Where an upload stands, as the number of bytes it has.
fn offset(client: &Client, location: &str) -> usize {
    let status = client.get(location).expect(204);
    let range = status.header("Range").unwrap_or("0--1").to_owned();
    range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1
}

#[track_caller]
fn assert_stored(client: &Client, created: &Response, bytes: &[u8], digest: &str) {
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.header("Docker-Content-Digest"), Some(digest));
    let stored = client.get(&created.location()).expect(200);
    assert_eq!(stored.body, bytes);
}

#[test]
fn a_blob_is_posted_in_one_request() {
    let rig = Rig::start();
    let bytes = noise(1, 300_000);
    let digest = digest(&bytes);

    let created = rig
        .client()
        .request(
            "POST",
            &format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}"),
        )
        .header("Content-Type", "application/octet-stream")
        .body(bytes.clone())
        .send();

    assert_stored(&rig.client(), &created, &bytes, &digest);
}

#[test]
fn a_blob_is_put_whole_into_a_session() {
    let rig = Rig::start();
    let bytes = noise(2, 300_000);
    let digest = digest(&bytes);
    let location = begin(&rig.client());

    let created = rig
        .client()
        .request("PUT", &with_query(&location, &format!("digest={digest}")))
        .body(bytes.clone())
        .send();

    assert_stored(&rig.client(), &created, &bytes, &digest);
}

#[test]
fn a_new_session_says_where_it_is_and_that_it_is_empty() {
    let rig = Rig::start();
    let reply = rig
        .client()
        .post(&format!("/v2/{REPOSITORY}/blobs/uploads/"))
        .expect(202);

    assert!(
        reply
            .location()
            .starts_with(&format!("/v2/{REPOSITORY}/blobs/uploads/"))
    );
    assert!(reply.header("Docker-Upload-UUID").is_some(), "{reply:?}");
    // docker's old client wants a range even of nothing.
    assert_eq!(reply.header("Range"), Some("0-0"));
    assert_eq!(reply.header("Content-Length"), Some("0"));
}

#[test]
fn chunks_with_ranges_make_a_blob() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(3, 250_000);
    let mut location = begin(&client);

    for (number, chunk) in bytes.chunks(100_000).enumerate() {
        let reply = append(&client, &location, number * 100_000, chunk).expect(202);
        let last = number * 100_000 + chunk.len() - 1;
        assert_eq!(reply.header("Range"), Some(format!("0-{last}").as_str()));
        location = reply.location();
    }

    let created = finish(&client, &location, &digest(&bytes));
    assert_stored(&client, &created, &bytes, &digest(&bytes));
}

#[test]
fn the_last_chunk_may_come_with_the_put() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(4, 200_000);
    let location = begin(&client);
    let location = append(&client, &location, 0, &bytes[..150_000])
        .expect(202)
        .location();

    let created = client
        .request(
            "PUT",
            &with_query(&location, &format!("digest={}", digest(&bytes))),
        )
        .header("Content-Range", "150000-199999")
        .body(&bytes[150_000..])
        .send();

    assert_stored(&client, &created, &bytes, &digest(&bytes));
}

#[test]
fn a_patch_without_a_range_streams_with_a_length_or_in_chunks() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(5, 400_000);
    let location = begin(&client);
    let location = client
        .request("PATCH", &location)
        .body(&bytes[..100_000])
        .send()
        .expect(202)
        .location();

    let mut stream = client
        .request("PATCH", &location)
        .header("Transfer-Encoding", "chunked")
        .open()
        .unwrap();
    for piece in bytes[100_000..].chunks(7_777) {
        stream.chunk(piece).unwrap();
    }
    stream.chunk(b"").unwrap();
    let reply = stream.reply().unwrap().expect(202);

    assert_eq!(reply.header("Range"), Some("0-399999"));
    let created = finish(&client, &reply.location(), &digest(&bytes));
    assert_stored(&client, &created, &bytes, &digest(&bytes));
}

#[test]
fn an_empty_blob_is_a_blob() {
    let rig = Rig::start();
    let client = rig.client();
    let created = finish(&client, &begin(&client), &digest(b""));
    assert_stored(&client, &created, b"", &digest(b""));
    let head = client.head(&created.location()).expect(200);
    assert_eq!(head.header("Content-Length"), Some("0"));
}

#[test]
fn sha512_is_answered_with_sha512() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(6, 123_456);
    let location = begin(&client);
    let location = append(&client, &location, 0, &bytes).expect(202).location();
    let created = finish(&client, &location, &digest512(&bytes));
    assert_stored(&client, &created, &bytes, &digest512(&bytes));
}

#[test]
fn a_chunk_out_of_order_is_refused_by_patch_and_by_put_and_the_session_goes_on() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(7, 100_000);
    let location = begin(&client);
    let location = append(&client, &location, 0, &bytes[..40_000])
        .expect(202)
        .location();

    let refused = append(&client, &location, 60_000, &bytes[60_000..]).expect(416);
    assert_eq!(refused.header("Range"), Some("0-39999"));
    let refused = append(&client, &location, 0, &bytes[..10_000]).expect(416);
    assert_eq!(refused.header("Range"), Some("0-39999"));
    client
        .request(
            "PUT",
            &with_query(&location, &format!("digest={}", digest(&bytes))),
        )
        .header("Content-Range", "60000-99999")
        .body(&bytes[60_000..])
        .send()
        .expect(416);

    let status = client.get(&location).expect(204);
    assert_eq!(status.header("Range"), Some("0-39999"));
    let location = append(&client, &status.location(), 40_000, &bytes[40_000..]).expect(202);
    let created = finish(&client, &location.location(), &digest(&bytes));
    assert_stored(&client, &created, &bytes, &digest(&bytes));
}

#[test]
fn a_content_range_that_is_none_is_refused() {
    let rig = Rig::start();
    let client = rig.client();
    let location = begin(&client);
    for range in [
        "bytes",
        "5-1",
        "-5",
        "0-",
        "a-b",
        "0-99999999999999999999999",
        "0-2",
    ] {
        let reply = client
            .request("PATCH", &location)
            .header("Content-Range", range)
            .body("12345")
            .send();
        assert!(matches!(reply.status, 400 | 416), "{range}: {reply:?}");
        reply.error_code();
    }
    let created = finish(&client, &begin(&client), &digest(b""));
    assert_stored(&client, &created, b"", &digest(b""));
}

#[test]
fn a_wrong_digest_leaves_nothing_visible() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(8, 50_000);
    let wrong = digest(b"something else");

    let location = begin(&client);
    client
        .request("PUT", &with_query(&location, &format!("digest={wrong}")))
        .body(bytes.clone())
        .send()
        .expect_error(400, "DIGEST_INVALID");
    client
        .request(
            "POST",
            &format!("/v2/{REPOSITORY}/blobs/uploads/?digest={wrong}"),
        )
        .body(bytes.clone())
        .send()
        .expect_error(400, "DIGEST_INVALID");
    let location = begin(&client);
    let location = append(&client, &location, 0, &bytes).expect(202).location();
    finish(&client, &location, &wrong).expect_error(400, "DIGEST_INVALID");

    blob(&client, &wrong).expect_error(404, "BLOB_UNKNOWN");
    blob(&client, &digest(&bytes)).expect_error(404, "BLOB_UNKNOWN");
}

#[test]
fn a_malformed_digest_is_refused_before_the_body_counts() {
    let rig = Rig::start();
    let client = rig.client();
    for bad in [
        "sha256:abc",
        "sha256:",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "nothing",
        "",
    ] {
        let location = begin(&client);
        let reply = finish(&client, &location, bad);
        reply.expect_error(400, "DIGEST_INVALID");
    }
}

#[test]
fn a_body_cut_short_leaves_nothing_visible_and_can_be_resumed() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(9, 3_000_000);
    let location = begin(&client);

    let mut cut = client
        .request("PATCH", &location)
        .header("Content-Length", &bytes.len().to_string())
        .open()
        .unwrap();
    cut.write(&bytes[..1_500_000]).unwrap();
    eventually("the first half to arrive", || {
        (offset(&client, &location) > 0).then_some(())
    });
    drop(cut);

    blob(&client, &digest(&bytes)).expect(404);
    // What arrived before the cut may be kept or not; the client asks and goes on from there.
    let created = eventually("the upload to be resumed", || {
        let from = offset(&client, &location);
        let reply = append(&client, &location, from, &bytes[from..]);
        (reply.status == 202).then(|| finish(&client, &reply.location(), &digest(&bytes)))
    });
    assert_stored(&client, &created, &bytes, &digest(&bytes));
}

#[test]
fn a_put_cut_short_is_no_blob() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(10, 2_000_000);
    let half = &bytes[..1_000_000];
    let location = begin(&client);
    // The digest is right for what will have arrived: length must decide, not the digest.
    let mut cut = client
        .request(
            "PUT",
            &with_query(&location, &format!("digest={}", digest(half))),
        )
        .header("Content-Length", &bytes.len().to_string())
        .open()
        .unwrap();
    cut.write(half).unwrap();
    drop(cut);

    // A second, honest upload goes through the same code after the cut one was noticed.
    push_blob(&client, REPOSITORY, b"honest");
    blob(&client, &digest(half)).expect_error(404, "BLOB_UNKNOWN");
}

#[test]
fn more_bytes_than_announced_are_never_part_of_the_blob() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(11, 10_000);
    let location = begin(&client);
    let mut exchange = client
        .request("PATCH", &location)
        .header("Content-Range", "0-9999")
        .header("Content-Length", "10000")
        .header("Connection", "close")
        .open()
        .unwrap();
    let mut too_much = bytes.clone();
    too_much.extend_from_slice(b"GARBAGE GARBAGE GARBAGE");
    exchange.write(&too_much).unwrap();
    let location = exchange.reply().unwrap().expect(202).location();

    assert_eq!(offset(&client, &location), 10_000);
    let created = finish(&client, &location, &digest(&bytes));
    assert_stored(&client, &created, &bytes, &digest(&bytes));

    // A range shorter than the body that comes with it is a lie.
    let location = begin(&client);
    let reply = client
        .request("PATCH", &location)
        .header("Content-Range", "0-99")
        .body(bytes)
        .send();
    assert!(matches!(reply.status, 400 | 416), "{reply:?}");
    assert!(matches!(client.get(&location).status, 204 | 404));
}

#[test]
fn a_cancelled_upload_is_gone() {
    let rig = Rig::start();
    let client = rig.client();
    let location = begin(&client);
    let location = append(&client, &location, 0, b"some bytes")
        .expect(202)
        .location();

    client.delete(&location).expect(204);

    client
        .get(&location)
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    append(&client, &location, 10, b"more").expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    finish(&client, &location, &digest(b"some bytes")).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    let uploads = rig
        .tree()
        .join(format!("repositories/{REPOSITORY}/_uploads"));
    assert_eq!(std::fs::read_dir(uploads).map_or(0, Iterator::count), 0);
}

#[test]
fn an_unknown_upload_is_unknown_to_every_verb() {
    let rig = Rig::start();
    let client = rig.client();
    push_blob(&client, REPOSITORY, b"the repository is there");
    for id in [NOWHERE, "not-a-uuid", "..%2f..%2fblobs"] {
        let location = format!("/v2/{REPOSITORY}/blobs/uploads/{id}");
        for method in ["GET", "PATCH", "DELETE"] {
            let reply = client.request(method, &location).send();
            assert!(
                matches!(reply.status, 400 | 404),
                "{method} {id}: {reply:?}"
            );
            reply.error_code();
        }
        let reply = finish(&client, &location, &digest(b"x"));
        assert!(matches!(reply.status, 400 | 404), "PUT {id}: {reply:?}");
    }
    let unknown = format!("/v2/{REPOSITORY}/blobs/uploads/{NOWHERE}");
    client
        .get(&unknown)
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn an_upload_of_one_repository_is_unknown_to_another() {
    let rig = Rig::start();
    let client = rig.client();
    let location = begin(&client);
    let elsewhere = location.replace(REPOSITORY, "other/place");
    client
        .get(&elsewhere)
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn an_upload_goes_on_after_the_registry_was_killed() {
    let mut rig = Rig::start();
    let client = rig.client();
    let bytes = noise(12, 4_000_000);
    let location = begin(&client);
    let location = append(&client, &location, 0, &bytes[..1_500_000])
        .expect(202)
        .location();

    rig.crash_registry();

    assert_eq!(offset(&client, &location), 1_500_000);
    let location = append(&client, &location, 1_500_000, &bytes[1_500_000..3_000_000])
        .expect(202)
        .location();
    rig.crash_registry();
    let location = append(&client, &location, 3_000_000, &bytes[3_000_000..])
        .expect(202)
        .location();
    let created = finish(&client, &location, &digest(&bytes));
    assert_stored(&client, &created, &bytes, &digest(&bytes));
}

#[test]
fn an_upload_goes_on_after_the_registry_was_killed_in_the_middle_of_a_chunk() {
    let mut rig = Rig::start();
    let client = rig.client();
    let bytes = noise(13, 4_000_000);
    let location = begin(&client);
    let mut cut = client
        .request("PATCH", &location)
        .header("Content-Length", &bytes.len().to_string())
        .open()
        .unwrap();
    cut.write(&bytes[..2_000_000]).unwrap();
    eventually("bytes to arrive", || {
        (offset(&client, &location) > 0).then_some(())
    });

    rig.crash_registry();
    let refused = cut.write(&bytes[2_000_000..]).and_then(|()| cut.reply());
    assert!(refused.map_or(true, |reply| reply.status >= 500));

    let from = offset(&client, &location);
    assert!(from <= 2_000_000, "only bytes that were sent can be there");
    let location = append(&client, &location, from, &bytes[from..])
        .expect(202)
        .location();
    let created = finish(&client, &location, &digest(&bytes));
    assert_stored(&client, &created, &bytes, &digest(&bytes));
}

#[test]
fn an_upload_goes_on_after_the_edge_was_killed() {
    let mut rig = Rig::start();
    let client = rig.client();
    let bytes = noise(14, 3_000_000);
    let location = begin(&client);
    let mut cut = client
        .request("PATCH", &location)
        .header("Content-Length", &bytes.len().to_string())
        .open()
        .unwrap();
    cut.write(&bytes[..2_000_000]).unwrap();
    eventually("bytes to arrive", || {
        (offset(&client, &location) > 0).then_some(())
    });

    rig.crash_edge();

    let created = eventually("the upload to be resumed", || {
        let from = offset(&client, &location);
        let reply = append(&client, &location, from, &bytes[from..]);
        (reply.status == 202).then(|| finish(&client, &reply.location(), &digest(&bytes)))
    });
    assert_stored(&client, &created, &bytes, &digest(&bytes));
}

#[test]
fn an_abandoned_upload_expires() {
    let rig = Setup {
        registry: "upload_expiry = \"1s\"".to_owned(),
        ..Setup::default()
    }
    .start();
    let client = rig.client();
    let location = begin(&client);
    append(&client, &location, 0, b"forgotten").expect(202);
    eventually("the upload to expire", || {
        // Looking must not keep it alive.
        crate::harness::pause(Duration::from_millis(200));
        (client.get(&location).status == 404).then_some(())
    });
    let uploads = rig
        .tree()
        .join(format!("repositories/{REPOSITORY}/_uploads"));
    eventually("its bytes to be gone", || {
        (std::fs::read_dir(&uploads).map_or(0, Iterator::count) == 0).then_some(())
    });
}

#[test]
fn a_blob_is_mounted_from_another_repository() {
    let rig = Rig::start();
    let client = rig.client();
    let digest = push_blob(&client, "other/source", &noise(15, 1000));

    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?mount={digest}&from=other/source");
    let mounted = client.post(&path).expect(201);

    assert_eq!(
        mounted.header("Docker-Content-Digest"),
        Some(digest.as_str())
    );
    assert_eq!(
        client.get(&mounted.location()).expect(200).body,
        noise(15, 1000)
    );
}

#[test]
fn a_mount_of_nothing_begins_an_upload() {
    let rig = Rig::start();
    let client = rig.client();
    let missing = digest(b"nobody has this");
    for from in ["&from=other/source", ""] {
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/?mount={missing}{from}");
        let location = client.post(&path).expect(202).location();
        client.get(&location).expect(204);
        client.delete(&location).expect(204);
    }
}

#[test]
fn a_blob_anyone_has_is_mounted_without_saying_from_where() {
    let rig = Rig::start();
    let client = rig.client();
    let digest = push_blob(&client, "other/source", &noise(16, 1000));
    let mounted = client.post(&format!("/v2/{REPOSITORY}/blobs/uploads/?mount={digest}"));
    // The spec leaves this to the registry: a mount, or an upload.
    assert!(matches!(mounted.status, 201 | 202), "{mounted:?}");
    if mounted.status == 201 {
        assert_eq!(blob(&client, &digest).expect(200).body, noise(16, 1000));
    }
}

#[test]
fn errors_are_the_specs_json() {
    let rig = Rig::start();
    let reply = blob(&rig.client(), &digest(b"no such blob")).expect(404);
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    let error = &reply.json()["errors"][0];
    assert!(matches!(error["code"], Value::String(_)));
    assert!(matches!(error["message"], Value::String(_)));
}
