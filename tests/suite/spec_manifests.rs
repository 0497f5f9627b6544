//! What the distribution-spec's conformance tool asks of manifests; see `spec_blobs`.

use serde_json::{Map, Value, json};

use crate::harness::{
    Client, INDEX, MANIFEST, Response, Rig, Setup, digest, digest512, noise, push_manifest,
};
use crate::spec_blobs::{ALGORITHMS, Algorithm, assert_deletable, assert_there, push, stream};
use crate::uploads::REPOSITORY;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

fn manifest_path(reference: &str) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}")
}

fn descriptor(algorithm: Algorithm, kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": algorithm(bytes), "size": bytes.len() })
}

fn with(mut manifest: Value, more: &Value) -> Value {
    let fields = manifest.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    manifest
}

/// Pushes the blobs of an image of one layer; returns its manifest, some fields of which are `more`.
fn image(client: &Client, algorithm: Algorithm, seed: u64, more: &Value) -> Value {
    let (config, layer) = (format!("{{\"author\":\"{seed}\"}}"), noise(seed, 300));
    for bytes in [config.as_bytes(), &layer] {
        push(client, REPOSITORY, bytes, &algorithm(bytes));
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(algorithm, CONFIG, config.as_bytes()),
        "layers": [descriptor(algorithm, LAYER, &layer)],
    });
    with(manifest, more)
}

fn index(manifests: &[Value], more: &Value) -> Value {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    with(index, more)
}

/// Pushes a manifest by its digest, as Go's clients do: without a length. Returns its descriptor.
#[track_caller]
fn put(client: &Client, algorithm: Algorithm, manifest: &Value) -> Value {
    let bytes = manifest.to_string();
    let digest = algorithm(bytes.as_bytes());
    let kind = manifest["mediaType"].as_str().unwrap();
    let path = manifest_path(&digest);
    let created = stream(client, "PUT", &path, kind, bytes.as_bytes());
    assert_pushed(client, &created, manifest, &digest);
    descriptor(algorithm, kind, bytes.as_bytes())
}

#[track_caller]
fn assert_pushed(client: &Client, created: &Response, manifest: &Value, digest: &str) {
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.header("Docker-Content-Digest"), Some(digest));
    let subject = manifest["subject"]["digest"].as_str();
    assert_eq!(created.header("OCI-Subject"), subject);
    assert_manifest(client, &created.location(), manifest, digest);
}

#[track_caller]
fn assert_manifest(client: &Client, path: &str, manifest: &Value, digest: &str) {
    assert_there(client, path, digest, manifest.to_string().as_bytes());
    for method in ["GET", "HEAD"] {
        let request = client.request(method, path).header("Accept", INDEX);
        let reply = request.header("Accept", MANIFEST).send().expect(200);
        let kind = manifest["mediaType"].as_str();
        assert_eq!(reply.header("Content-Type"), kind);
    }
}

#[test]
fn manifests_of_every_kind_come_back_as_they_were_and_go_at_once() {
    let rig = Rig::start();
    let client = rig.client();
    push(&client, REPOSITORY, b"{}", &digest(b"{}"));
    let empty = descriptor(digest, EMPTY, b"{}");
    let inlined = with(empty.clone(), &json!({ "data": "e30=" }));
    let artifact = json!({ "artifactType": "application/vnd.example.v1", "config": empty });
    let images =
        [80, 81].map(|seed| put(&client, digest, &image(&client, digest, seed, &json!({}))));
    let nested = [put(&client, digest, &index(&images, &json!({})))];
    let foreign = json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "digest": digest(b"elsewhere"), "size": 9, "urls": ["https://store.example.com/layer"],
    });
    let mut manifests = vec![
        index(&[], &json!({})),
        index(&nested, &json!({})),
        index(
            &images,
            &json!({ "artifactType": "application/vnd.example.v1" }),
        ),
        index(
            &images,
            &json!({ "org.example": "kept", "annotations": { "a": "b" } }),
        ),
    ];
    for more in [
        artifact.clone(),
        with(artifact.clone(), &json!({ "layers": [empty] })),
        with(artifact, &json!({ "config": inlined, "layers": [inlined] })),
        json!({ "layers": [] }),
        json!({ "layers": [foreign] }),
        json!({ "org.example": { "kept": [1, null, "2"] } }),
    ] {
        manifests.push(image(&client, digest, 82, &more));
    }
    for manifest in manifests {
        put(&client, digest, &manifest);
        let bytes = manifest.to_string();
        let kind = manifest["mediaType"].as_str().unwrap();
        let tagged = push_manifest(&client, REPOSITORY, "tag", kind, bytes.as_bytes());
        let digest = digest(bytes.as_bytes());
        assert_pushed(&client, &tagged, &manifest, &digest);
        assert_manifest(&client, &manifest_path("tag"), &manifest, &digest);
        assert_deletable(&client, &manifest_path("tag"));
        assert_manifest(&client, &manifest_path(&digest), &manifest, &digest);
        assert_deletable(&client, &manifest_path(&digest));
    }
    for image in &images {
        let digest = image["digest"].as_str().unwrap();
        client.head(&manifest_path(digest)).expect(200);
    }
}

#[test]
fn a_large_manifest_may_come_without_a_length() {
    let rig = Rig::start();
    let client = rig.client();
    let note = |number: u32| (format!("note-{number}"), Value::from("A".repeat(10_000)));
    let notes: Map<String, Value> = (0..390).map(note).collect();
    let large = image(&client, digest, 83, &json!({ "annotations": notes }));
    let pushed = put(&client, digest, &large);
    assert!(pushed["size"].as_u64().unwrap() > 3_900_000);
}

