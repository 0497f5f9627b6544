//! What was acknowledged stays, what was not is never seen, `kill -9` or not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use crate::harness::{
    Client, MANIFEST, Process, Rig, Setup, digest, eventually, files_below, image, missing, noise,
    pause, push_blob, push_image, push_manifest, skip, tidegate, with_query,
};

/// How often the registry is killed. `TIDEGATE_KILL_ROUNDS` asks for more.
fn rounds() -> u64 {
    let asked = std::env::var("TIDEGATE_KILL_ROUNDS").ok();
    asked.map_or(25, |rounds| rounds.parse().expect("a number of rounds"))
}

/// What a client was told is stored.
enum Acknowledged {
    Blob {
        repository: String,
        digest: String,
    },
    Tag {
        repository: String,
        tag: String,
        digest: String,
    },
}

/// Pushes images, as small and large blobs in whole and in chunks, until told to stop; records
/// each 201. A push that fails is forgotten: it was promised nothing.
fn push_until(
    client: &Client,
    seed: &AtomicU64,
    stop: &AtomicBool,
    log: &Mutex<Vec<Acknowledged>>,
) {
    while !stop.load(Ordering::Relaxed) {
        let number = seed.fetch_add(1, Ordering::Relaxed);
        push_once(client, number, log);
    }
}

fn push_once(client: &Client, number: u64, log: &Mutex<Vec<Acknowledged>>) -> Option<()> {
    let repository = format!("crash/r{}", number % 4);
    let sizes = [100, 40_000, 1_500_000];
    let image = image(
        10_000 + number,
        &sizes[..1 + usize::try_from(number % 3).unwrap()],
    );
    for blob in image.layers.iter().chain([&image.config]) {
        let digest = try_push_blob(client, &repository, blob, number.is_multiple_of(2))?;
        let repository = repository.clone();
        log.lock()
            .unwrap()
            .push(Acknowledged::Blob { repository, digest });
    }
    // One tag, or many at once, which are made durable in another way.
    let tags: Vec<String> = match number % 4 {
        0 => (0..12).map(|tag| format!("t{tag}")).collect(),
        _ => vec![format!("t{}", number % 16)],
    };
    let reference = match tags.as_slice() {
        [tag] => tag.clone(),
        tags => format!("{}?tag={}", image.digest(), tags.join("&tag=")),
    };
    let reply = client
        .request("PUT", &format!("/v2/{repository}/manifests/{reference}"))
        .header("Content-Type", MANIFEST)
        .body(image.manifest.clone())
        .try_send()
        .ok()?;
    if reply.status == 201 {
        let acknowledged = tags.into_iter().map(|tag| Acknowledged::Tag {
            repository: repository.clone(),
            tag,
            digest: image.digest(),
        });
        log.lock().unwrap().extend(acknowledged);
    }
    Some(())
}

/// Pushes one blob in a PUT or in two requests of `PATCH`; `None` when any step was not acknowledged.
fn try_push_blob(client: &Client, repository: &str, bytes: &[u8], chunked: bool) -> Option<String> {
    let digest = digest(bytes);
    let start = client
        .request("POST", &format!("/v2/{repository}/blobs/uploads/"))
        .try_send();
    let start = start.ok().filter(|reply| reply.status == 202)?;
    let mut location = start.location();
    let mut rest = bytes;
    if chunked {
        for chunk in bytes.chunks(bytes.len().div_ceil(2)) {
            let reply = client
                .request("PATCH", &location)
                .body(chunk)
                .try_send()
                .ok()?;
            if reply.status != 202 {
                return None;
            }
            location = reply.location();
        }
        rest = &[];
    }
    let url = with_query(&location, &format!("digest={digest}"));
    let reply = client.request("PUT", &url).body(rest).try_send().ok()?;
    (reply.status == 201).then_some(digest)
}

#[test]
fn kill_9_at_any_moment_loses_nothing_acknowledged_and_shows_nothing_partial() {
    println!("{}", kill_at_any_moment(Rig::start(), rounds()));
}

#[test]
fn kill_9_at_any_moment_is_no_worse_where_everything_goes_through_the_page_cache() {
    let setup = Setup {
        buffered: true,
        ..Setup::default()
    };
    let kept = kill_at_any_moment(setup.start(), rounds().div_ceil(3));
    println!("{kept}");
}

/// Returns what was done, for the test to say.
fn kill_at_any_moment(mut rig: Rig, rounds: u64) -> String {
    let client = rig.client();
    let seed = AtomicU64::new(0);
    let mut acknowledged = 0;
    for round in 0..rounds {
        let log = Mutex::new(Vec::new());
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| push_until(&client, &seed, &stop, &log));
            }
            // Another moment in each round: after so many acknowledgements, and so long after
            // them, from the first request to well into the pushes, however slow the machine is.
            let wanted = usize::try_from(round * 7 % 16).unwrap();
            eventually("pushes to be acknowledged", || {
                (log.lock().unwrap().len() >= wanted).then_some(())
            });
            pause(Duration::from_millis(round * 37 % 100));
            rig.registry().kill();
            stop.store(true, Ordering::Relaxed);
        });
        rig.start_registry();
        rig.wait_until_ready();
        let log = log.into_inner().unwrap();
        acknowledged += log.len();
        assert_all_there(&client, &log, round);
        assert_only_whole_blobs(&rig.tree());
    }
    assert!(
        acknowledged > 0,
        "no push was ever acknowledged: the test proved nothing"
    );
    let pushed = seed.load(Ordering::Relaxed);
    format!("{rounds} kills, {pushed} pushes begun, {acknowledged} acknowledgements kept")
}

