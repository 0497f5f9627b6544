//! How many uploads may be open, and what makes room for others.

use super::{Rig, sha256};

/// A registry with limits for all, a repository and a principal.
fn rig(all: usize, repository: usize, principal: usize) -> Rig {
    let rig = Rig::new();
    change(&rig, all, repository, principal);
    rig
}

fn change(rig: &Rig, all: usize, repository: usize, principal: usize) {
    let mut config = rig.app.settings().config.clone();
    config.max_uploads = all;
    config.max_uploads_per_repository = repository;
    config.max_uploads_per_principal = principal;
    rig.app.change(config);
}

/// Begins an upload as a user; returns its path, or nothing where it is refused.
async fn begin(rig: &Rig, repository: &str, user: &str) -> Option<String> {
    let head = format!("POST /v2/{repository}/blobs/uploads/\nx-tidegate-user: {user}");
    let reply = rig.send(&head, "").await;
    match reply.status {
        202 => Some(reply.header("location").unwrap().to_owned()),
        429 => {
            assert_eq!(reply.code(), "TOOMANYREQUESTS");
            assert_eq!(reply.header("retry-after"), Some("60"));
            None
        }
        _ => panic!("{reply}"),
    }
}

#[tokio::test]
async fn each_limit_is_told_and_holds_for_its_own_alone() {
    let rig = rig(4, 3, 2);
    for _ in 0..2 {
        begin(&rig, "a", "eve").await.unwrap();
    }
    let refused = rig
        .send("POST /v2/b/blobs/uploads/\nx-tidegate-user: eve", "")
        .await;
    insta::assert_snapshot!(refused, @r#"
    429 Too Many Requests
    content-length: 112
    content-type: application/json
    retry-after: 60

    {"errors":[{"code":"TOOMANYREQUESTS","message":"too many uploads are open: 2 of yours; finish or cancel some"}]}
    "#);
    begin(&rig, "a", "ann").await.unwrap();
    let refused = rig
        .send("POST /v2/a/blobs/uploads/\nx-tidegate-user: ann", "")
        .await;
    insta::assert_snapshot!(refused, @r#"
    429 Too Many Requests
    content-length: 99
    content-type: application/json
    retry-after: 60

    {"errors":[{"code":"TOOMANYREQUESTS","message":"too many uploads are open: 3 in this repository"}]}
    "#);
    begin(&rig, "b", "ann").await.unwrap();
    let refused = rig.send("POST /v2/c/blobs/uploads/", "").await;
    insta::assert_snapshot!(refused, @r#"
    429 Too Many Requests
    content-length: 97
    content-type: application/json
    retry-after: 60

    {"errors":[{"code":"TOOMANYREQUESTS","message":"too many uploads are open: 4 in this registry"}]}
    "#);
    assert_eq!(rig.count("repositories/c"), 0);
    // A reload takes another limit on; without one there may be any number.
    change(&rig, 0, 0, 0);
    for _ in 0..9 {
        begin(&rig, "a", "eve").await.unwrap();
    }
}

#[tokio::test]
async fn an_upload_that_ends_makes_room_however_it_ends() {
    let rig = rig(0, 0, 1);
    let right = sha256(b"right");
    for end in [
        format!("PUT LOCATION?digest={right}\nx-tidegate-user: ann"),
        format!("PUT LOCATION?digest={}", sha256(b"wrong")),
        "DELETE LOCATION".to_owned(),
    ] {
        let location = begin(&rig, "a", "eve").await.unwrap();
        assert_eq!(begin(&rig, "a", "eve").await, None, "{end}");
        let end = end.replace("LOCATION", &location);
        let body: &[u8] = if end.starts_with("PUT") {
            b"right"
        } else {
            b""
        };
        rig.send(&end, body).await;
    }
    // A blob in one request is an upload only as long as that takes.
    for _ in 0..3 {
        let head = format!("POST /v2/a/blobs/uploads/?digest={right}\nx-tidegate-user: eve");
        assert_eq!(rig.send(&head, "right").await.status, 201);
        let head = format!("POST /v2/a/blobs/uploads/?digest={right}\nx-tidegate-user: eve");
        assert_eq!(rig.send(&head, "wrong").await.status, 400);
    }
    begin(&rig, "a", "eve").await.unwrap();
}

#[tokio::test]
async fn uploads_of_before_a_restart_count_once_they_are_seen() {
    let mut rig = rig(0, 3, 0);
    let first = begin(&rig, "a", "eve").await.unwrap();
    for _ in 0..2 {
        begin(&rig, "a", "eve").await.unwrap();
    }
    rig.restart().await;
    begin(&rig, "a", "eve").await.unwrap();
    // By a request of theirs, or by a look through the tree.
    assert_eq!(rig.send(&format!("PATCH {first}"), "x").await.status, 202);
    begin(&rig, "a", "eve").await.unwrap();
    assert_eq!(begin(&rig, "a", "eve").await, None);
    let id = first.rsplit('/').next().unwrap();
    std::fs::remove_dir_all(rig.path(&format!("repositories/a/_uploads/{id}"))).unwrap();
    let look = || {
        rig.app
            .registry
            .expire_uploads(std::time::SystemTime::UNIX_EPOCH)
    };
    assert_eq!(look().unwrap(), 0);
    assert_eq!(begin(&rig, "a", "eve").await, None, "four are there");
    std::fs::remove_dir_all(rig.path("repositories/a/_uploads")).unwrap();
    assert_eq!(look().unwrap(), 0);
    begin(&rig, "a", "eve").await.unwrap();
}
