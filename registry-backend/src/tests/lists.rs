//! Lists: tags, repositories, referrers.

use serde_json::{Value, json};

use super::{MANIFEST, Rig, image, push_foreign, referrer, sha256};

#[tokio::test]
async fn tags_are_listed_in_order_and_in_pages() {
    let rig = Rig::new();
    rig.push_image("a/b", "v1", &image("1")).await;
    for tag in ["v10", "V1", "_x", "latest"] {
        rig.put_manifest("a/b", tag, &image("1")).await;
    }
    insta::assert_snapshot!(rig.get("/v2/a/b/tags/list").await, @r#"
    200 OK
    content-length: 53
    content-type: application/json

    {"name":"a/b","tags":["V1","_x","latest","v1","v10"]}
    "#);
    insta::assert_snapshot!(rig.get("/v2/a/b/tags/list?n=2").await, @r#"
    200 OK
    content-length: 33
    content-type: application/json
    link: </v2/a/b/tags/list?n=2&last=_x>; rel="next"

    {"name":"a/b","tags":["V1","_x"]}
    "#);
    let last = rig.get("/v2/a/b/tags/list?n=2&last=v1").await;
    assert_eq!(
        (last.header("link"), last.json()["tags"].clone()),
        (None, json!(["v10"]))
    );
    let exact = rig.get("/v2/a/b/tags/list?n=5").await;
    assert_eq!(
        (
            exact.header("link"),
            exact.json()["tags"].as_array().unwrap().len()
        ),
        (None, 5)
    );
    let most = rig
        .get(&format!("/v2/a/b/tags/list?n={}", usize::MAX))
        .await;
    assert_eq!(most.json(), rig.get("/v2/a/b/tags/list").await.json());
    let none = rig.get("/v2/a/b/tags/list?n=0").await;
    assert_eq!(
        (none.header("link"), none.json()["tags"].clone()),
        (None, json!([]))
    );
}

#[tokio::test]
async fn a_page_of_no_size_is_refused() {
    let rig = Rig::new();
    rig.push_image("a", "v1", &image("1")).await;
    insta::assert_snapshot!(rig.get("/v2/a/tags/list?n=-1").await, @r#"
    400 Bad Request
    content-length: 108
    content-type: application/json

    {"errors":[{"code":"PAGINATION_NUMBER_INVALID","message":"the parameter \"n\" must be a number from 0 on"}]}
    "#);
    for path in [
        "/v2/a/tags/list?n=many",
        "/v2/_catalog?n=",
        "/v2/_catalog?n=1e3",
    ] {
        let reply = rig.get(path).await;
        assert_eq!(
            (reply.status, reply.code()),
            (400, "PAGINATION_NUMBER_INVALID".to_owned())
        );
    }
}

#[tokio::test]
async fn the_tags_of_nothing_are_unknown() {
    let rig = Rig::new();
    insta::assert_snapshot!(rig.get("/v2/a/tags/list").await, @r#"
    404 Not Found
    content-length: 112
    content-type: application/json

    {"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to the registry","detail":{"name":"a"}}]}
    "#);
    rig.push_blob("a", b"a blob alone").await;
    assert_eq!(
        rig.get("/v2/a/tags/list").await.json(),
        json!({ "name": "a", "tags": [] })
    );
}

#[tokio::test]
async fn repositories_are_listed_in_pages() {
    let rig = Rig::new();
    for repository in ["b", "a/b", "a"] {
        rig.push_image(repository, "v1", &image("1")).await;
    }
    insta::assert_snapshot!(rig.get("/v2/_catalog").await, @r#"
    200 OK
    content-length: 32
    content-type: application/json

    {"repositories":["a","a/b","b"]}
    "#);
    insta::assert_snapshot!(rig.get("/v2/_catalog?n=2").await, @r#"
    200 OK
    content-length: 28
    content-type: application/json
    link: </v2/_catalog?n=2&last=a%2Fb>; rel="next"

    {"repositories":["a","a/b"]}
    "#);
    assert_eq!(
        rig.get("/v2/_catalog?n=2&last=a%2Fb").await.json(),
        json!({ "repositories": ["b"] })
    );
}

#[tokio::test]
async fn only_what_the_edge_lets_see_is_listed_and_pages_stay_full() {
    let rig = Rig::new();
    for repository in ["a", "b/secret", "b/x", "c"] {
        rig.push_image(repository, "v1", &image("1")).await;
    }
    let list = async |path: &str, visible: &str| {
        let head = format!("GET /v2/_catalog{path}\nx-tidegate-catalog: {visible}");
        rig.send(&head, "").await
    };
    insta::assert_snapshot!(list("?n=2", "-b/secret,+**").await, @r#"
    200 OK
    content-length: 28
    content-type: application/json
    link: </v2/_catalog?n=2&last=b%2Fx>; rel="next"

    {"repositories":["a","b/x"]}
    "#);
    for (path, visible, expected) in [
        ("", "-b/secret,+**", json!(["a", "b/x", "c"])),
        ("?n=3", "-b/secret,+**", json!(["a", "b/x", "c"])),
        ("?n=1&last=a", "-b/secret,+**", json!(["b/x"])),
        ("?n=1&last=b/secret", "-b/secret,+**", json!(["b/x"])),
        ("?n=1", "+b/x", json!(["b/x"])),
        ("?n=0", "+b/x", json!([])),
        ("", "-**", json!([])),
        ("", "", json!([])),
        ("", "everything", json!([])),
        ("", "+**, +a", json!([])),
    ] {
        let listed = list(path, visible).await;
        assert_eq!(listed.json()["repositories"], expected, "{path} {visible}");
        let link = listed.header("link").unwrap_or_default();
        assert!(!link.contains("secret"), "{path} {visible}: {link}");
    }
    for whole in ["", "?n=3"] {
        assert_eq!(list(whole, "-b/secret,+**").await.header("link"), None);
    }
}

#[tokio::test]
async fn nothing_has_no_referrers() {
    let rig = Rig::new();
    let path = format!("/v2/a/referrers/{}", sha256(b"nothing"));
    insta::assert_snapshot!(rig.get(&path).await, @r#"
    200 OK
    content-length: 88
    content-type: application/vnd.oci.image.index.v1+json

    {"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}
    "#);
    assert_eq!(rig.count("_tidegate"), 0);
    let bad = rig.get("/v2/a/referrers/sha256:abc").await;
    assert_eq!((bad.status, bad.code()), (400, "DIGEST_INVALID".to_owned()));
}

/// A repository with an image and two manifests that refer to it; and the path of the list.
async fn rig_with_referrers() -> (Rig, String) {
    let rig = Rig::new();
    let digest = rig.push_image("a", "v1", &image("1")).await;
    let path = format!("/v2/a/referrers/{digest}");
    for artifact_type in [Some("application/x.signature"), None] {
        let manifest = referrer(&image("1"), artifact_type).to_string();
        let reference = sha256(manifest.as_bytes());
        let head = format!("PUT /v2/a/manifests/{reference}\ncontent-type: {MANIFEST}");
        let reply = rig.send(&head, &manifest).await;
        assert_eq!(
            reply.header("oci-subject"),
            Some(digest.to_string().as_str())
        );
        // The first query makes the index, which the next push then keeps.
        assert_eq!(rig.get(&path).await.status, 200);
    }
    (rig, path)
}

fn types(reply: &super::Reply) -> Vec<Value> {
    let json = reply.json();
    let manifests = json["manifests"].as_array().unwrap();
    let mut types: Vec<Value> = manifests
        .iter()
        .map(|m| m["artifactType"].clone())
        .collect();
    types.sort_by_key(ToString::to_string);
    types
}

#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let (rig, path) = rig_with_referrers().await;
    let all = [
        json!("application/vnd.oci.image.config.v1+json"),
        json!("application/x.signature"),
    ];
    assert_eq!(types(&rig.get(&path).await), all);
    let filtered = rig
        .get(&format!("{path}?artifactType=application%2Fx.signature"))
        .await;
    insta::assert_snapshot!(filtered, @r#"
    200 OK
    content-length: 330
    content-type: application/vnd.oci.image.index.v1+json
    oci-filters-applied: artifactType

    {"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:7db88446f0dfc2c11151ce02cfcabc7dd9274281657300fb7e44a72b4502845d","size":646,"artifactType":"application/x.signature","annotations":{"note":"application/x.signature"}}],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}
    "#);
    let none = rig.get(&format!("{path}?artifactType=x")).await;
    assert_eq!(
        (none.header("oci-filters-applied"), types(&none)),
        (Some("artifactType"), vec![])
    );
}

#[tokio::test]
async fn a_deleted_referrer_is_no_longer_listed_and_comes_back_when_pushed() {
    let (rig, path) = rig_with_referrers().await;
    let manifest = referrer(&image("1"), Some("application/x.signature"));
    let digest = sha256(manifest.to_string().as_bytes());
    rig.send(&format!("DELETE /v2/a/manifests/{digest}"), "")
        .await;
    assert_eq!(types(&rig.get(&path).await).len(), 1);
    rig.put_manifest("a", "again", &manifest).await;
    assert_eq!(types(&rig.get(&path).await).len(), 2);
}

#[tokio::test]
async fn the_index_of_referrers_is_kept_and_not_made_anew() {
    let (rig, path) = rig_with_referrers().await;
    // An index that is complete is believed: what is taken out of it is missed.
    let entries = rig.path("_tidegate/repositories/a/_referrers/sha256");
    assert_eq!(rig.count("_tidegate/repositories/a/_referrers/sha256"), 2);
    rig.put_manifest("a", "unrelated", &image("2")).await;
    std::fs::remove_dir_all(&entries).unwrap();
    assert_eq!(types(&rig.get(&path).await).len(), 0);
}

#[tokio::test]
async fn a_lost_or_broken_index_of_referrers_is_made_anew() {
    let (mut rig, path) = rig_with_referrers().await;
    let whole = rig.get(&path).await.to_string();
    let index = rig.path("_tidegate/repositories/a/_referrers");

    std::fs::remove_dir_all(&index).unwrap();
    assert_eq!(rig.get(&path).await.to_string(), whole);
    assert_eq!(rig.count("_tidegate/repositories/a/_referrers"), 3);

    std::fs::write(index.join("stamp"), "").unwrap();
    std::fs::remove_dir_all(index.join("sha256")).unwrap();
    assert_eq!(rig.get(&path).await.to_string(), whole);

    let signature = referrer(&image("1"), Some("application/x.signature")).to_string();
    let (subject, hex) = (
        path.rsplit(':').next().unwrap(),
        sha256(signature.as_bytes()),
    );
    let entry = index.join(format!("sha256/{subject}/sha256/{}", hex.hex()));
    std::fs::write(&entry, "torn").unwrap();
    assert_eq!(rig.get(&path).await.to_string(), whole);

    std::fs::remove_dir_all(rig.path("_tidegate")).unwrap();
    rig.restart().await;
    assert_eq!(rig.get(&path).await.to_string(), whole);
}

#[tokio::test]
async fn a_referrer_that_someone_else_pushed_is_found() {
    let (rig, path) = rig_with_referrers().await;
    let manifest = referrer(&image("1"), Some("application/x.foreign")).to_string();
    push_foreign(&rig.path(""), &manifest);
    assert_eq!(types(&rig.get(&path).await).len(), 3);
}

#[tokio::test]
async fn a_deleted_referrer_that_someone_else_puts_back_is_found() {
    let (rig, path) = rig_with_referrers().await;
    let manifest = referrer(&image("1"), Some("application/x.signature")).to_string();
    let digest = sha256(manifest.as_bytes());
    rig.send(&format!("DELETE /v2/a/manifests/{digest}"), "")
        .await;
    // An index made since does not know of it.
    std::fs::remove_dir_all(rig.path("_tidegate/repositories/a/_referrers")).unwrap();
    assert_eq!(types(&rig.get(&path).await).len(), 1);
    push_foreign(&rig.path(""), &manifest);
    assert_eq!(types(&rig.get(&path).await).len(), 2);
}

#[tokio::test]
async fn large_referrers_come_in_pages() {
    let (rig, path) = rig_with_referrers().await;
    for note in ["1", "2", "3"] {
        let mut manifest = referrer(&image("1"), Some("application/x+large"));
        manifest["annotations"]["note"] = json!(note.repeat(2_000_000));
        rig.put_manifest("a", note, &manifest).await;
    }
    let mut next = Some(format!("{path}?artifactType=application%2Fx%2Blarge"));
    let mut sizes = Vec::new();
    let mut digests = Vec::new();
    // From an index made anew, and then from the one that is kept.
    std::fs::remove_dir_all(rig.path("_tidegate/repositories/a/_referrers")).unwrap();
    while let Some(path) = next {
        let reply = rig.get(&path).await;
        assert_eq!(reply.header("oci-filters-applied"), Some("artifactType"));
        let manifests = reply.json()["manifests"].as_array().unwrap().clone();
        sizes.push(manifests.len());
        digests.extend(manifests.iter().map(|m| m["digest"].to_string()));
        next = reply.header("link").map(|link| {
            assert!(link.contains("?artifactType=application%2Fx%2Blarge&last=sha256%3A"));
            let target = link.strip_prefix('<').unwrap();
            target.strip_suffix(">; rel=\"next\"").unwrap().to_owned()
        });
    }
    assert_eq!(sizes, [2, 1]);
    digests.dedup();
    assert_eq!(digests.len(), 3);
    assert!(digests.is_sorted());
}
