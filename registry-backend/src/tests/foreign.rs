//! Manifests that others have stored: what cannot be pushed is served, listed and deleted all the same.

use serde_json::{Value, json};

use super::{INDEX, MANIFEST, Rig, descriptor, image, push_foreign, sha256};

const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// Manifests of every kind that cannot be pushed, each with the media type that it is served with.
fn odd() -> Vec<(Value, &'static str)> {
    let layer = json!({ "blobSum": sha256(b"a layer") });
    let schema1 = json!({
        "schemaVersion": 1, "name": "a", "tag": "v1", "architecture": "amd64",
        "fsLayers": [layer], "history": [{ "v1Compatibility": "{}" }],
    });
    let mut signed = schema1.clone();
    signed["signatures"] = json!([{ "signature": "x", "protected": "y" }]);
    let mut no_layers = image("no layers");
    no_layers.as_object_mut().unwrap().remove("layers");
    let mut no_config = image("no config");
    no_config.as_object_mut().unwrap().remove("config");
    let mut both = image("both");
    both["manifests"] = json!([]);
    let bad = json!([{ "digest": "md5:0", "size": -1 }, "text", null]);
    vec![
        (schema1, SCHEMA1),
        (signed, SCHEMA1_SIGNED),
        (json!({ "mediaType": ARTIFACT, "blobs": [] }), ARTIFACT),
        (no_layers, MANIFEST),
        (no_config, MANIFEST),
        (both, MANIFEST),
        (json!({ "schemaVersion": 2, "manifests": bad }), INDEX),
        (
            json!({ "mediaType": INDEX, "manifests": bad, "schemaVersion": "2" }),
            INDEX,
        ),
        (
            json!({ "mediaType": "application/vnd.unheard+json" }),
            "application/vnd.unheard+json",
        ),
    ]
}

/// Tags a manifest of the repository `a` as `registry:2` does.
fn tag_foreign(rig: &Rig, tag: &str, manifest: &str) {
    let link = format!("repositories/a/_manifests/tags/{tag}/current/link");
    let link = rig.path(&link);
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::fs::write(link, sha256(manifest.as_bytes()).to_string()).unwrap();
}

#[tokio::test]
async fn what_cannot_be_pushed_is_served_and_deleted() {
    let rig = Rig::new();
    for (manifest, media_type) in odd() {
        let text = manifest.to_string();
        let digest = sha256(text.as_bytes());
        let put = format!("PUT /v2/a/manifests/v1\ncontent-type: {media_type}");
        let refused = rig.send(&put, &text).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, "MANIFEST_INVALID".to_owned()),
            "{text}"
        );

        push_foreign(&rig.path(""), &text);
        tag_foreign(&rig, "v1", &text);
        for reference in ["v1".to_owned(), digest.to_string()] {
            let path = format!("/v2/a/manifests/{reference}");
            let reply = rig.get(&path).await;
            assert_eq!(reply.status, 200, "{text}: {reply}");
            assert_eq!(reply.body, text.as_bytes());
            let head = rig.send(&format!("HEAD {path}"), "").await;
            for reply in [&reply, &head] {
                assert_eq!(reply.header("content-type"), Some(media_type));
                let named = digest.to_string();
                assert_eq!(reply.header("docker-content-digest"), Some(named.as_str()));
                let tag = format!("\"{digest}\"");
                assert_eq!(reply.header("etag"), Some(tag.as_str()));
            }
        }
        let tags = rig.get("/v2/a/tags/list").await.json();
        assert_eq!(tags["tags"], json!(["v1"]));

        let delete = format!("DELETE /v2/a/manifests/{digest}");
        assert_eq!(rig.send(&delete, "").await.status, 202);
        assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 404);
        let tags = rig.get("/v2/a/tags/list").await.json();
        assert_eq!(tags["tags"], json!([]));
    }
}

#[tokio::test]
async fn an_artifact_manifest_is_a_referrer_of_its_subject() {
    let rig = Rig::new();
    let subject = descriptor(MANIFEST, b"an image");
    let artifact = json!({
        "mediaType": ARTIFACT, "artifactType": "application/vnd.sbom", "blobs": [],
        "subject": subject, "annotations": { "note": "1" },
    })
    .to_string();
    push_foreign(&rig.path(""), &artifact);
    let path = format!("/v2/a/referrers/{}", sha256(b"an image"));
    for _again in 0..2 {
        let listed = rig.get(&path).await.json();
        let mut entry = descriptor(ARTIFACT, artifact.as_bytes());
        entry["artifactType"] = json!("application/vnd.sbom");
        entry["annotations"] = json!({ "note": "1" });
        assert_eq!(listed["manifests"], json!([entry]));
    }
}

#[tokio::test]
async fn an_index_of_referrers_from_before_all_kinds_were_understood_is_made_anew() {
    let rig = Rig::new();
    let path = format!("/v2/a/referrers/{}", sha256(b"an image"));
    let artifact = json!({
        "mediaType": ARTIFACT, "blobs": [], "subject": descriptor(MANIFEST, b"an image"),
    });
    push_foreign(&rig.path(""), &artifact.to_string());
    let count = async || {
        let listed = rig.get(&path).await.json();
        listed["manifests"].as_array().unwrap().len()
    };
    assert_eq!(count().await, 1);
    // As it was: complete by its stamp, and without the entry.
    let mut forgotten = 0;
    for file in files_below(&rig.path("_tidegate")) {
        let text = std::fs::read_to_string(&file).unwrap();
        if let Some(old) = text.strip_prefix("v2 ") {
            std::fs::write(&file, old).unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
            forgotten += 1;
        }
    }
    assert_eq!(forgotten, 1);
    assert_eq!(count().await, 1);
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

#[tokio::test]
async fn what_is_no_json_object_stays_absent() {
    let rig = Rig::new();
    for text in ["", "not JSON", "[]", "null", "{\"schemaVersion\":2"] {
        push_foreign(&rig.path(""), text);
        tag_foreign(&rig, "v1", text);
        let reply = rig.get("/v2/a/manifests/v1").await;
        assert_eq!(
            (reply.status, reply.code()),
            (404, "MANIFEST_UNKNOWN".to_owned()),
            "{text}"
        );
    }
}
