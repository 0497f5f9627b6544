//! Reading blobs: whole, in parts, conditionally; and deleting them.

use std::process::Command;

use crate::harness::{PASSWORD, Rig, USER, digest, need, noise, push_blob};

const REPOSITORY: &str = "team/app";

/// A registry with one blob of 10 000 bytes: its client, path and bytes.
fn with_a_blob() -> (Rig, String, Vec<u8>) {
    let rig = Rig::start();
    let bytes = noise(20, 10_000);
    let digest = push_blob(&rig.client(), REPOSITORY, &bytes);
    (rig, format!("/v2/{REPOSITORY}/blobs/{digest}"), bytes)
}

#[test]
fn a_blob_says_what_it_is_to_get_and_head_alike() {
    let (rig, path, bytes) = with_a_blob();
    let client = rig.client();

    let get = client.get(&path).expect(200);
    let head = client.head(&path).expect(200);

    assert_eq!(get.body, bytes);
    for reply in [&get, &head] {
        let digest = digest(&bytes);
        assert_eq!(reply.header("Content-Length"), Some("10000"));
        assert_eq!(reply.header("Docker-Content-Digest"), Some(digest.as_str()));
        assert_eq!(reply.header("ETag"), Some(format!("\"{digest}\"").as_str()));
        assert_eq!(reply.header("Accept-Ranges"), Some("bytes"));
        assert_eq!(
            reply.header("Content-Type"),
            Some("application/octet-stream")
        );
        assert_eq!(reply.header("Content-Encoding"), None);
    }
}

#[test]
fn content_encoding_is_never_touched() {
    let (rig, path, bytes) = with_a_blob();
    let reply = rig
        .client()
        .request("GET", &path)
        .header("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5")
        .send()
        .expect(200);
    assert_eq!(reply.header("Content-Encoding"), None);
    assert_eq!(reply.body, bytes);
}

#[test]
fn one_range_is_answered_with_that_part() {
    let (rig, path, bytes) = with_a_blob();
    for (range, from, to) in [
        ("bytes=500-1499", 500, 1499),
        ("bytes=500-", 500, 9999),
        ("bytes=-500", 9500, 9999),
        ("bytes=2000-50000", 2000, 9999),
        ("bytes=0-0", 0, 0),
        ("bytes=-50000", 0, 9999),
    ] {
        let reply = rig
            .client()
            .request("GET", &path)
            .header("Range", range)
            .send()
            .expect(206);
        let expected = format!("bytes {from}-{to}/10000");
        assert_eq!(
            reply.header("Content-Range"),
            Some(expected.as_str()),
            "{range}"
        );
        assert_eq!(reply.body, &bytes[from..=to], "{range}");
    }
}

#[test]
fn a_range_that_has_no_byte_is_416() {
    let (rig, path, _) = with_a_blob();
    for range in [
        "bytes=500-0",
        "bytes=10000-",
        "bytes=20000-30000",
        "bytes=-0",
    ] {
        let reply = rig
            .client()
            .request("GET", &path)
            .header("Range", range)
            .send()
            .expect(416);
        assert_eq!(
            reply.header("Content-Range"),
            Some("bytes */10000"),
            "{range}"
        );
    }
}

#[test]
fn a_range_of_another_kind_is_ignored() {
    let (rig, path, bytes) = with_a_blob();
    for range in ["lines=1-2", "bytes", "bytes=a-b"] {
        let reply = rig
            .client()
            .request("GET", &path)
            .header("Range", range)
            .send();
        if reply.status == 200 {
            assert_eq!(reply.body, bytes);
        } else {
            assert!(matches!(reply.status, 400 | 416), "{range}: {reply:?}");
        }
    }
}

#[test]
fn many_ranges_come_as_parts_in_the_order_asked() {
    let (rig, path, bytes) = with_a_blob();
    let reply = rig
        .client()
        .request("GET", &path)
        .header("Range", "bytes=9000-9099,0-9,-5,500-599")
        .send()
        .expect(206);

    let kind = reply.header("Content-Type").unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let length: usize = reply.header("Content-Length").unwrap().parse().unwrap();
    assert_eq!(reply.body.len(), length);
    let parts = parts(&reply.body, boundary.trim_matches('"'));
    let expected = [(9000, 9099), (0, 9), (9995, 9999), (500, 599)];
    assert_eq!(parts.len(), expected.len());
    for ((head, body), (from, to)) in parts.iter().zip(expected) {
        let range = format!("content-range: bytes {from}-{to}/10000");
        assert!(head.to_lowercase().contains(&range), "{head}");
        assert_eq!(body, &bytes[from..=to]);
    }
}

