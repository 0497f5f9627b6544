//! Endpoints that are none, bodies that nobody wants, and the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::{Rig, sha256};
use crate::http::{bind, serve};

#[tokio::test]
async fn the_base_says_that_the_api_is_spoken() {
    let rig = Rig::new();
    insta::assert_snapshot!(rig.get("/v2/").await, @"
    200 OK
    content-length: 2
    content-type: application/json

    {}
    ");
    assert_eq!(rig.send("HEAD /v2/", "").await.status, 200);
    insta::assert_snapshot!(rig.get("/healthz").await, @"
    200 OK
    content-length: 3
    content-type: text/plain; charset=utf-8

    ok
    ");
}

#[tokio::test]
async fn what_names_nothing_gets_the_error_of_the_spec() {
    let rig = Rig::new();
    insta::assert_snapshot!(rig.get("/v2/a/nothing").await, @r#"
    404 Not Found
    content-length: 64
    content-type: application/json

    {"errors":[{"code":"UNSUPPORTED","message":"no such endpoint"}]}
    "#);
    for (path, status, code) in [
        ("/", 404, "UNSUPPORTED"),
        ("/v2/A/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/../b/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/manifests/.x", 400, "TAG_INVALID"),
        ("/v2/a/manifests/sha256:bad", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/bad", 400, "DIGEST_INVALID"),
    ] {
        let reply = rig.get(path).await;
        assert_eq!(
            (reply.status, reply.code()),
            (status, code.to_owned()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_method_that_an_endpoint_does_not_know_is_refused() {
    let rig = Rig::new();
    insta::assert_snapshot!(rig.send("DELETE /v2/a/tags/list", "").await, @r#"
    405 Method Not Allowed
    allow: GET, HEAD
    content-length: 71
    content-type: application/json

    {"errors":[{"code":"UNSUPPORTED","message":"method not allowed here"}]}
    "#);
    let digest = sha256(b"");
    for (path, allow) in [
        ("/v2/".to_owned(), "GET, HEAD"),
        ("/v2/_catalog".to_owned(), "GET, HEAD"),
        ("/v2/a/blobs/uploads/".to_owned(), "POST"),
        (format!("/v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("/v2/a/manifests/x".to_owned(), "GET, HEAD, PUT, DELETE"),
        (format!("/v2/a/referrers/{digest}"), "GET, HEAD"),
    ] {
        let reply = rig.send(&format!("BREW {path}"), "").await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some(allow)),
            "{path}"
        );
        assert_eq!(reply.code(), "UNSUPPORTED");
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_does_not_keep_the_reply_from_the_client() {
    let rig = Rig::new();
    let unknown = "/v2/a/blobs/uploads/6c3f62a0-0000-4000-8000-0123456789ab";
    // More than any buffer on the way, written to the end before the reply is read.
    let mut stream = rig.connect().await;
    let body = vec![0; 8 << 20];
    let head = format!(
        "PATCH {unknown} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    // The connection is good for the next request.
    stream
        .write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).await.unwrap();
    assert!(replies.starts_with("HTTP/1.1 404 Not Found"), "{replies}");
    assert!(replies.contains("HTTP/1.1 200 OK"), "{replies}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_before_it_sends() {
    let rig = Rig::new();
    let mut stream = rig.connect().await;
    let head = "PATCH /v2/a/blobs/uploads/6c3f62a0-0000-4000-8000-0123456789ab HTTP/1.1\r\nhost: x\r\n\
                content-length: 1000000\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = String::new();
    drop(stream.read_to_string(&mut reply).await);
    assert!(reply.starts_with("HTTP/1.1 404 Not Found"), "{reply}");
}

#[tokio::test]
async fn requests_under_way_finish_at_the_end_and_idle_connections_do_not_wait() {
    let mut rig = Rig::new();
    rig.stop().await;
    let listener = bind(&rig.app, &mut Vec::new()).unwrap();
    let path = rig.folder.path().join("sock");
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, Arc::clone(&rig.app), async {
        drop(stopped.await);
    }));
    let mut idle = UnixStream::connect(&path).await.unwrap();
    idle.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let silent = UnixStream::connect(&path).await.unwrap();

    let digest = sha256(b"0123456789");
    let mut slow = UnixStream::connect(&path).await.unwrap();
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n01234"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    super::eventually("the push to have begun", || {
        rig.count("repositories/a/_uploads") == 2
    })
    .await;

    stop.send(()).unwrap();
    super::eventually("the socket to be closed", || {
        std::os::unix::net::UnixStream::connect(&path).is_err()
    })
    .await;
    // A request that was on its way on a connection that stands is answered, as the last one there.
    idle.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut last = String::new();
    idle.read_to_string(&mut last).await.unwrap();
    let (_rest, last) = last.split_once("HTTP/1.1 200 OK").expect(&last);
    assert!(last.contains("connection: close"), "{last}");
    assert!(!server.is_finished());
    slow.write_all(b"56789").await.unwrap();
    let mut reply = String::new();
    slow.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 201 Created"), "{reply}");
    let ended = tokio::time::timeout(Duration::from_secs(20), server).await;
    ended.expect("the server ends").unwrap().unwrap();
    drop(silent);
}

#[tokio::test]
async fn the_end_does_not_wait_longer_than_configured() {
    let mut rig = Rig::new();
    rig.stop().await;
    let mut config = rig.app.settings().config.clone();
    config.drain_timeout = Duration::from_millis(50);
    rig.app.change(config);
    let listener = bind(&rig.app, &mut Vec::new()).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, Arc::clone(&rig.app), async {
        drop(stopped.await);
    }));
    let mut slow = UnixStream::connect(rig.folder.path().join("sock"))
        .await
        .unwrap();
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n01234",
        sha256(b"")
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    super::eventually("the push to have begun", || {
        rig.count("repositories/a/_uploads") == 2
    })
    .await;
    stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), server).await;
    ended.expect("the server ends").unwrap().unwrap();
}
