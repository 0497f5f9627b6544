//! Lists that are too long for one piece.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{MANIFEST, Reply, Rig, descriptor, image, referrer, sha256};

const COUNT: usize = 5000;

/// Makes tags of 100 characters in the tree itself, of which [`COUNT`] are twice what fits in a piece;
/// returns their names in order.
fn make_tags(rig: &Rig, count: usize) -> Vec<String> {
    let target = sha256(b"whatever").to_string();
    let tags: Vec<String> = (0..count).map(|number| format!("{number:0100}")).collect();
    for tag in &tags {
        let folder = rig.path(&format!("repositories/a/_manifests/tags/{tag}/current"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("link"), &target).unwrap();
    }
    // A folder alone is no tag.
    fs::create_dir(rig.path("repositories/a/_manifests/tags/0")).unwrap();
    tags
}

/// Makes repositories with names of 200 characters; returns the names in order.
fn make_repositories(rig: &Rig) -> Vec<String> {
    let name = |number| format!("{:0100}/{number:099}", number / 100);
    let names: Vec<String> = (0..2000).map(name).collect();
    for name in &names {
        fs::create_dir_all(rig.path(&format!("repositories/{name}/_manifests"))).unwrap();
    }
    names
}

/// Returns the names in a list, however it came.
fn names(reply: &Reply, of: &str) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.head);
    let json: Value = match reply.header("content-length") {
        Some(length) => {
            assert_eq!(length, reply.body.len().to_string());
            reply.json()
        }
        None => {
            let (whole, is_whole) = reply.unchunked();
            assert!(is_whole);
            serde_json::from_str(&whole).unwrap()
        }
    };
    serde_json::from_value(json[of].clone()).unwrap()
}

/// Follows the links of a list, and returns the pages.
async fn pages(rig: &Rig, path: &str, of: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let reply = rig.get(&path).await;
        pages.push(names(&reply, of));
        next = reply.header("link").map(|link| {
            let target = link.strip_prefix('<').unwrap();
            target.strip_suffix(">; rel=\"next\"").unwrap().to_owned()
        });
    }
    pages
}