/// Splits a multipart body into heads and bodies.
fn parts(body: &[u8], boundary: &str) -> Vec<(String, Vec<u8>)> {
    let find = |from: usize, what: &[u8]| {
        body[from..]
            .windows(what.len())
            .position(|window| window == what)
            .map(|at| from + at)
    };
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut at = find(0, delimiter.as_bytes()).unwrap() + delimiter.len();
    while !body[at..].starts_with(b"--") {
        let head_end = find(at, b"\r\n\r\n").unwrap();
        let end = find(head_end, format!("\r\n{delimiter}").as_bytes()).unwrap();
        let head = String::from_utf8_lossy(&body[at..head_end]).into_owned();
        parts.push((head, body[head_end + 4..end].to_vec()));
        at = end + 2 + delimiter.len();
    }
    parts
}

#[test]
fn an_unchanged_blob_is_304() {
    let (rig, path, bytes) = with_a_blob();
    let client = rig.client();
    let tag = format!("\"{}\"", digest(&bytes));
    for condition in [
        tag.as_str(),
        "*",
        &format!("\"other\", {tag}"),
        &format!("W/{tag}"),
    ] {
        for method in ["GET", "HEAD"] {
            let request = client
                .request(method, &path)
                .header("If-None-Match", condition);
            let reply = request.send().expect(304);
            assert_eq!(reply.header("ETag"), Some(tag.as_str()));
        }
    }
    client
        .request("GET", &path)
        .header("If-None-Match", "\"other\"")
        .send()
        .expect(200);
}

#[test]
fn if_range_gives_the_whole_of_another_blob() {
    let (rig, path, bytes) = with_a_blob();
    let ask = |tag: &str| {
        let request = rig.client();
        request
            .request("GET", &path)
            .header("Range", "bytes=0-9")
            .header("If-Range", tag)
            .send()
    };
    assert_eq!(
        ask(&format!("\"{}\"", digest(&bytes))).expect(206).body,
        &bytes[..10]
    );
    assert_eq!(ask("\"sha256:other\"").expect(200).body, bytes);
}

#[test]
fn a_deleted_blob_is_gone_from_this_repository_alone() {
    let (rig, path, bytes) = with_a_blob();
    let client = rig.client();
    push_blob(&client, "other/place", &bytes);

    client.delete(&path).expect(202);

    client.get(&path).expect_error(404, "BLOB_UNKNOWN");
    client.head(&path).expect(404);
    client.delete(&path).expect_error(404, "BLOB_UNKNOWN");
    let elsewhere = format!("/v2/other/place/blobs/{}", digest(&bytes));
    assert_eq!(client.get(&elsewhere).expect(200).body, bytes);

    push_blob(&client, REPOSITORY, &bytes);
    client.get(&path).expect(200);
}

#[test]
fn a_blob_of_another_repository_is_unknown_here() {
    let (rig, path, _) = with_a_blob();
    let elsewhere = path.replace(REPOSITORY, "other/place");
    rig.client()
        .get(&elsewhere)
        .expect_error(404, "BLOB_UNKNOWN");
}

#[test]
fn malformed_digests_and_names_are_refused_with_their_code() {
    let rig = Rig::start();
    let client = rig.client();
    for bad in [
        "sha256:abc",
        "sha256:XYZ",
        "nothing",
        "sha256:",
        "sha256%3Aabc",
    ] {
        let reply = client.get(&format!("/v2/{REPOSITORY}/blobs/{bad}"));
        assert!(matches!(reply.status, 400 | 404), "{bad}: {reply:?}");
        assert_eq!(reply.error_code(), "DIGEST_INVALID", "{bad}");
    }
    let good = digest(b"x");
    for bad in ["UPPER", "-a", "a//b", "a/../b", "a__b__", &"a/".repeat(200)] {
        let reply = client.get(&format!("/v2/{bad}/blobs/{good}"));
        assert!(matches!(reply.status, 400 | 404), "{bad}: {reply:?}");
        assert_eq!(reply.error_code(), "NAME_INVALID", "{bad}");
    }
}

/// What was pushed past the page cache is read past it once, and through it from then on; and it is the
/// same each time, over either version and from anywhere.
#[test]
fn a_large_blob_is_the_same_whoever_reads_it_first() {
    need!("curl");
    let rig = Rig::start();
    let url = format!("https://{}", rig.name());
    for (seed, first) in [(1, 0), (2, 777), (3, 1 << 20), (4, 0)] {
        let content = noise(seed, (3 << 20) + 1234);
        let digest = push_blob(&rig.client(), REPOSITORY, &content);
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        let versions = ["--http1.1", "--http2"];
        for pull in 0..3 {
            let version = versions[(pull + usize::try_from(seed).unwrap()) % 2];
            let pulled = Command::new("curl")
                .args(["--silent", "--show-error", "--fail", version, "--cacert"])
                .arg(&rig.certificate.cert)
                .args(["--user", &format!("{USER}:{PASSWORD}")])
                .args(["--range", &format!("{first}-"), &format!("{url}{path}")])
                .output()
                .unwrap();
            assert!(pulled.status.success(), "pull {pull} of {seed}");
            assert!(pulled.stdout == content[first..], "pull {pull} of {seed}");
        }
    }
}
