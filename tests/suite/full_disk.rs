//! A disk that is full: a clear error, and nothing lost of what was there.

use std::fs;
use std::process::Command;

use crate::harness::{
    Client, INDEX, Setup, SmallDisk, digest, eventually, image, noise, push_image, run, skip,
    with_query,
};

#[test]
fn a_full_disk_is_a_clear_error_reads_go_on_and_room_brings_writes_back() {
    for buffered in [false, true] {
        fill_a_disk(buffered);
    }
}

fn fill_a_disk(buffered: bool) {
    let Some(disk) = SmallDisk::mount(24) else {
        skip("only root can mount a small disk");
        return;
    };
    let rig = Setup {
        root: Some(disk.path().join("registry")),
        buffered,
        ..Setup::default()
    }
    .start();
    let client = rig.client();
    let kept = image(81, &[1_000_000]);
    push_image(&client, "full", "kept", &kept);
    let ballast = disk.path().join("ballast");
    run(Command::new("fallocate").args(["-l", "12M"]).arg(&ballast));

    let large = noise(82, 20_000_000);
    let refused = try_reply(&client, &large);
    let status = refused.as_ref().map(|reply| reply.status);
    assert!(matches!(status, Some(500..=599)), "{refused:?}");
    let refused = refused.unwrap();
    assert!(
        refused.text().to_lowercase().contains("space"),
        "{}",
        refused.text()
    );
    refused.error_code();

    let path = format!("/v2/full/blobs/{}", digest(&large));
    client.get(&path).expect_error(404, "BLOB_UNKNOWN");
    assert_eq!(
        client.get("/v2/full/manifests/kept").expect(200).body,
        kept.manifest
    );
    let layer = format!("/v2/full/blobs/{}", digest(&kept.layers[0]));
    assert_eq!(client.get(&layer).expect(200).body, kept.layers[0]);

    // Not one byte left: manifests and sessions have nowhere to go either.
    drop(crate::harness::try_run(
        Command::new("dd")
            .arg("if=/dev/zero")
            .arg(format!("of={}.2", ballast.display())),
    ));
    let session = client.post("/v2/full/blobs/uploads/");
    assert!(matches!(session.status, 202 | 500..=599), "{session:?}");
    let other = image(83, &[]);
    let tag = client
        .request("PUT", "/v2/full/manifests/kept")
        .header("Content-Type", INDEX)
        .body(crate::harness::index_of(&[&kept]))
        .send();
    assert!(matches!(tag.status, 500..=599), "{tag:?}");
    assert_eq!(
        client.get("/v2/full/manifests/kept").expect(200).body,
        kept.manifest
    );

    fs::remove_file(&ballast).unwrap();
    fs::remove_file(format!("{}.2", ballast.display())).unwrap();
    push_image(&client, "full", "other", &other);
    eventually("room for a blob", || {
        let bytes = noise(84, 5_000_000);
        try_reply(&client, &bytes).filter(|reply| reply.status == 201)
    });
}

/// Pushes a blob in one PUT and returns the reply, whatever it is.
fn try_reply(client: &Client, bytes: &[u8]) -> Option<crate::harness::Response> {
    let session = client
        .request("POST", "/v2/full/blobs/uploads/")
        .try_send()
        .ok()?;
    if session.status != 202 {
        return Some(session);
    }
    let url = with_query(&session.location(), &format!("digest={}", digest(bytes)));
    client.request("PUT", &url).body(bytes).try_send().ok()
}
