//! One user who asks for as much as they can, and others who are to notice nothing of it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use openssl::base64;
use serde_json::json;

use crate::harness::h2::{self, H2};
use crate::harness::{
    Client, Image, MANIFEST, PASSWORD, Pair, Rig, Setup, digest, eventually, files_below, image,
    image_with, push_blob, push_image, push_manifest,
};

const FLOODER: &str = "mallory";

/// What mallory floods.
const FLOODED: &str = "home/mallory";

/// How long anything may take beside a flood. Before, nothing was answered within a minute and a half.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two registries, the second open to all; and two users of the first, of whom one is mallory.
struct Fair {
    rig: Rig,
    mallory: Client,
    /// What mallory pushes.
    image: Image,
    /// A client of the second registry.
    elsewhere: Client,
}

impl Fair {
    fn start() -> Self {
        let folder = tempfile::TempDir::with_prefix("team").unwrap().keep();
        let pair = Pair::create(&folder, "team", &["team.test"]);
        let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
        let tables = format!(
            r#"
[[site]]
hosts = ["team.test"]
certificate = {{ cert_file = "{cert}", key_file = "{key}" }}
upstream = "team"
[[registry.instance]]
name = "team"
listen = "unix:{folder}/team.sock"
storage.filesystem.root = "{folder}/registry"
"#,
            cert = pair.cert.display(),
            key = pair.key.display(),
            folder = folder.display(),
        );
        let rig = Setup {
            tables,
            htpasswd: Some(format!("docker:{hashed}\n{FLOODER}:{hashed}\n")),
            ..Setup::default()
        }
        .start();
        let mallory = rig.anonymous().as_user(FLOODER, PASSWORD);
        let image = image(1, &[]);
        push_blob(&mallory, FLOODED, &image.config);
        Self {
            elsewhere: Client::tls(rig.https, "team.test", &pair.cert),
            rig,
            mallory,
            image,
        }
    }

    /// The frames of a request of mallory's that sets 100 tags.
    fn put(&self, connection: &mut H2, number: usize) -> Vec<u8> {
        let mut path = format!("/v2/{FLOODED}/manifests/{}?", self.image.digest());
        for tag in 0..100 {
            write!(path, "tag=t{number}-{tag}&").unwrap();
        }
        let credentials = base64::encode_block(format!("{FLOODER}:{PASSWORD}").as_bytes());
        let headers = [
            ("authorization", format!("Basic {credentials}")),
            ("content-type", MANIFEST.to_owned()),
        ];
        let headers = headers.each_ref().map(|(name, value)| (*name, &**value));
        let path = path.trim_end_matches('&');
        let (stream, head) = connection.open_with("PUT", path, false, &headers);
        let body = h2::frame(h2::DATA, 1, stream, &self.image.manifest);
        [head, body].concat()
    }

    /// Keeps 100 such requests under way until told to stop; counts those that are answered.
    fn flood(&self, lane: usize, stop: &AtomicBool, answered: &AtomicUsize) {
        let mut connection = H2::connect(&self.rig).unwrap();
        let mut number = lane * 1_000_000;
        for _ in 0..100 {
            number += 1;
            let put = self.put(&mut connection, number);
            connection.send(&put).unwrap();
        }
        while !stop.load(Ordering::Relaxed) {
            let Ok(frame) = connection.receive() else {
                return;
            };
            let is_reply = matches!(frame.kind, h2::DATA | h2::HEADERS) && frame.flags & 1 != 0;
            if is_reply {
                answered.fetch_add(1, Ordering::Relaxed);
                number += 1;
                let put = self.put(&mut connection, number);
                connection.send(&put).unwrap();
            }
        }
    }

    fn tags_of_mallory(&self) -> usize {
        let tags = format!("repositories/{FLOODED}/_manifests/tags");
        let files = files_below(&self.rig.tree().join(tags));
        let is_current = |path: &&std::path::PathBuf| path.ends_with("current/link");
        files.iter().filter(is_current).count()
    }
}

/// Ends a flood, also when the test fails meanwhile.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does everything that users do, and says what took how long.
fn a_day_of(client: &Client, repository: &str, seed: u64) -> HashMap<&'static str, Duration> {
    let mut took = HashMap::new();
    let mut timed = |what, action: &mut dyn FnMut()| {
        let begin = Instant::now();
        action();
        took.insert(what, begin.elapsed());
    };
    let new = image(seed, &[1000, 2_000_000]);
    timed("to begin an upload", &mut || {
        let path = format!("/v2/{repository}/blobs/uploads/");
        client.post(&path).expect(202);
    });
    timed("to push an image", &mut || {
        push_image(client, repository, "v", &new);
    });
    timed("to list referrers", &mut || {
        let path = format!("/v2/{repository}/referrers/{}", new.digest());
        client.get(&path).expect(200);
    });
    timed("to list tags", &mut || {
        client
            .get(&format!("/v2/{repository}/tags/list"))
            .expect(200);
    });
    timed("to pull", &mut || {
        client
            .get(&format!("/v2/{repository}/manifests/v"))
            .expect(200);
        for layer in &new.layers {
            let path = format!("/v2/{repository}/blobs/{}", digest(layer));
            client.get(&path).expect(200);
        }
    });
    timed("to delete a tag", &mut || {
        client
            .delete(&format!("/v2/{repository}/manifests/v"))
            .expect(202);
    });
    took
}