#[tokio::test]
async fn all_tags_are_listed_piece_by_piece_unless_they_fit_in_one() {
    let rig = Rig::new();
    let tags = make_tags(&rig, COUNT);
    let all = rig.get("/v2/a/tags/list").await;
    assert_eq!(all.header("content-length"), None);
    assert_eq!(all.header("content-type"), Some("application/json"));
    assert_eq!(all.header("link"), None);
    assert!(
        all.unchunked()
            .0
            .starts_with("{\"name\":\"a\",\"tags\":[\"0")
    );
    assert!(names(&all, "tags") == tags);
    let some = rig
        .get(&format!("/v2/a/tags/list?last={}", tags[2999]))
        .await;
    assert!(some.header("content-length").is_some(), "it fits in one");
    assert!(names(&some, "tags") == tags[3000..]);
    let head = rig.send("HEAD /v2/a/tags/list", "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn a_number_of_tags_is_never_exceeded_and_the_link_leads_to_the_rest() {
    let rig = Rig::new();
    let tags = make_tags(&rig, COUNT);
    // As many as there are, and more: nothing is left for another request.
    for number in [COUNT + 1, COUNT + 2, usize::MAX] {
        let all = pages(&rig, &format!("/v2/a/tags/list?n={number}"), "tags").await;
        assert_eq!(all.len(), 1, "{number}");
        assert!(all[0] == tags);
    }
    for number in [1000, 2000, COUNT - 1] {
        let pages = pages(&rig, &format!("/v2/a/tags/list?n={number}"), "tags").await;
        assert!(pages.iter().all(|page| page.len() <= number));
        assert!(pages.concat() == tags, "{number}");
    }
}

#[tokio::test]
async fn a_number_of_repositories_comes_whole_with_a_link_to_the_rest() {
    let rig = Rig::new();
    let repositories = make_repositories(&rig);
    for (number, sizes) in [
        (usize::MAX, vec![2000]),
        (2000, vec![2000]),
        (1999, vec![1999, 1]),
        (1500, vec![1500, 500]),
        (1000, vec![1000, 1000]),
    ] {
        let pages = pages(&rig, &format!("/v2/_catalog?n={number}"), "repositories").await;
        let counted: Vec<usize> = pages.iter().map(Vec::len).collect();
        assert_eq!(counted, sizes, "{number}");
        assert!(pages.concat() == repositories, "{number}");
    }
    let whole = rig.get("/v2/_catalog?n=1500").await;
    assert_eq!(
        whole.header("content-length"),
        None,
        "it is more than a piece"
    );
    let shown = format!(
        "GET /v2/_catalog?n=9999\nx-tidegate-catalog: -{}/**,+**",
        repositories[0].split('/').next().unwrap()
    );
    let shown = rig.send(&shown, "").await;
    assert!(names(&shown, "repositories") == repositories[100..]);
}

/// Begins a list, of which nothing is taken but the head.
async fn begin(rig: &Rig, path: &str) -> (tokio::net::UnixStream, Vec<u8>) {
    let mut stream = rig.connect().await;
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = vec![0; 1024];
    stream.read_exact(&mut reply).await.unwrap();
    (stream, reply)
}

#[tokio::test]
async fn tags_that_go_while_they_are_listed_leave_valid_json() {
    let rig = Rig::new();
    let tags = make_tags(&rig, COUNT);
    let (mut stream, mut reply) = begin(&rig, "/v2/a/tags/list").await;
    fs::remove_dir_all(rig.path("repositories/a/_manifests/tags")).unwrap();
    stream.read_to_end(&mut reply).await.unwrap();
    let listed = names(&Reply::parse(&reply), "tags");
    assert!(listed.len() < COUNT);
    assert!(listed == tags[..listed.len()]);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_to_its_end_is_cut() {
    let rig = Rig::new();
    let tags = make_tags(&rig, COUNT);
    // To open this is an error.
    let link = rig.path(&format!(
        "repositories/a/_manifests/tags/{}/current/link",
        tags[4000]
    ));
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("link", &link).unwrap();
    let reply = rig.get("/v2/a/tags/list").await;
    assert_eq!(reply.status, 200);
    let (listed, is_whole) = reply.unchunked();
    assert!(
        !is_whole && !listed.ends_with("]}"),
        "it says that this was all"
    );
    let reply = rig
        .get(&format!("/v2/a/tags/list?last={}", tags[3000]))
        .await;
    assert_eq!((reply.status, reply.code()), (500, "UNKNOWN".to_owned()));
}

#[tokio::test]
async fn a_large_manifest_is_a_file_and_a_small_one_is_not() {
    let rig = Rig::new();
    rig.push_image("a", "seed", &image("1")).await;
    let mut index = json!({ "schemaVersion": 2, "mediaType": super::INDEX, "manifests": [] });
    for (size, is_file) in [
        (1 << 10, false),
        (16 << 10, false),
        ((16 << 10) + 1, true),
        (300 << 10, true),
    ] {
        index["annotations"] = json!({ "a": "" });
        let rest = size - index.to_string().len();
        index["annotations"] = json!({ "a": "x".repeat(rest) });
        let content = index.to_string();
        assert_eq!(content.len(), size);
        let digest = rig.put_manifest("a", "v1", &index).await;
        let (reply, file) =
            super::handover::ask(&rig, "/v2/a/manifests/v1", "x-tidegate-file: accept/2\r\n").await;
        assert_eq!(
            reply.header("docker-content-digest"),
            Some(&*digest.to_string())
        );
        assert_eq!(reply.header("content-type"), Some(super::INDEX));
        assert_eq!(file.is_some(), is_file, "{size}");
        if let Some(file) = file {
            let part = format!("0-{}", size - 1);
            assert_eq!(reply.header("x-tidegate-file"), Some(&*part));
            assert_eq!(reply.header("content-length"), Some("0"));
            let mut read = vec![0; size];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut read, 0).unwrap();
            assert!(read == content.as_bytes());
        }
        for path in [
            "/v2/a/manifests/v1".to_owned(),
            format!("/v2/a/manifests/{digest}"),
        ] {
            let get = rig.get(&path).await;
            assert!(get.body == content.as_bytes());
            let head = rig.send(&format!("HEAD {path}"), "").await;
            for name in [
                "content-length",
                "content-type",
                "etag",
                "docker-content-digest",
            ] {
                assert!(head.header(name).is_some());
                assert_eq!(head.header(name), get.header(name), "{name}");
            }
            let known = format!("GET {path}\nif-none-match: \"{digest}\"");
            assert_eq!(rig.send(&known, "").await.status, 304);
        }
        // Torn, as a crash of `registry:2` leaves it.
        let blob = rig.path(&super::blob_path(&digest));
        fs::write(&blob, &content.as_bytes()[1..]).unwrap();
        assert_eq!(rig.get("/v2/a/manifests/v1").await.status, 404);
    }
}

#[tokio::test]
async fn referrers_that_fill_a_page_come_whole() {
    let rig = Rig::new();
    let subject = rig.push_image("a", "v1", &image("1")).await;
    let mut expected = BTreeSet::new();
    for number in 0..20 {
        let mut manifest = referrer(&image("1"), Some("application/x"));
        manifest["annotations"]["note"] = json!(format!("{number}").repeat(30_000));
        let content = manifest.to_string();
        rig.put_manifest("a", &sha256(content.as_bytes()).to_string(), &manifest)
            .await;
        let mut entry = descriptor(MANIFEST, content.as_bytes());
        entry["artifactType"] = json!("application/x");
        entry["annotations"] = manifest["annotations"].clone();
        expected.insert(entry.to_string());
    }
    for _anew_and_kept in 0..2 {
        let reply = rig.get(&format!("/v2/a/referrers/{subject}")).await;
        assert!(reply.body.len() > 600_000);
        assert_eq!(
            reply.header("content-length"),
            Some(&*reply.body.len().to_string())
        );
        assert_eq!(reply.header("link"), None);
        let json = reply.json();
        let listed = json["manifests"].as_array().unwrap();
        let listed: BTreeSet<String> = listed.iter().map(ToString::to_string).collect();
        assert!(listed == expected);
    }
}

#[tokio::test]
async fn a_number_that_is_not_reached_cuts_no_list_short() {
    let rig = Rig::new();
    // More than are left of the number after the first of four pieces.
    let tags = make_tags(&rig, 8000);
    let reply = rig.get("/v2/a/tags/list?n=10000").await;
    assert_eq!(reply.header("link"), None);
    assert!(names(&reply, "tags") == tags);
    let pages = pages(&rig, "/v2/a/tags/list?n=8000", "tags").await;
    assert!(pages.concat() == tags);
}
