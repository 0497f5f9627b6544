//! Uploads that were interrupted: taken up again, given up, or forgotten.

use std::time::Duration;

use crate::harness::{Client, Exchange, Rig, Setup, digest, eventually, noise, pause};
use crate::uploads::{REPOSITORY, append, assert_stored, begin, blob, finish, offset};

/// A PATCH of `bytes` of which so many are sent, and some have arrived.
fn unfinished(client: &Client, location: &str, bytes: &[u8], sent: usize) -> Exchange {
    let mut patch = client
        .request("PATCH", location)
        .header("Content-Length", &bytes.len().to_string())
        .open()
        .unwrap();
    patch.write(&bytes[..sent]).unwrap();
    eventually("bytes to arrive", || {
        (offset(client, location) > 0).then_some(())
    });
    patch
}

/// Goes on from where the registry says, to a blob that is there.
fn resume(client: &Client, location: &str, bytes: &[u8]) {
    let created = eventually("the upload to be resumed", || {
        let from = offset(client, location);
        let reply = append(client, location, from, &bytes[from..]);
        (reply.status == 202).then(|| finish(client, &reply.location(), &digest(bytes)))
    });
    assert_stored(client, &created, bytes, &digest(bytes));
}

#[test]
fn a_body_cut_short_leaves_nothing_visible_and_can_be_resumed() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(9, 3_000_000);
    let location = begin(&client);

    let cut = unfinished(&client, &location, &bytes, 1_500_000);
    drop(cut);

    blob(&client, &digest(&bytes)).expect(404);
    // What arrived before the cut may be kept or not; the client asks and goes on from there.
    resume(&client, &location, &bytes);
}

#[test]
fn an_upload_goes_on_after_the_registry_was_killed() {
    let mut rig = Rig::start();
    let client = rig.client();
    let bytes = noise(12, 4_000_000);
    let location = begin(&client);
    let location = append(&client, &location, 0, &bytes[..1_500_000])
        .expect(202)
        .location();

    rig.crash_registry();

    assert_eq!(offset(&client, &location), 1_500_000);
    let location = append(&client, &location, 1_500_000, &bytes[1_500_000..3_000_000])
        .expect(202)
        .location();
    rig.crash_registry();
    let location = append(&client, &location, 3_000_000, &bytes[3_000_000..])
        .expect(202)
        .location();
    let created = finish(&client, &location, &digest(&bytes));
    assert_stored(&client, &created, &bytes, &digest(&bytes));
}

#[test]
fn an_upload_goes_on_after_the_registry_was_killed_in_the_middle_of_a_chunk() {
    let mut rig = Rig::start();
    let client = rig.client();
    let bytes = noise(13, 4_000_000);
    let location = begin(&client);
    let mut cut = unfinished(&client, &location, &bytes, 2_000_000);

    rig.crash_registry();
    let refused = cut.write(&bytes[2_000_000..]).and_then(|()| cut.reply());
    assert!(refused.map_or(true, |reply| reply.status >= 500));

    let from = offset(&client, &location);
    assert!(from <= 2_000_000, "only bytes that were sent can be there");
    let location = append(&client, &location, from, &bytes[from..])
        .expect(202)
        .location();
    let created = finish(&client, &location, &digest(&bytes));
    assert_stored(&client, &created, &bytes, &digest(&bytes));
}

#[test]
fn an_upload_goes_on_after_the_edge_was_killed() {
    let mut rig = Rig::start();
    let client = rig.client();
    let bytes = noise(14, 3_000_000);
    let location = begin(&client);
    let _cut = unfinished(&client, &location, &bytes, 2_000_000);

    rig.crash_edge();

    resume(&client, &location, &bytes);
}

#[test]
fn a_cancelled_upload_is_gone() {
    let rig = Rig::start();
    let client = rig.client();
    let location = begin(&client);
    let location = append(&client, &location, 0, b"some bytes")
        .expect(202)
        .location();

    client.delete(&location).expect(204);

    client
        .get(&location)
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    append(&client, &location, 10, b"more").expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    finish(&client, &location, &digest(b"some bytes")).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    let uploads = rig
        .tree()
        .join(format!("repositories/{REPOSITORY}/_uploads"));
    assert_eq!(std::fs::read_dir(uploads).map_or(0, Iterator::count), 0);
}

#[test]
fn an_abandoned_upload_expires() {
    let rig = Setup {
        registry: "upload_expiry = \"1s\"".to_owned(),
        ..Setup::default()
    }
    .start();
    let client = rig.client();
    let location = begin(&client);
    append(&client, &location, 0, b"forgotten").expect(202);
    eventually("the upload to expire", || {
        // Looking must not keep it alive.
        pause(Duration::from_millis(200));
        (client.get(&location).status == 404).then_some(())
    });
    let uploads = rig
        .tree()
        .join(format!("repositories/{REPOSITORY}/_uploads"));
    eventually("its bytes to be gone", || {
        (std::fs::read_dir(&uploads).map_or(0, Iterator::count) == 0).then_some(())
    });
}
