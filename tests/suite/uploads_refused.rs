//! Uploads that must fail: with the spec's status and error, and nothing left visible.

use serde_json::Value;

use crate::harness::{Rig, digest, noise, push_blob, with_query};
use crate::uploads::{REPOSITORY, append, assert_stored, begin, blob, finish, offset};

const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

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
    // The edge may see at once that more came than was announced, and refuse it all.
    let reply = exchange.reply().unwrap();
    assert!(matches!(reply.status, 202 | 400), "{reply:?}");
    let from = offset(&client, &location);
    assert!(from <= 10_000, "{from} bytes, of 10000");
    let location = match from {
        10_000 => location,
        _ => append(&client, &location, from, &bytes[from..])
            .expect(202)
            .location(),
    };
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
fn errors_are_the_specs_json() {
    let rig = Rig::start();
    let reply = blob(&rig.client(), &digest(b"no such blob")).expect(404);
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    let error = &reply.json()["errors"][0];
    assert!(matches!(error["code"], Value::String(_)));
    assert!(matches!(error["message"], Value::String(_)));
}
