//! Open files in the place of bodies.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use tokio::io::AsyncWriteExt as _;

use super::{Reply, Rig, receive};

const CONTENT: &[u8] = b"0123456789";

/// Sends a request that can do with a file; returns the reply, and the file if one came.
pub(super) async fn ask(rig: &Rig, path: &str, headers: &str) -> (Reply, Option<File>) {
    let mut stream = rig.connect().await;
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reply, mut file) = (Vec::new(), None);
    loop {
        let (bytes, files) = receive(&stream).await;
        for descriptor in files {
            assert!(file.is_none(), "one file is enough");
            file = Some(File::from(descriptor));
        }
        if bytes.is_empty() {
            return (Reply::parse(&reply), file);
        }
        reply.extend(bytes);
    }
}

#[tokio::test]
async fn who_can_take_a_file_gets_it_in_the_place_of_the_bytes() {
    let rig = Rig::new();
    let digest = rig.push_blob("a/b", CONTENT).await;
    let path = format!("/v2/a/b/blobs/{digest}");
    for (headers, status, part, bytes) in [
        ("", 200, "0-9", CONTENT),
        ("range: bytes=2-4\r\n", 206, "2-4", b"234"),
        ("range: bytes=-3\r\n", 206, "7-9", b"789"),
    ] {
        let headers = format!("x-tidegate-file: accept/2\r\n{headers}");
        let (reply, file) = ask(&rig, &path, &headers).await;
        assert_eq!(reply.status, status, "{reply}");
        assert_eq!(reply.header("x-tidegate-file"), Some(part));
        assert_eq!(reply.header("content-length"), Some("0"));
        assert!(reply.header("etag").is_some());
        assert!(reply.body.is_empty());
        let mut read = vec![0; bytes.len()];
        let first = part.split_once('-').unwrap().0.parse().unwrap();
        file.unwrap().read_exact_at(&mut read, first).unwrap();
        assert_eq!(read, bytes);
    }
}

#[tokio::test]
async fn everyone_else_and_every_other_reply_has_bytes() {
    let rig = Rig::new();
    let digest = rig.push_blob("a/b", CONTENT).await;
    let empty = rig.push_blob("a/b", b"").await;
    let path = format!("/v2/a/b/blobs/{digest}");
    for (path, headers, status) in [
        (&*path, "", 200),
        (&*path, "x-tidegate-file: yes\r\n", 200),
        (
            &*path,
            "x-tidegate-file: accept/2\r\nrange: bytes=0-0,4-5\r\n",
            206,
        ),
        (
            &*path,
            "x-tidegate-file: accept/2\r\nrange: bytes=99-\r\n",
            416,
        ),
        (
            &format!("/v2/a/b/blobs/{empty}"),
            "x-tidegate-file: accept/2\r\n",
            200,
        ),
        (
            "/v2/nothing/tags/list",
            "x-tidegate-file: accept/2\r\n",
            404,
        ),
        ("/v2/", "x-tidegate-file: accept/2\r\n", 200),
    ] {
        let (reply, file) = ask(&rig, path, headers).await;
        assert_eq!(reply.status, status, "{path} {headers}");
        assert!(file.is_none(), "{path} {headers}");
        assert_eq!(reply.header("x-tidegate-file"), None);
        let length: usize = reply.header("content-length").unwrap().parse().unwrap();
        assert_eq!(reply.body.len(), length, "{path} {headers}");
    }
}
