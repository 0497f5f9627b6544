//! What the distribution-spec's conformance tool asks of blobs, with both algorithms of digests.
//!
//! The tool itself cannot be had on every machine; `conformance` runs it where it can. Here and in
//! `spec_manifests` is what it asks, fact by fact, as far as no other topic does.

use crate::harness::{Client, Response, Rig, digest, digest512, noise, with_query};
use crate::uploads::{REPOSITORY, append, assert_stored, begin, finish};

const OTHER: &str = "other/source";
const OCTETS: &str = "application/octet-stream";

pub(crate) type Algorithm = fn(&[u8]) -> String;
pub(crate) const ALGORITHMS: [Algorithm; 2] = [digest, digest512];

fn blob_path(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// Sends a body without saying how long it is.
pub(crate) fn stream(
    client: &Client,
    method: &str,
    path: &str,
    kind: &str,
    body: &[u8],
) -> Response {
    let mut exchange = client
        .request(method, path)
        .header("Content-Type", kind)
        .header("Transfer-Encoding", "chunked")
        .header("Connection", "close")
        .open()
        .unwrap();
    for piece in body.chunks(60_000) {
        exchange.chunk(piece).unwrap();
    }
    exchange.chunk(b"").unwrap();
    exchange.reply().unwrap()
}

fn post_alone(client: &Client, repository: &str, bytes: &[u8], digest: &str) -> Response {
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    client.request("POST", &path).body(bytes).send()
}

pub(crate) fn push(client: &Client, repository: &str, bytes: &[u8], digest: &str) {
    post_alone(client, repository, bytes, digest).expect(201);
}

/// Pushes a blob in every way there is; returns what each ended with.
fn every_way(client: &Client, bytes: &[u8], digest: &str) -> [Response; 6] {
    let half = bytes.len() / 2;
    let last_chunk = |location: &str, from: usize| {
        let query = format!("digest={digest}");
        let range = format!("{from}-{}", bytes.len() - 1);
        client
            .request("PUT", &with_query(location, &query))
            .header("Content-Range", &range)
            .body(&bytes[from..])
            .send()
    };
    let first_chunk = |to: usize| {
        let taken = append(client, &begin(client), 0, &bytes[..to]).expect(202);
        taken.location()
    };
    let second_chunk = append(client, &first_chunk(half), half, &bytes[half..]).expect(202);
    let streamed = stream(client, "PATCH", &begin(client), OCTETS, bytes).expect(202);
    [
        post_alone(client, REPOSITORY, bytes, digest),
        last_chunk(&begin(client), 0),
        last_chunk(&first_chunk(half), half),
        finish(client, &first_chunk(bytes.len()), digest),
        finish(client, &second_chunk.location(), digest),
        finish(client, &streamed.location(), digest),
    ]
}

#[track_caller]
pub(crate) fn assert_there(client: &Client, path: &str, digest: &str, bytes: &[u8]) {
    let length = bytes.len().to_string();
    let (get, head) = (client.get(path).expect(200), client.head(path).expect(200));
    assert_eq!(get.body, bytes);
    for reply in [get, head] {
        assert_eq!(reply.header("Docker-Content-Digest"), Some(digest));
        assert_eq!(reply.header("Content-Length"), Some(length.as_str()));
    }
}

#[track_caller]
pub(crate) fn assert_deletable(client: &Client, path: &str) {
    client.delete(path).expect(202);
    client.head(path).expect(404);
    client.delete(path).expect(404);
}

#[test]
fn a_blob_is_known_by_the_digest_it_was_pushed_with_in_any_way() {
    let rig = Rig::start();
    let client = rig.client();
    for (seed, algorithm) in (70..).zip(ALGORITHMS) {
        let bytes = noise(seed, 3067);
        let digest = algorithm(&bytes);
        let path = blob_path(REPOSITORY, &digest);
        client.get(&path).expect(404);
        for created in every_way(&client, &bytes, &digest) {
            assert_stored(&client, &created, &bytes, &digest);
        }
        assert_there(&client, &path, &digest, &bytes);
        assert_deletable(&client, &path);
    }
}

#[test]
fn a_wrong_digest_is_400_in_any_way() {
    let rig = Rig::start();
    let client = rig.client();
    for (seed, algorithm) in (72..).zip(ALGORITHMS) {
        let mut bytes = noise(seed, 3067);
        let wrong = algorithm(&bytes);
        bytes.extend_from_slice(b"and more");
        for refused in every_way(&client, &bytes, &wrong) {
            refused.expect_error(400, "DIGEST_INVALID");
        }
        for digest in [wrong, algorithm(&bytes)] {
            client.head(&blob_path(REPOSITORY, &digest)).expect(404);
        }
    }
}

#[test]
fn an_upload_outlives_chunks_out_of_order_from_its_first_byte_to_its_last() {
    let rig = Rig::start();
    let client = rig.client();
    for (seed, algorithm) in (74..).zip(ALGORITHMS) {
        let bytes = noise(seed, 3067);
        let digest = algorithm(&bytes);
        let location = begin(&client);
        let put = with_query(&location, &format!("digest={digest}"));
        let chunk = |method: &str, path: &str, from: usize, to: usize| {
            client
                .request(method, path)
                .header("Content-Range", &format!("{from}-{}", to - 1))
                .body(&bytes[from..to])
                .send()
        };
        let misplaced = |method: &str, path: &str, from: usize, to: usize, has: &str| {
            let refused = chunk(method, path, from, to).expect(416);
            // The client asks at the very path it was refused at, parameters and all.
            let status = client.get(path).expect(204);
            for reply in [refused, status] {
                assert_eq!(reply.header("Range"), Some(has));
                assert_eq!(reply.location(), location);
            }
        };
        misplaced("PATCH", &location, 1024, 2048, "0-0");
        chunk("PATCH", &location, 0, 1024).expect(202);
        misplaced("PUT", &put, 2048, 3067, "0-1023");
        chunk("PATCH", &location, 1024, 2048).expect(202);
        misplaced("PATCH", &location, 0, 1024, "0-2047");
        let created = chunk("PUT", &put, 2048, 3067);
        assert_stored(&client, &created, &bytes, &digest);
    }
}

#[test]
fn a_blob_is_mounted_by_either_digest_from_one_repository_or_from_any() {
    let rig = Rig::start();
    let client = rig.client();
    for (seed, algorithm) in (76..).zip(ALGORITHMS) {
        let bytes = noise(seed, 512);
        let digest = algorithm(&bytes);
        let here = blob_path(REPOSITORY, &digest);
        let there = blob_path(OTHER, &digest);
        for from in [format!("&from={OTHER}"), String::new()] {
            let mount = format!("/v2/{REPOSITORY}/blobs/uploads/?mount={digest}{from}");
            // Nobody has it yet, so the client goes on and uploads it.
            let begun = client.post(&mount).expect(202).location();
            let put = with_query(&begun, &format!("digest={digest}"));
            let created = client.request("PUT", &put).body(bytes.clone()).send();
            assert_stored(&client, &created, &bytes, &digest);
            assert_deletable(&client, &here);

            push(&client, OTHER, &bytes, &digest);
            assert_stored(&client, &client.post(&mount), &bytes, &digest);
            assert_deletable(&client, &here);
            assert_there(&client, &there, &digest, &bytes);
            assert_deletable(&client, &there);
        }
    }
}

#[test]
fn what_everyone_pushes_can_be_deleted_and_pushed_again() {
    let rig = Rig::start();
    let client = rig.client();
    for algorithm in ALGORITHMS {
        for bytes in [b"".as_slice(), b"{}"] {
            let digest = algorithm(bytes);
            let path = blob_path(REPOSITORY, &digest);
            for _ in 0..2 {
                let put = with_query(&begin(&client), &format!("digest={digest}"));
                let created = client.request("PUT", &put).body(bytes).send();
                assert_stored(&client, &created, bytes, &digest);
                push(&client, REPOSITORY, bytes, &digest);
                assert_there(&client, &path, &digest, bytes);
                assert_deletable(&client, &path);
            }
        }
    }
}

#[test]
fn the_algorithm_named_at_the_beginning_binds_nobody() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(78, 3067);
    let begin = |algorithm: &str| {
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest-algorithm={algorithm}");
        client.post(&path)
    };
    for algorithm in ALGORITHMS {
        for name in ["sha256", "sha512"] {
            let digest = algorithm(&bytes);
            let location = begin(name).expect(202).location();
            append(&client, &location, 0, &bytes).expect(202);
            let created = finish(&client, &location, &digest);
            assert_stored(&client, &created, &bytes, &digest);
        }
    }
    begin("md5").expect_error(400, "DIGEST_INVALID");
}
