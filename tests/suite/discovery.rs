//! Tags, the catalog and referrers: listed, in order, in pages, filtered.

use serde_json::{Value, json};

use crate::harness::{
    Client, INDEX, MANIFEST, Rig, digest, image, image_with, push_blob, push_image, push_manifest,
};

const REPOSITORY: &str = "team/app";

fn strings(value: &Value) -> Vec<String> {
    let list = value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"));
    list.iter()
        .map(|entry| entry.as_str().unwrap().to_owned())
        .collect()
}

/// Follows `Link` from `start`, collecting `key` of every page; returns the pages.
fn pages(client: &Client, start: &str, key: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(start.to_owned());
    while let Some(path) = next {
        let reply = client.get(&path).expect(200);
        pages.push(strings(&reply.json()[key]));
        assert!(pages.len() < 100, "the pages never end");
        next = reply.header("Link").map(|link| {
            assert!(link.ends_with("; rel=\"next\""), "{link}");
            let target = link[1..].split('>').next().unwrap();
            let path = target.find("/v2/").unwrap();
            target[path..].to_owned()
        });
    }
    pages
}

fn push_tags(client: &Client, tags: &[&str]) {
    let image = image(50, &[10]);
    push_image(client, REPOSITORY, tags[0], &image);
    for tag in &tags[1..] {
        push_manifest(client, REPOSITORY, tag, MANIFEST, &image.manifest).expect(201);
    }
}

#[test]
fn tags_are_listed_in_order() {
    let rig = Rig::start();
    let client = rig.client();
    push_tags(&client, &["v2", "v10", "latest", "V1", "_x", "1.0"]);

    let reply = client
        .get(&format!("/v2/{REPOSITORY}/tags/list"))
        .expect(200);

    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    assert_eq!(reply.json()["name"], REPOSITORY);
    let tags = strings(&reply.json()["tags"]);
    let mut sorted = tags.clone();
    sorted.sort_unstable();
    assert_eq!(tags, sorted);
    assert_eq!(tags.len(), 6);
}

#[test]
fn tags_come_in_pages_that_partition_them() {
    let rig = Rig::start();
    let client = rig.client();
    push_tags(&client, &["a", "b", "c", "d", "e"]);
    let list = format!("/v2/{REPOSITORY}/tags/list");

    let by_two = pages(&client, &format!("{list}?n=2"), "tags");
    assert_eq!(by_two, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
    assert_eq!(
        strings(&client.get(&format!("{list}?n=0")).expect(200).json()["tags"]).len(),
        0
    );
    let after = client.get(&format!("{list}?last=b")).expect(200).json();
    assert_eq!(strings(&after["tags"]), ["c", "d", "e"]);
    // `last` need not be a tag.
    let after = client
        .get(&format!("{list}?last=bb&n=1"))
        .expect(200)
        .json();
    assert_eq!(strings(&after["tags"]), ["c"]);
    for bad in ["n=-1", "n=many"] {
        client
            .get(&format!("{list}?{bad}"))
            .expect_error(400, "PAGINATION_NUMBER_INVALID");
    }
}

#[test]
fn the_tags_of_nothing_are_unknown() {
    let rig = Rig::start();
    rig.client()
        .get("/v2/nobody/here/tags/list")
        .expect_error(404, "NAME_UNKNOWN");
}

#[test]
fn the_catalog_lists_repositories_in_order_and_in_pages() {
    let rig = Rig::start();
    let client = rig.client();
    for name in ["b/two", "a", "b", "a/b/c", "a-b"] {
        push_image(&client, name, "v1", &image(51, &[10]));
    }

    let whole = client.get("/v2/_catalog").expect(200).json();
    let mut names = strings(&whole["repositories"]);
    assert_eq!(names, ["a", "a-b", "a/b/c", "b", "b/two"]);
    let by_two = pages(&client, "/v2/_catalog?n=2", "repositories");
    assert_eq!(by_two.len(), 3);
    names.sort_unstable();
    assert_eq!(by_two.concat(), names);
}

#[test]
fn referrers_of_nothing_are_an_empty_index() {
    let rig = Rig::start();
    let path = format!("/v2/{REPOSITORY}/referrers/{}", digest(b"nothing"));
    let reply = rig.client().get(&path).expect(200);
    assert_eq!(reply.header("Content-Type"), Some(INDEX));
    let index = reply.json();
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["mediaType"], INDEX);
    assert_eq!(index["manifests"], json!([]));
    rig.client()
        .get(&format!("/v2/{REPOSITORY}/referrers/sha256:abc"))
        .expect_error(400, "DIGEST_INVALID");
}

