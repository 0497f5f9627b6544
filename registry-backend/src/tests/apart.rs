//! Repositories share bytes and nothing else: what is in one is reached under its own name alone.

use serde_json::json;

use super::{CONFIG, INDEX, LAYER, MANIFEST, Rig, image, sha256};

#[tokio::test]
async fn nothing_of_a_repository_is_reached_through_another() {
    let rig = Rig::new();
    let manifest = rig.push_image("secret/app", "v1", &image("1")).await;
    let mut about = image("2");
    about["subject"] = json!({ "mediaType": MANIFEST, "digest": manifest, "size": 1 });
    rig.put_manifest("secret/app", "about", &about).await;
    let upload = rig.begin("secret/app").await;
    let id = upload.rsplit('/').next().unwrap();
    rig.push_image("secret/app/below", "other", &image("3"))
        .await;
    rig.push_image("secret", "other", &image("4")).await;
    for other in ["secret", "secret/app/below", "mine"] {
        if other != "mine" {
            for blob in [CONFIG, LAYER] {
                let path = format!("DELETE /v2/{other}/blobs/{}", sha256(blob));
                assert_eq!(rig.send(&path, "").await.status, 202);
            }
        }
        let layer = sha256(LAYER);
        for path in [
            "manifests/v1".to_owned(),
            format!("manifests/{manifest}"),
            format!("blobs/{manifest}"),
            format!("blobs/{layer}"),
            format!("blobs/uploads/{id}"),
        ] {
            for method in ["GET", "HEAD"] {
                let reply = rig.send(&format!("{method} /v2/{other}/{path}"), "").await;
                assert_eq!(reply.status, 404, "{method} {other} {path}");
            }
            let reply = rig.send(&format!("DELETE /v2/{other}/{path}"), "").await;
            assert_eq!(reply.status, 404, "DELETE {other} {path}");
        }
        for method in ["PATCH", "PUT"] {
            let path = format!("{method} /v2/{other}/blobs/uploads/{id}?digest={layer}");
            assert_eq!(rig.send(&path, LAYER).await.status, 404, "{method} {other}");
        }
        let referrers = rig.get(&format!("/v2/{other}/referrers/{manifest}")).await;
        assert_eq!(referrers.json()["manifests"], json!([]), "{other}");
    }
    let still = rig.send(&format!("GET {upload}"), "").await;
    assert_eq!(still.status, 204);
}

#[tokio::test]
async fn to_name_a_blob_or_a_manifest_is_not_to_have_it() {
    let rig = Rig::new();
    let secret = b"the layer of another";
    let layer = rig.push_blob("secret/app", secret).await;
    let manifest = rig.push_image("secret/app", "v1", &image("1")).await;
    rig.push_blob("mine", CONFIG).await;
    let mut naming = image("2");
    naming["layers"][0]["digest"] = json!(layer);
    let put = format!("PUT /v2/mine/manifests/naming\ncontent-type: {MANIFEST}");
    let refused = rig.send(&put, naming.to_string()).await;
    assert_eq!(refused.code(), "MANIFEST_BLOB_UNKNOWN");
    rig.allow_sparse_images();
    rig.put_manifest("mine", "naming", &naming).await;
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{ "mediaType": MANIFEST, "digest": manifest, "size": 1 }],
    });
    rig.put_manifest("mine", "index", &index).await;
    for path in [
        format!("/v2/mine/blobs/{layer}"),
        format!("/v2/mine/blobs/{manifest}"),
        format!("/v2/mine/manifests/{manifest}"),
    ] {
        assert_eq!(rig.get(&path).await.status, 404, "{path}");
    }
    // Nor is it by a digest that its bytes do not have.
    let begun = rig.begin("mine").await;
    let path = format!("PUT {begun}?digest={layer}");
    let refused = rig.send(&format!("{path}\ncontent-length: 0"), "").await;
    assert_eq!(
        (refused.status, refused.code()),
        (400, "DIGEST_INVALID".to_owned())
    );
    assert_eq!(
        rig.get(&format!("/v2/mine/blobs/{layer}")).await.status,
        404
    );
}
