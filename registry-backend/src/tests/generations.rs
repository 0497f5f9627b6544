//! Two processes on one tree, as while one takes over from the other.

use std::sync::Arc;
use std::time::Duration;

use oci::{RepositoryName, UploadId};
use tokio::time::timeout;

use super::{Rig, sha256};
use crate::app::App;
use crate::config::Config;
use crate::registry::Registry;
use crate::storage::Filesystem;

/// Serves the tree of `rig` a second time, on a socket of its own, as a successor would.
struct Successor {
    app: Arc<App>,
    server: tokio::task::JoinHandle<Result<(), crate::Error>>,
}

impl Successor {
    fn of(rig: &Rig) -> Self {
        let config = rig.app.settings().config.clone();
        let config = Config {
            listen: rig.folder.path().join("successor.sock"),
            ..config
        };
        let driver = Filesystem::open(&config.root, config.direct_io).unwrap();
        let app = App::new(config, Registry::new(Box::new(driver)));
        let server = Rig::serve(&app);
        Self { app, server }
    }

    async fn send(&self, head: &str, body: impl AsRef<[u8]>) -> super::Reply {
        let path = &self.app.settings().config.listen;
        let stream = tokio::net::UnixStream::connect(path).await.unwrap();
        Rig::ask(stream, head, body.as_ref()).await
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Begins an upload at `rig`; returns its place.
async fn begin(rig: &Rig) -> String {
    let begun = rig.send("POST /v2/a/blobs/uploads/", "").await;
    begun.header("location").unwrap().to_owned()
}

#[tokio::test]
async fn an_upload_goes_on_in_the_successor_and_back() {
    let rig = Rig::new();
    let successor = Successor::of(&rig);
    let place = begin(&rig).await;
    let patch = |range: &str| format!("PATCH {place}\ncontent-range: {range}");
    assert_eq!(rig.send(&patch("0-3"), "0123").await.status, 202);
    assert_eq!(successor.send(&patch("4-6"), "456").await.status, 202);
    // What this one remembers of the hash is older than the bytes.
    assert_eq!(rig.send(&patch("7-9"), "789").await.status, 202);
    let digest = sha256(b"0123456789");
    let put = format!("PUT {place}?digest={digest}");
    assert_eq!(successor.send(&put, "").await.status, 201);
    let get = format!("GET /v2/a/blobs/{digest}");
    assert_eq!(rig.send(&get, "").await.body, b"0123456789");
    assert_eq!(rig.send(&put, "").await.status, 404);
}

#[tokio::test]
async fn a_request_waits_for_the_upload_that_the_other_process_writes_to() {
    let rig = Rig::new();
    let successor = Successor::of(&rig);
    let place = begin(&rig).await;
    let name: RepositoryName = "a".parse().unwrap();
    let id = place.rsplit('/').next().unwrap().split('?').next().unwrap();
    let id: UploadId = id.parse().unwrap();
    let claim = rig.app.registry.claim_upload(&name, &id).await.unwrap();
    let mut append = claim.open(None).unwrap();
    append.write(b"01234").unwrap();
    let patch = format!("PATCH {place}\ncontent-range: 5-9");
    let mut waiting = Box::pin(successor.send(&patch, "56789"));
    assert!(
        timeout(Duration::from_millis(300), &mut waiting)
            .await
            .is_err(),
        "it waits"
    );
    // Nor is the upload taken for one that nobody goes on with.
    let in_a_year = std::time::SystemTime::now() + Duration::from_secs(365 * 86_400);
    let expired = successor.app.registry.expire_uploads(in_a_year).unwrap();
    assert_eq!(expired, 0);
    drop(append);
    assert_eq!(waiting.await.status, 202);
    let digest = sha256(b"0123456789");
    let put = format!("PUT {place}?digest={digest}");
    assert_eq!(rig.send(&put, "").await.status, 201);
}

#[tokio::test]
async fn a_hash_that_ran_ahead_of_the_file_is_forgotten_when_another_process_has_written() {
    let rig = Rig::new();
    let successor = Successor::of(&rig);
    let place = begin(&rig).await;
    let name: RepositoryName = "a".parse().unwrap();
    let id = place.rsplit('/').next().unwrap().split('?').next().unwrap();
    let id: UploadId = id.parse().unwrap();
    let claim = rig.app.registry.claim_upload(&name, &id).await.unwrap();
    let mut append = claim.open(None).unwrap();
    append.write(b"01234").unwrap();
    // A body that is cut off when some of it was hashed and not written.
    let (mut hashing, writing) = append.apart();
    hashing.update(b"xx");
    drop((hashing, writing));
    let patch = format!("PATCH {place}\ncontent-range: 5-9");
    assert_eq!(successor.send(&patch, "56789").await.status, 202);
    let wrong = sha256(b"01234xx789");
    let put = |digest| format!("PUT {place}?digest={digest}");
    let digest = sha256(b"0123456789");
    assert_eq!(rig.send(&put(digest.clone()), "").await.status, 201);
    assert_eq!(rig.send(&put(wrong), "").await.status, 404);
}

#[tokio::test]
async fn changes_of_a_repository_wait_for_those_of_the_other_process() {
    let rig = Rig::new();
    let successor = Successor::of(&rig);
    let layer = sha256(b"layer");
    let post = format!("POST /v2/a/blobs/uploads/?digest={layer}");
    assert_eq!(rig.send(&post, "layer").await.status, 201);
    let name: RepositoryName = "a".parse().unwrap();
    let lock = rig.app.registry.lock(&name).await.unwrap();
    let change = "DELETE /v2/a/manifests/none";
    let mut waiting = Box::pin(successor.send(change, ""));
    assert!(
        timeout(Duration::from_millis(300), &mut waiting)
            .await
            .is_err(),
        "it waits"
    );
    let other = successor.send("DELETE /v2/b/manifests/none", "").await;
    assert_eq!(other.status, 404, "another repository is free");
    drop(lock);
    assert_eq!(waiting.await.status, 404);
}