#[test]
fn referrers_name_what_refers_to_a_subject_and_can_be_filtered() {
    let mut rig = Rig::start();
    let client = rig.client();
    let subject = image(52, &[10]);
    let subject_digest = push_image(&client, REPOSITORY, "v1", &subject);
    let refer = |seed: u64, kind: &str| {
        let more = json!({
            "artifactType": kind, "subject": subject.descriptor(&json!({})),
            "annotations": { "org.example.note": format!("note {seed}") },
        });
        let artifact = image_with(seed, &[20], &more);
        for blob in artifact.layers.iter().chain([&artifact.config]) {
            push_blob(&client, REPOSITORY, blob);
        }
        let digest = artifact.digest();
        let reply = push_manifest(&client, REPOSITORY, &digest, MANIFEST, &artifact.manifest);
        let reply = reply.expect(201);
        assert_eq!(reply.header("OCI-Subject"), Some(subject_digest.as_str()));
        digest
    };
    let signature = refer(53, "application/vnd.example.signature");
    let bill = refer(54, "application/vnd.example.sbom");
    let path = format!("/v2/{REPOSITORY}/referrers/{subject_digest}");
    let listed = |query: &str| {
        let reply = client.get(&format!("{path}{query}")).expect(200);
        let entries = reply.json()["manifests"].as_array().unwrap().clone();
        (
            reply.header("OCI-Filters-Applied").map(str::to_owned),
            entries,
        )
    };

    let (filters, all) = listed("");
    assert_eq!(filters, None);
    let mut digests: Vec<&str> = all.iter().map(|e| e["digest"].as_str().unwrap()).collect();
    digests.sort_unstable();
    let mut expected = [signature.as_str(), bill.as_str()];
    expected.sort_unstable();
    assert_eq!(digests, expected);
    for entry in &all {
        assert_eq!(entry["mediaType"], MANIFEST);
        assert!(
            entry["annotations"]["org.example.note"].is_string(),
            "{entry}"
        );
        assert!(entry["size"].is_u64());
    }
    let (filters, only) = listed("?artifactType=application/vnd.example.sbom");
    assert_eq!(filters.as_deref(), Some("artifactType"));
    assert_eq!(only.len(), 1);
    assert_eq!(only[0]["digest"], bill);

    // What refers is found again when the index beside the tree is lost.
    client
        .delete(&format!("/v2/{REPOSITORY}/manifests/{signature}"))
        .expect(202);
    assert_eq!(listed("").1.len(), 1);
    rig.registry().kill();
    for entry in std::fs::read_dir(rig.tree()).unwrap().flatten() {
        if !["blobs", "repositories"].contains(&entry.file_name().to_string_lossy().as_ref()) {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    rig.start_registry();
    rig.wait_until_ready();
    assert_eq!(listed("").1, only);
}

#[test]
fn a_referrer_without_a_type_has_its_configs() {
    let rig = Rig::start();
    let client = rig.client();
    let missing = image(55, &[10]);
    // The subject may come later, or never.
    let more = json!({ "subject": missing.descriptor(&json!({})) });
    let artifact = image_with(56, &[20], &more);
    push_image(&client, REPOSITORY, "artifact", &artifact);

    let path = format!("/v2/{REPOSITORY}/referrers/{}", missing.digest());
    let entries = client.get(&path).expect(200).json()["manifests"].clone();

    assert_eq!(entries[0]["digest"], artifact.digest());
    assert_eq!(
        entries[0]["artifactType"],
        "application/vnd.oci.image.config.v1+json"
    );
}

#[test]
fn the_base_says_which_api_this_is_to_every_verb_it_has() {
    let rig = Rig::start();
    let client = rig.client();
    for path in ["/v2/", "/v2"] {
        let reply = client.get(path);
        assert!(matches!(reply.status, 200 | 301 | 308), "{path}: {reply:?}");
    }
    client.head("/v2/").expect(200);
    let reply = client.request("BREW", "/v2/").send();
    assert!(matches!(reply.status, 400 | 405 | 501), "{reply:?}");
    client
        .post(&format!("/v2/{REPOSITORY}/tags/list"))
        .expect_error(405, "UNSUPPORTED");
    for nowhere in ["/v2/x/y/z", "/v2/_catalog/x", "/v2/manifests/", "/v3/"] {
        let reply = client.get(nowhere);
        assert!(matches!(reply.status, 400 | 404), "{nowhere}: {reply:?}");
    }
}
