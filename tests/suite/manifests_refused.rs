//! Manifests that must not be stored: those that say different things to different readers, lack what
//! they name, or are of kinds that are only pulled any more.

use serde_json::{Value, json};

use crate::harness::{
    Client, INDEX, MANIFEST, Response, Rig, digest, image, push_blob, push_image, push_manifest,
};

const REPOSITORY: &str = "team/app";

#[track_caller]
fn refused(client: &Client, kind: &str, manifest: &str, why: &str) {
    let reply = push_manifest(client, REPOSITORY, "bad", kind, manifest.as_bytes());
    let reply = reply.expect_error(400, "MANIFEST_INVALID");
    assert!(
        message(&reply).contains(why),
        "{manifest}: {}",
        reply.text()
    );
    let path = format!("/v2/{REPOSITORY}/manifests/bad");
    client.get(&path).expect_error(404, "MANIFEST_UNKNOWN");
}

fn message(reply: &Response) -> String {
    let json = reply.json();
    json["errors"][0]["message"].as_str().unwrap().to_owned()
}

/// Go reads `MediaType` where Serde reads `mediaType`, and the last of several: such a manifest would be
/// an image to this registry and an index to Docker.
#[test]
fn a_manifest_that_go_would_read_as_another_is_refused() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(60, &[10]);
    push_image(&client, REPOSITORY, "good", &image);
    let good = String::from_utf8(image.manifest).unwrap();
    let with = |more: &str| good.replacen('{', &format!("{{{more},"), 1);
    let in_layer = |more: &str| {
        let at = good.find("\"layers\":[{").unwrap() + "\"layers\":[{".len();
        format!("{}{more},{}", &good[..at], &good[at..])
    };
    for (manifest, why) in [
        (
            with(&format!("\"MediaType\":\"{INDEX}\",\"Manifests\":[]")),
            "key \"MediaType\" differs from \"mediaType\" only in case",
        ),
        (with("\"MANIFESTS\":[]"), "\"MANIFESTS\""),
        (with("\"Subject\":null"), "\"Subject\""),
        (
            with("\"\u{17f}chemaVersion\":1"),
            "differs from \"schemaVersion\" only in case",
        ),
        (with("\"\\u004cayers\":[]"), "\"Layers\""),
        (with("\"layers\":[]"), "key \"layers\" is there twice"),
        (
            with(&format!("\"mediaType\":\"{MANIFEST}\"")),
            "key \"mediaType\" is there twice",
        ),
        (
            in_layer(&format!("\"Digest\":\"{}\"", digest(b"other"))),
            "key \"Digest\" differs from \"digest\" only in case",
        ),
        (in_layer("\"size\":1"), "key \"size\" is there twice"),
        (in_layer("\"URLs\":[]"), "\"URLs\" differs from \"urls\""),
    ] {
        assert!(
            serde_json::from_str::<Value>(&manifest).is_ok(),
            "{manifest}"
        );
        refused(&client, MANIFEST, &manifest, why);
    }
    // What no client reads stays the pusher's own.
    let own = with("\"Custom\":{\"mediatype\":1,\"MediaType\":2},\"custom\":1");
    push_manifest(&client, REPOSITORY, "own", MANIFEST, own.as_bytes()).expect(201);
}

#[test]
fn kinds_that_are_only_pulled_any_more_are_refused_with_what_they_are() {
    let rig = Rig::start();
    let client = rig.client();
    let artifact = "application/vnd.oci.artifact.manifest.v1+json";
    let text = json!({ "mediaType": artifact, "blobs": [] }).to_string();
    refused(&client, artifact, &text, artifact);
    let text = json!({ "blobs": [] }).to_string();
    refused(&client, artifact, &text, artifact);
    let schema1 = json!({ "schemaVersion": 1, "name": "a", "tag": "v1", "fsLayers": [] });
    for kind in [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
    ] {
        let why = "docker's schema 1, which can be pulled from here but not pushed";
        refused(&client, kind, &schema1.to_string(), why);
    }
    let image = image(61, &[]);
    let mut no_layers: Value = serde_json::from_slice(&image.manifest).unwrap();
    no_layers.as_object_mut().unwrap().remove("layers");
    refused(&client, MANIFEST, &no_layers.to_string(), "no \"layers\"");
}

/// `HEAD` of a layer said 200, the layer was removed, and the manifest was taken all the same.
#[test]
fn an_image_whose_layers_have_gone_is_refused_and_each_is_named() {
    let rig = Rig::start();
    let client = rig.client();
    let image = image(62, &[10, 20, 30]);
    for blob in image.layers.iter().chain([&image.config]) {
        push_blob(&client, REPOSITORY, blob);
    }
    let gone: Vec<String> = image.layers[1..]
        .iter()
        .map(|layer| digest(layer))
        .collect();
    for layer in &gone {
        let path = format!("/v2/{REPOSITORY}/blobs/{layer}");
        client.head(&path).expect(200);
        client.delete(&path).expect(202);
    }

    let reply = push_manifest(&client, REPOSITORY, "v1", MANIFEST, &image.manifest);

    let reply = reply.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    let json = reply.json();
    let errors = json["errors"].as_array().unwrap();
    assert_eq!(errors.len(), gone.len(), "{json}");
    for (error, layer) in errors.iter().zip(&gone) {
        assert_eq!(error["code"], "MANIFEST_BLOB_UNKNOWN");
        assert_eq!(error["detail"]["digest"], **layer);
        assert!(
            error["message"].as_str().unwrap().contains(layer),
            "{error}"
        );
    }
    let path = format!("/v2/{REPOSITORY}/manifests/v1");
    client.get(&path).expect_error(404, "MANIFEST_UNKNOWN");
}

#[test]
fn a_layer_may_be_elsewhere_only_if_it_must_not_be_distributed() {
    let rig = Rig::start();
    let client = rig.client();
    push_blob(&client, REPOSITORY, b"{}");
    let layer = |kind: &str| {
        json!({ "mediaType": kind, "digest": digest(kind.as_bytes()), "size": kind.len(),
            "urls": ["https://example.com/layer"] })
    };
    let config = json!({
        "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2,
    });
    for (kind, status) in [
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            201,
        ),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            201,
        ),
        ("application/vnd.oci.image.layer.v1.tar+gzip", 400),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", 400),
    ] {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer(kind)],
        })
        .to_string();
        let reply = push_manifest(&client, REPOSITORY, "v1", MANIFEST, manifest.as_bytes());
        assert_eq!(reply.status, status, "{kind}: {}", reply.text());
    }
}
