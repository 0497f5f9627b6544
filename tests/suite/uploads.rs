//! Uploads in every way the spec and the real clients know.

use crate::harness::{
    Client, Response, Rig, digest, digest512, eventually, noise, push_blob, with_query,
};

pub(crate) const REPOSITORY: &str = "team/app";

pub(crate) fn begin(client: &Client) -> String {
    client
        .post(&format!("/v2/{REPOSITORY}/blobs/uploads/"))
        .expect(202)
        .location()
}

pub(crate) fn append(client: &Client, location: &str, from: usize, bytes: &[u8]) -> Response {
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

pub(crate) fn finish(client: &Client, location: &str, digest: &str) -> Response {
    client
        .request("PUT", &with_query(location, &format!("digest={digest}")))
        .send()
}

pub(crate) fn blob(client: &Client, digest: &str) -> Response {
    client.get(&format!("/v2/{REPOSITORY}/blobs/{digest}"))
}

/// Where an upload stands, as the number of bytes it has.
pub(crate) fn offset(client: &Client, location: &str) -> usize {
    let status = client.get(location).expect(204);
    match status
        .header("Range")
        .and_then(|range| range.strip_prefix("0-"))
    {
        // What clients are told of nothing, since docker's old one cannot take an empty range.
        None | Some("0") => 0,
        Some(last) => last.parse::<usize>().unwrap() + 1,
    }
}

#[track_caller]
pub(crate) fn assert_stored(client: &Client, created: &Response, bytes: &[u8], digest: &str) {
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.header("Docker-Content-Digest"), Some(digest));
    let stored = client.get(&created.location()).expect(200);
    assert_eq!(stored.body, bytes);
}

#[test]
fn an_expectation_that_nobody_knows_keeps_nobody_waiting() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(2, 300_000);
    let target = with_query(&begin(&client), &format!("digest={}", digest(&bytes)));
    let request = client.request("PUT", &target);
    let request = request.header("Expect", "a miracle");
    request.body(bytes.as_slice()).send().expect(201);
    assert_eq!(blob(&client, &digest(&bytes)).expect(200).body, bytes);
}

#[test]
fn who_goes_away_instead_of_sending_what_was_wanted_was_not_answered() {
    let rig = Rig::start();
    let client = rig.client();
    let request = client.request("PATCH", &begin(&client));
    let request = request.header("Expect", "100-continue");
    let asked = request.header("Content-Length", "10").open().unwrap();
    drop(asked);
    eventually("a line about it", || {
        rig.edge_lines(&["method=\"PATCH\"", "status=499"]).pop()
    });
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
fn a_session_may_be_told_its_algorithm_from_the_start() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(17, 70_000);
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest-algorithm=sha512");
    let location = client.post(&path).expect(202).location();
    let location = append(&client, &location, 0, &bytes).expect(202).location();
    let created = finish(&client, &location, &digest512(&bytes));
    assert_stored(&client, &created, &bytes, &digest512(&bytes));
}
