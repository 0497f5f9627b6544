//! Trees that others wrote: whatever lies in one is served, also what cannot be pushed any more.

use std::fs;
use std::path::Path;

use openssl::base64;
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::sha::sha256;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Client, DockerRegistry, MANIFEST, Rig, Setup, digest, image, need, push_blob, push_manifest,
};

const REPOSITORY: &str = "old/app";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn serving(root: &Path) -> Rig {
    Setup {
        root: Some(root.to_owned()),
        ..Setup::default()
    }
    .start()
}

/// Asks for a manifest in every way; each must answer with these bytes.
#[track_caller]
fn assert_served(client: &Client, tag: &str, manifest: &[u8], media_type: &str) {
    let digest = digest(manifest);
    for reference in [tag, &digest] {
        let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
        let get = client.get(&path).expect(200);
        assert_eq!(get.body, manifest);
        let head = client.head(&path).expect(200);
        for reply in [get, head] {
            assert_eq!(reply.header("Content-Type"), Some(media_type), "{tag}");
            assert_eq!(reply.header("Docker-Content-Digest"), Some(digest.as_str()));
            let entity_tag = format!("\"{digest}\"");
            assert_eq!(reply.header("ETag"), Some(entity_tag.as_str()));
        }
    }
    let tags = client.get(&format!("/v2/{REPOSITORY}/tags/list")).json();
    let tags = tags["tags"].as_array().unwrap();
    assert!(tags.contains(&json!(tag)), "{tags:?}");
}

#[track_caller]
fn assert_deletable(client: &Client, tag: &str, manifest: &[u8]) {
    let path = |reference: &str| format!("/v2/{REPOSITORY}/manifests/{reference}");
    client.delete(&path(&digest(manifest))).expect(202);
    for reference in [tag, &digest(manifest)] {
        client
            .get(&path(reference))
            .expect_error(404, "MANIFEST_UNKNOWN");
    }
}

/// Writes a manifest into a tree as `registry:2` does, with a tag.
fn write(root: &Path, tag: &str, manifest: &[u8]) {
    let tree = root.join("docker/registry/v2");
    let name = digest(manifest);
    let hex = name.strip_prefix("sha256:").unwrap();
    let repository = format!("repositories/{REPOSITORY}/_manifests");
    for (path, content) in [
        (format!("blobs/sha256/{}/{hex}/data", &hex[..2]), manifest),
        (
            format!("{repository}/revisions/sha256/{hex}/link"),
            name.as_bytes(),
        ),
        (
            format!("{repository}/tags/{tag}/index/sha256/{hex}/link"),
            name.as_bytes(),
        ),
        (
            format!("{repository}/tags/{tag}/current/link"),
            name.as_bytes(),
        ),
    ] {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn base64url(bytes: &[u8]) -> String {
    let text = base64::encode_block(bytes)
        .replace('+', "-")
        .replace('/', "_");
    text.trim_end_matches('=').to_owned()
}

/// Signs a manifest of schema 1 as Docker did: over all of it but its end, and written before that.
fn signed(payload: &str) -> String {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = EcKey::generate(&group).unwrap();
    let (mut x, mut y) = (
        openssl::bn::BigNum::new().unwrap(),
        openssl::bn::BigNum::new().unwrap(),
    );
    let mut context = BigNumContext::new().unwrap();
    let point = key.public_key();
    point
        .affine_coordinates(&group, &mut x, &mut y, &mut context)
        .unwrap();
    let tail = "\n}";
    let head = payload.strip_suffix(tail).unwrap();
    let protected = json!({
        "formatLength": head.len(), "formatTail": base64url(tail.as_bytes()),
        "time": "2016-05-04T03:02:01Z",
    });
    let protected = base64url(protected.to_string().as_bytes());
    let signing = format!("{protected}.{}", base64url(payload.as_bytes()));
    let made = EcdsaSig::sign(&sha256(signing.as_bytes()), &key).unwrap();
    let fixed = |number: &openssl::bn::BigNumRef| number.to_vec_padded(32).unwrap();
    let signature = [fixed(made.r()), fixed(made.s())].concat();
    let jwk = json!({
        "crv": "P-256", "kty": "EC", "x": base64url(&fixed(&x)), "y": base64url(&fixed(&y)),
    });
    let signatures = json!([{
        "header": { "alg": "ES256", "jwk": jwk },
        "signature": base64url(&signature), "protected": protected,
    }]);
    format!("{head},\n   \"signatures\": {signatures}{tail}")
}

fn schema1(layer: &[u8]) -> String {
    format!(
        r#"{{
   "schemaVersion": 1,
   "name": "{REPOSITORY}",
   "tag": "schema1",
   "architecture": "amd64",
   "fsLayers": [{{"blobSum": "{}"}}],
   "history": [{{"v1Compatibility": "{{\"id\":\"1\"}}"}}]
}}"#,
        digest(layer)
    )
}