fn assert_all_there(client: &Client, log: &[Acknowledged], round: u64) {
    // The last acknowledged push of a tag counts, or one that was under way when all ended.
    let mut tags = std::collections::HashMap::new();
    for entry in log {
        match entry {
            Acknowledged::Blob {
                repository,
                digest: wanted,
            } => {
                let reply = client.get(&format!("/v2/{repository}/blobs/{wanted}"));
                assert_eq!(
                    reply.status, 200,
                    "round {round}: {repository}@{wanted} is lost"
                );
                assert_eq!(&digest(&reply.body), wanted, "round {round}: {repository}");
            }
            Acknowledged::Tag {
                repository,
                tag,
                digest: wanted,
            } => {
                let reply = client.get(&format!("/v2/{repository}/manifests/{wanted}"));
                assert_eq!(
                    reply.status, 200,
                    "round {round}: {repository}@{wanted} is lost"
                );
                assert_eq!(&digest(&reply.body), wanted, "round {round}: {repository}");
                tags.insert((repository, tag), wanted);
            }
        }
    }
    for (repository, tag) in tags.keys() {
        let reply = client.get(&format!("/v2/{repository}/manifests/{tag}"));
        assert_eq!(
            reply.status, 200,
            "round {round}: {repository}:{tag} is lost"
        );
        assert_eq!(
            reply.header("Docker-Content-Digest"),
            Some(digest(&reply.body).as_str())
        );
    }
}