#[test]
fn who_floods_one_repository_with_tags_stops_nobody_else() {
    let fair = Fair::start();
    let others = fair.rig.client();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let took = thread::scope(|scope| {
        let _stop = Stop(&stop);
        for lane in 0..2 {
            let (fair, stop, answered) = (&fair, &stop, &answered);
            scope.spawn(move || fair.flood(lane, stop, answered));
        }
        eventually("the flood to have begun", || {
            (fair.tags_of_mallory() > 0).then_some(())
        });
        let took = [
            ("here", a_day_of(&others, "team/app", 10)),
            // Who shares the repository has to wait for it, but not for all that mallory asks.
            ("in the same repository", a_day_of(&others, FLOODED, 11)),
            ("elsewhere", a_day_of(&fair.elsewhere, "team/app", 12)),
        ];
        let before = answered.load(Ordering::Relaxed);
        eventually("the flood to go on", || {
            (answered.load(Ordering::Relaxed) > before).then_some(())
        });
        took
    });
    println!("{} floods answered; {took:?}", answered.into_inner());
    for (place, took) in took {
        for (what, time) in took {
            assert!(time < PATIENCE, "{what} {place} took {time:?}");
        }
    }
}

#[test]
fn a_flood_is_gone_soon_after_who_sent_it() {
    let fair = Fair::start();
    let mut connections = Vec::new();
    for lane in 0..2 {
        let mut connection = H2::connect(&fair.rig).unwrap();
        for number in 0..100 {
            let put = fair.put(&mut connection, lane * 100 + number);
            connection.send(&put).unwrap();
        }
        connections.push(connection);
    }
    eventually("the flood to have begun", || {
        (fair.tags_of_mallory() > 0).then_some(())
    });
    drop(connections);
    let begin = Instant::now();
    let image = image(2, &[]);
    push_blob(&fair.mallory, FLOODED, &image.config);
    push_manifest(&fair.mallory, FLOODED, "mine", MANIFEST, &image.manifest).expect(201);
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    let tags = fair.tags_of_mallory();
    println!("{tags} tags of 20,000 were set");
    assert!(tags < 10_000, "{tags} tags were set for nobody");
}

#[test]
fn who_begins_uploads_without_end_is_told_so_and_nobody_else_is() {
    let fair = Fair::start();
    let path = "/v2/home/mallory/blobs/uploads/";
    let mut connection = fair.mallory.connect().unwrap();
    let mut begin = || {
        let request = fair.mallory.request("POST", path);
        connection
            .ask(request.header("Content-Length", "0"))
            .unwrap()
    };
    let first = begin().expect(202).location();
    for _ in 1..500 {
        begin().expect(202);
    }
    for _ in 0..20 {
        let refused = begin().expect_error(429, "TOOMANYREQUESTS");
        assert!(refused.header("Retry-After").is_some());
    }
    push_blob(&fair.rig.client(), FLOODED, b"of another user");
    push_blob(&fair.elsewhere, FLOODED, b"of another registry");
    fair.mallory.delete(&first).expect(204);
    begin().expect(202);
    begin().expect(429);
}

/// Memory for large manifests is kept for one that comes too slowly only until others want it.
#[test]
fn a_large_manifest_that_stops_on_the_way_makes_room_for_others() {
    let fair = Fair::start();
    let others = fair.rig.client();
    // It will be so large that it takes all that one user can have.
    let path = format!("/v2/{FLOODED}/manifests/stalled");
    let stalled = fair.mallory.request("PUT", &path);
    let stalled = stalled.header("Content-Type", MANIFEST);
    let mut stalled = stalled.header("Content-Length", "4000000").open().unwrap();
    stalled.write(&vec![b' '; 600 << 10]).unwrap();
    let note = json!({"annotations": {"note": "a".repeat(100 << 10)}});
    let large = image_with(3, &[], &note);
    for (client, patience) in [
        // They never wait for mallory's.
        (&others, Duration::from_secs(5)),
        // It may be late for ten seconds, and a second for each 64 KiB that have come.
        (&fair.mallory, Duration::from_secs(30)),
    ] {
        push_blob(client, FLOODED, &large.config);
        let begin = Instant::now();
        push_manifest(client, FLOODED, "large", MANIFEST, &large.manifest).expect(201);
        assert!(begin.elapsed() < patience, "{:?}", begin.elapsed());
    }
    let cut = stalled.reply().unwrap();
    cut.expect_error(429, "TOOMANYREQUESTS");
}