#[test]
fn what_debians_registry_took_and_we_do_not_is_served_and_deleted() {
    need!("docker-registry");
    let folder = TempDir::new().unwrap();
    let peer = DockerRegistry::with(
        folder.path(),
        "compatibility:\n  schema1:\n    enabled: true\n",
    );
    let client = peer.client();
    let parts = image(65, &[100]);
    for blob in parts.layers.iter().chain([&parts.config]) {
        push_blob(&client, REPOSITORY, blob);
    }
    // Distribution keeps what was signed, without the signatures, and signs it anew for each pull.
    let schema1 = schema1(&parts.layers[0]);
    let pushed = signed(&schema1);
    let put = |tag, kind, text: &str| {
        let reply = push_manifest(&client, REPOSITORY, tag, kind, text.as_bytes());
        reply.expect(201)
    };
    let reply = put("schema1", SCHEMA1_SIGNED, &pushed);
    let digest = digest(schema1.as_bytes());
    assert_eq!(reply.header("Docker-Content-Digest"), Some(digest.as_str()));
    let mut no_layers: Value = serde_json::from_slice(&parts.manifest).unwrap();
    no_layers.as_object_mut().unwrap().remove("layers");
    let no_layers = no_layers.to_string();
    put("no-layers", MANIFEST, &no_layers);
    peer.stop();

    let rig = serving(folder.path());
    let client = rig.client();
    for (tag, manifest, media_type) in [
        ("schema1", &schema1, SCHEMA1),
        ("no-layers", &no_layers, MANIFEST),
    ] {
        assert_served(&client, tag, manifest.as_bytes(), media_type);
        assert_deletable(&client, tag, manifest.as_bytes());
    }
}

#[test]
fn what_forks_stored_is_served_listed_and_deleted() {
    let folder = TempDir::new().unwrap();
    let subject = image(66, &[10]);
    let artifact = json!({
        "mediaType": ARTIFACT, "artifactType": "application/vnd.sbom", "blobs": [],
        "subject": subject.descriptor(&json!({})), "annotations": { "note": "1" },
    });
    let odd = json!([{ "mediaType": 5, "digest": "md5:0", "size": -1 }, "text"]);
    let manifests = [
        ("signed", signed(&schema1(b"a layer")), SCHEMA1_SIGNED),
        ("artifact", artifact.to_string(), ARTIFACT),
        (
            "index",
            json!({ "schemaVersion": 2, "manifests": odd }).to_string(),
            INDEX,
        ),
        (
            "unheard",
            json!({ "schemaVersion": 3, "mediaType": "application/vnd.unheard.v9+json" })
                .to_string(),
            "application/vnd.unheard.v9+json",
        ),
        (
            "bare",
            json!({ "layers": odd, "config": [] }).to_string(),
            MANIFEST,
        ),
        (
            "page",
            json!({ "mediaType": "text/html", "x": "<script>" }).to_string(),
            MANIFEST,
        ),
    ];
    for (tag, manifest, _) in &manifests {
        write(folder.path(), tag, manifest.as_bytes());
    }
    let rig = serving(folder.path());
    let client = rig.client();
    for (tag, manifest, media_type) in &manifests {
        assert_served(&client, tag, manifest.as_bytes(), media_type);
    }
    let catalog = client.get("/v2/_catalog").expect(200).json();
    assert_eq!(catalog["repositories"], json!([REPOSITORY]));
    let path = format!("/v2/{REPOSITORY}/referrers/{}", subject.digest());
    let listed = client.get(&path).expect(200).json();
    let entry = &listed["manifests"][0];
    assert_eq!(entry["digest"], digest(manifests[1].1.as_bytes()));
    assert_eq!(entry["mediaType"], ARTIFACT);
    assert_eq!(entry["artifactType"], "application/vnd.sbom");
    assert_eq!(entry["annotations"], json!({ "note": "1" }));
    for (tag, manifest, _) in &manifests {
        assert_deletable(&client, tag, manifest.as_bytes());
    }
    let listed = client.get(&path).expect(200).json();
    assert_eq!(listed["manifests"], json!([]));
}

#[test]
fn what_is_no_json_is_absent_and_the_log_says_so_once() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "torn", b"{\"schemaVersion\": 2, \"config\":");
    let rig = serving(folder.path());
    let path = format!("/v2/{REPOSITORY}/manifests/torn");
    for _again in 0..3 {
        rig.client()
            .get(&path)
            .expect_error(404, "MANIFEST_UNKNOWN");
    }
    let log = rig.registry_log();
    assert_eq!(
        log.matches("no manifest, taken as absent").count(),
        1,
        "{log}"
    );
}
