//! Whose turn it is: what waits for what, who is refused, and what becomes of those who go away.

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::{LAYER, MANIFEST, Rig, eventually, image, referrer, sha256};

fn name(name: &str) -> oci::RepositoryName {
    name.parse().unwrap()
}

/// Sends a manifest as a user, and does not wait for the reply.
async fn put(rig: &Rig, user: &str, path: &str, note: &str) -> UnixStream {
    let content = image(note).to_string();
    let mut stream = rig.connect().await;
    let request = format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\nx-tidegate-user: {user}\r\n\
         content-type: {MANIFEST}\r\ncontent-length: {}\r\n\r\n{content}",
        content.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_change_that_waits_is_given_up_with_its_client_and_leaves_no_trace() {
    let rig = Rig::new();
    rig.push_image("a", "v1", &image("1")).await;
    let name = name("a");
    let registry = &rig.app.registry;
    let lock = registry.lock(&name).await.unwrap();
    let gone = put(&rig, "eve", "/v2/a/manifests/gone", "2").await;
    eventually("it to wait", || registry.waiting_for_lock(&name) == 1).await;
    let stays = put(&rig, "eve", "/v2/a/manifests/stays", "3").await;
    eventually("both to wait", || registry.waiting_for_lock(&name) == 2).await;
    drop(gone);
    eventually("it to be given up", || {
        registry.waiting_for_lock(&name) == 1
    })
    .await;
    drop(lock);
    let (reply, _) = super::receive(&stays).await;
    assert!(reply.starts_with(b"HTTP/1.1 201"));
    assert_eq!(rig.get("/v2/a/manifests/gone").await.status, 404);
    assert_eq!(rig.get("/v2/a/manifests/stays").await.status, 200);
}

#[tokio::test]
async fn only_changes_of_manifests_wait_for_others_of_the_same_repository() {
    let rig = Rig::new();
    let digest = rig.push_image("a", "v1", &image("1")).await;
    let about = referrer(&image("1"), None);
    rig.put_manifest("a", "about", &about).await;
    let referrers = format!("/v2/a/referrers/{digest}");
    rig.get(&referrers).await;
    let name = name("a");
    let lock = rig.app.registry.lock(&name).await.unwrap();
    let waiting = put(&rig, "eve", "/v2/a/manifests/v2", "2").await;
    eventually("it to wait", || {
        rig.app.registry.waiting_for_lock(&name) == 1
    })
    .await;
    for path in [
        referrers.as_str(),
        "/v2/a/manifests/v1",
        "/v2/a/tags/list",
        "/v2/_catalog",
        &format!("/v2/a/blobs/{}", sha256(LAYER)),
        &format!("/v2/unknown/referrers/{digest}"),
    ] {
        assert_eq!(rig.get(path).await.status, 200, "{path}");
    }
    rig.push_blob("a", b"another layer").await;
    rig.push_image("b", "v1", &image("1")).await;
    assert_eq!(rig.app.registry.waiting_for_lock(&name), 1);
    drop(lock);
    let (reply, _) = super::receive(&waiting).await;
    assert!(reply.starts_with(b"HTTP/1.1 201"));
}

#[tokio::test]
async fn who_has_too_many_waiting_is_told_so_and_others_are_let_in() {
    let rig = Rig::new();
    rig.push_image("a", "v1", &image("1")).await;
    rig.push_image("b", "v1", &image("1")).await;
    let name = name("a");
    let lock = rig.app.registry.lock(&name).await.unwrap();
    let mut crowd = Vec::new();
    for _ in 0..272 {
        crowd.push(put(&rig, "eve", "/v2/a/manifests/v2", "2").await);
    }
    let one_more = async || {
        let head =
            format!("PUT /v2/b/manifests/v2\ncontent-type: {MANIFEST}\nx-tidegate-user: eve");
        rig.send(&head, image("3").to_string()).await
    };
    let refused = loop {
        // Not all of the crowd have been read at once.
        let reply = tokio::time::timeout(std::time::Duration::from_millis(50), one_more()).await;
        match reply {
            Ok(reply) if reply.status == 429 => break reply,
            _ => {}
        }
    };
    insta::assert_snapshot!(refused, @r#"
    429 Too Many Requests
    content-length: 105
    content-type: application/json
    retry-after: 5

    {"errors":[{"code":"TOOMANYREQUESTS","message":"too many of your requests are waiting for the storage"}]}
    "#);
    let head = format!("PUT /v2/b/manifests/v2\ncontent-type: {MANIFEST}\nx-tidegate-user: ann");
    assert_eq!(rig.send(&head, image("3").to_string()).await.status, 201);
    drop(lock);
    for waiting in &crowd {
        let (reply, _) = super::receive(waiting).await;
        assert!(reply.starts_with(b"HTTP/1.1 201"));
    }
    assert_eq!(one_more().await.status, 201);
}