/// Every file that readers would take for a blob is one.
fn assert_only_whole_blobs(tree: &Path) {
    for path in files_below(&tree.join("blobs")) {
        if path.file_name().is_some_and(|name| name == "data") {
            let folder = path.parent().unwrap();
            let hex = folder.file_name().unwrap().to_string_lossy().into_owned();
            let bytes = fs::read(&path).unwrap();
            assert_eq!(
                digest(&bytes),
                format!("sha256:{hex}"),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn the_same_blob_pushed_by_32_clients_at_once_ends_as_one() {
    let rig = Rig::start();
    let client = rig.client();
    let bytes = noise(80, 3_000_000);
    let digest = digest(&bytes);
    let together = Barrier::new(32);

    thread::scope(|scope| {
        for number in 0_u32..32 {
            let (client, bytes, digest, together) = (&client, &bytes, &digest, &together);
            scope.spawn(move || {
                let repository = format!("crowd/r{}", number % 3);
                together.wait();
                let pushed = try_push_blob(client, &repository, bytes, number.is_multiple_of(2));
                assert_eq!(pushed.as_ref(), Some(digest), "client {number}");
            });
        }
    });

    for number in 0..3 {
        let path = format!("/v2/crowd/r{number}/blobs/{digest}");
        assert!(client.get(&path).expect(200).body == bytes);
    }
    let blobs = files_below(&rig.tree().join("blobs"));
    assert_eq!(blobs.len(), 1, "{blobs:?}");
    let left: Vec<PathBuf> = files_below(&rig.tree().join("repositories"))
        .into_iter()
        .filter(|path| path.components().any(|part| part.as_os_str() == "_uploads"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_same_tag_pushed_by_many_at_once_is_one_of_theirs() {
    let rig = Rig::start();
    let client = rig.client();
    let images: Vec<_> = (0..8).map(|number| image(90 + number, &[50])).collect();
    thread::scope(|scope| {
        for image in &images {
            scope.spawn(|| push_image(&client, "crowd/tag", "latest", image));
        }
    });
    let reply = client.get("/v2/crowd/tag/manifests/latest").expect(200);
    assert!(images.iter().any(|image| image.manifest == reply.body));
    for image in &images {
        client
            .get(&format!("/v2/crowd/tag/manifests/{}", image.digest()))
            .expect(200);
    }
}

/// A registry whose syncs and renames are written down.
struct Traced {
    rig: Rig,
    trace: PathBuf,
    _process: Process,
}

impl Traced {
    /// Starts one; returns nothing, and says why, where that cannot be.
    fn start() -> Option<Self> {
        if missing(&["strace"]).is_some() {
            skip("no strace");
            return None;
        }
        let mut rig = Rig::start();
        rig.registry().terminate();
        let trace = rig.path("trace");
        let mut traced = Command::new("strace");
        let calls = "trace=fsync,fdatasync,syncfs,sync_file_range,rename,renameat,renameat2,linkat";
        traced
            .args(["-f", "-y", "-qq", "-s", "1000", "-e", calls])
            .arg("-o")
            .arg(&trace)
            .arg(tidegate().get_program())
            .args(["registry", "--config"])
            .arg(rig.config());
        let mut process = Process::start(&mut traced, &rig.path("strace.log"));
        let able = eventually("the traced registry", || {
            if process.exited().is_some() {
                return Some(false);
            }
            let reply = rig.client().request("GET", "/v2/").try_send().ok()?;
            (reply.status == 200).then_some(true)
        });
        if !able {
            skip("strace may not trace here");
            return None;
        }
        Some(Self {
            rig,
            trace,
            _process: process,
        })
    }

    /// What was written down up to the first line with `part` after the first `from` bytes, and a
    /// little more.
    fn until(&self, from: usize, part: &str) -> String {
        eventually("the trace", || {
            let text = fs::read_to_string(&self.trace).ok()?;
            let text = text.get(from..)?;
            text.contains(part).then(|| text.to_owned())
        })
    }

    fn so_far(&self) -> usize {
        fs::read_to_string(&self.trace).map_or(0, |text| text.len())
    }
}

fn is_sync(line: &str) -> bool {
    ["fsync(", "fdatasync(", "syncfs("]
        .iter()
        .any(|call| line.contains(call))
}

#[test]
fn an_acknowledged_blob_was_synced_with_its_folders() {
    let Some(traced) = Traced::start() else {
        return;
    };
    let rig = &traced.rig;
    let blob = push_blob(&rig.client(), "synced/app", &noise(85, 100_000));
    let hex = &blob[7..];
    let text = traced.until(0, hex);
    let synced = |what: &str| {
        let names = |line: &str| is_sync(line) && line.contains(what);
        text.lines().any(names) || text.contains("syncfs(")
    };
    // The bytes, under whatever name they had; the folder that got the name; the link's folder.
    assert!(
        synced("_uploads") || synced("/data"),
        "the data was not synced:\n{text}"
    );
    assert!(
        synced(&format!("/{hex}>")),
        "the blob's folder was not synced:\n{text}"
    );
    assert!(synced("_layers"), "the link was not synced:\n{text}");

    // One that is written past the page cache is synced no less, before it gets its name.
    let large = push_blob(&rig.client(), "synced/app", &noise(86, 3_000_000));
    let text = traced.until(0, &large[7..]);
    let (before, _) = text.split_at(text.find(&large[7..]).unwrap());
    let text = before.rsplit('\n').take(20).collect::<Vec<_>>().join("\n");
    let is_data_sync = |line: &str| line.contains("fdatasync(") && line.contains("_uploads");
    assert!(
        text.lines().any(is_data_sync),
        "the large blob was not synced before it was moved:\n{text}"
    );
}

/// 100 tags took 200 files, each synced with its folders, one after the other: more than a second, in
/// which nobody else could push to the repository.
#[test]
fn the_tags_of_one_manifest_are_synced_together_and_after_what_they_name() {
    let Some(traced) = Traced::start() else {
        return;
    };
    let client = traced.rig.client();
    push_image(&client, "synced/app", "first", &image(87, &[10]));
    let tagged = image(88, &[10]);
    push_blob(&client, "synced/app", &tagged.config);
    push_blob(&client, "synced/app", &tagged.layers[0]);
    let from = traced.so_far();
    let tags: Vec<String> = (0..100).map(|number| format!("tag=t{number:02}")).collect();
    let reference = format!("{}?{}", tagged.digest(), tags.join("&"));
    push_manifest(
        &client,
        "synced/app",
        &reference,
        MANIFEST,
        &tagged.manifest,
    )
    .expect(201);
    let text = traced.until(from, "/tags/t99/current/link");
    let lines: Vec<&str> = text.lines().collect();
    let syncs: Vec<usize> = (0..lines.len()).filter(|at| is_sync(lines[*at])).collect();
    println!("{} syncs", syncs.len());
    assert!(!syncs.is_empty() && syncs.len() <= 4, "{text}");
    // Each kind of thing was moved to its place only after a sync that came after the one before.
    let moved = |part: &str| -> (usize, usize) {
        let is_it = |at: &usize| lines[*at].contains("rename") && lines[*at].contains(part);
        let mut at = (0..lines.len()).filter(is_it);
        let first = at.next().expect(part);
        (first, at.next_back().unwrap_or(first))
    };
    let hex = &tagged.digest()[7..];
    let blob = moved(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]));
    let revision = moved(&format!("revisions/sha256/{hex}/link"));
    let (histories, names) = (
        moved(&format!("/index/sha256/{hex}/")),
        moved("/current/link"),
    );
    let synced = |from: usize, to: usize| syncs.iter().any(|at| (from..to).contains(at));
    assert!(synced(0, blob.0), "the contents were not synced:\n{text}");
    assert!(synced(blob.1, revision.0), "{text}");
    assert!(synced(revision.1.max(histories.1), names.0), "{text}");
    assert!(synced(names.1, lines.len()), "{text}");
}