#[test]
fn images_and_indexes_may_be_sparse() {
    let rig = Setup {
        registry: "sparse_images = true".to_owned(),
        ..Setup::default()
    }
    .start();
    let client = rig.client();
    let whole = image(&client, digest, 84, &json!({}));
    let gone = descriptor(digest, LAYER, b"a layer that never comes");
    let layers = json!({ "layers": [whole["layers"][0], gone] });
    put(&client, digest, &with(whole.clone(), &layers));
    let listed = put(&client, digest, &whole);
    let gone = descriptor(digest, MANIFEST, b"an image that never comes");
    put(&client, digest, &index(&[listed, gone], &json!({})));
}

#[test]
fn an_index_named_by_sha512_throughout_is_served_by_it_and_by_its_tags() {
    let rig = Rig::start();
    let client = rig.client();
    let manifest = |seed| image(&client, digest512, seed, &json!({}));
    let images = [85, 86].map(|seed| put(&client, digest512, &manifest(seed)));
    let multi = index(&images, &json!({}));
    let bytes = multi.to_string();
    let digest = digest512(bytes.as_bytes());

    let path = format!("{}?tag=one&tag=two", manifest_path(&digest));
    let tagged = stream(&client, "PUT", &path, INDEX, bytes.as_bytes());

    assert_pushed(&client, &tagged, &multi, &digest);
    let tags = tagged.all("OCI-Tag").join(",");
    let tags: Vec<&str> = tags.split(',').map(str::trim).collect();
    assert_eq!(tags, ["one", "two"]);
    for tag in tags {
        assert_manifest(&client, &manifest_path(tag), &multi, &digest);
    }
    let list = client.get(&format!("/v2/{REPOSITORY}/tags/list"));
    assert_eq!(list.expect(200).json()["tags"], json!(["one", "two"]));
    assert_deletable(&client, &manifest_path(&digest));
    client.head(&manifest_path("one")).expect(404);
}

#[test]
fn a_manifest_with_a_space_too_many_is_not_that_of_the_digest() {
    let rig = Rig::start();
    let client = rig.client();
    let manifest = image(&client, digest, 87, &json!({})).to_string();
    for algorithm in ALGORITHMS {
        let path = manifest_path(&algorithm(manifest.as_bytes()));
        let spaced = format!("{manifest}  ");
        let refused = stream(&client, "PUT", &path, MANIFEST, spaced.as_bytes());
        refused.expect_error(400, "DIGEST_INVALID");
        client.head(&path).expect(404);
        client.delete(&path).expect(404);
    }
}

/// Asks what refers to `subject`; returns each one's digest and artifact type, in order.
fn referrers(client: &Client, subject: &str, kind: Option<&str>) -> Vec<(String, String)> {
    let filter = kind.map_or_else(String::new, |kind| {
        let kind = kind.replace('/', "%2F").replace('+', "%2B");
        format!("?artifactType={kind}")
    });
    let path = format!("/v2/{REPOSITORY}/referrers/{subject}{filter}");
    let reply = client.get(&path).expect(200);
    assert_eq!(reply.header("Content-Type"), Some(INDEX));
    let filters = kind.map(|_| "artifactType");
    assert_eq!(reply.header("OCI-Filters-Applied"), filters);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut referrers: Vec<(String, String)> = reply.json()["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(&entry["digest"]), text(&entry["artifactType"])))
        .collect();
    referrers.sort();
    referrers
}

#[test]
fn whatever_refers_is_listed_by_its_type_until_it_is_deleted() {
    let rig = Rig::start();
    let client = rig.client();
    let subjects = [
        put(&client, digest, &image(&client, digest, 88, &json!({}))),
        put(&client, digest, &index(&[], &json!({}))),
        put(
            &client,
            digest512,
            &image(&client, digest512, 89, &json!({})),
        ),
        descriptor(digest, MANIFEST, b"a subject that never comes"),
    ];
    let kind = "application/vnd.example.one.v1+json";
    for (subject, seed) in subjects.iter().zip(90..) {
        let typed = json!({ "subject": subject, "artifactType": kind });
        // One without a type goes by that of its config.
        let untyped = image(&client, digest, seed, &json!({ "subject": subject }));
        let artifact = image(&client, digest, seed, &typed);
        let list = index(&[], &typed);
        let [untyped, artifact, list] = [untyped, artifact, list].map(|manifest| {
            put(&client, digest, &manifest)["digest"]
                .as_str()
                .unwrap()
                .to_owned()
        });
        let subject = subject["digest"].as_str().unwrap();
        let mut both = [artifact, list].map(|digest| (digest, kind.to_owned()));
        both.sort();
        let other = [(untyped, CONFIG.to_owned())];

        assert_eq!(referrers(&client, subject, Some(kind)), both);
        assert_eq!(referrers(&client, subject, Some(CONFIG)), other);
        assert_eq!(referrers(&client, subject, Some("application/none")), []);
        assert_eq!(referrers(&client, subject, None).len(), 3);
        for (digest, _) in &both {
            assert_deletable(&client, &manifest_path(digest));
        }
        assert_eq!(referrers(&client, subject, None), other);
        assert_deletable(&client, &manifest_path(&other[0].0));
        assert_eq!(referrers(&client, subject, None), []);
    }
}
