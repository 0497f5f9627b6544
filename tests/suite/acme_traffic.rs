//! Certificates that change under way, and clients that must not notice.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use openssl::hash::{Hasher, MessageDigest};
use openssl::ssl::{SslConnector, SslMethod};

use crate::acme::{issued, presented, site, start, tidegate_with};
use crate::harness::{
    Client, PASSWORD, Rig, USER, eventually, heavy, need, noise, pause, with_query,
};

const MIB: usize = 1 << 20;

/// How long the client that comes again and again rests in between.
const EVERY: Duration = Duration::from_millis(3);

/// What the clients of a swap know of each other.
#[derive(Default)]
struct Signs {
    /// Pieces of the push that are sent.
    pushed: AtomicUsize,
    /// The new certificate was seen.
    swapped: AtomicBool,
    /// There is nothing more to be seen.
    stop: AtomicBool,
}

impl Signs {
    fn wait_for_the_swap(&self) {
        let swapped = || self.swapped.load(Ordering::Acquire).then_some(());
        eventually("the swap", swapped);
    }

    /// Does something again and again, until there is nothing more to be seen.
    fn until_stopped(&self, mut again: impl FnMut()) {
        while !self.stop.load(Ordering::Relaxed) {
            again();
            pause(EVERY);
        }
    }
}

#[test]
fn a_renewal_is_swapped_in_while_clients_come_and_a_push_goes_on() {
    need!("pebble", "pebble-challtestsrv");
    let _one = heavy();
    let large = std::env::var_os("TIDEGATE_HEAVY").is_some();
    let pieces = if large { 1024 } else { 128 };
    let (rig, ca) = start(&site("\"a.acme.test\""));
    issued(&rig, "a.acme.test");
    let before = presented(&rig, "a.acme.test");
    let root = ca.root();
    let client = Client::tls(rig.https, "a.acme.test", &root).as_user(USER, PASSWORD);
    let piece = noise(7, MIB);
    let digest = digest_of(&piece, pieces);
    let session = client.post("/v2/swap/app/blobs/uploads/").expect(202);
    let put = with_query(&session.location(), &format!("digest={digest}"));
    let length = (pieces * MIB).to_string();
    let signs = Signs::default();

    let (all, after) = thread::scope(|scope| {
        let coming = scope.spawn(|| come_again_and_again(&rig, &root, &before, &signs));
        let asking = scope.spawn(|| {
            signs.until_stopped(|| {
                client.get("/v2/").expect(200);
            });
        });
        let pushing = scope.spawn(|| {
            let request = client.request("PUT", &put);
            let mut upload = request.header("Content-Length", &length).open().unwrap();
            for number in 0..pieces {
                if number == pieces * 3 / 4 {
                    // The rest goes over the same connection, after the swap.
                    signs.wait_for_the_swap();
                }
                upload.write(&piece).unwrap();
                signs.pushed.store(number, Ordering::Relaxed);
            }
            upload.reply().unwrap().expect(201)
        });
        eventually("the push to be under way", || {
            (signs.pushed.load(Ordering::Relaxed) > pieces / 8).then_some(())
        });

        let renewed = tidegate_with(&rig, &["renew"]);
        assert!(renewed.success, "{renewed}\n{}", rig.edge_log());
        eventually("the new certificate", || {
            (presented(&rig, "a.acme.test") != before).then_some(())
        });
        signs.swapped.store(true, Ordering::Release);

        pushing.join().unwrap();
        signs.stop.store(true, Ordering::Relaxed);
        asking.join().unwrap();
        coming.join().unwrap()
    });
    assert!(
        all > 50 && after > 5,
        "{all} connections, {after} after the swap"
    );
    let blob = client.head(&format!("/v2/swap/app/blobs/{digest}"));
    assert_eq!(blob.expect(200).header("Content-Length"), Some(&*length));
    let archived = fs::read_dir(rig.path("state/archive/a.acme.test")).unwrap();
    assert_eq!(archived.count(), 2, "the one before is kept");
}

/// Connects, checks what is shown, and does it again; returns how often, in all and after the swap.
fn come_again_and_again(rig: &Rig, root: &Path, before: &[u8], signs: &Signs) -> (u32, u32) {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_ca_file(root).unwrap();
    let connector = connector.build();
    let (mut all, mut after) = (0, 0);
    signs.until_stopped(|| {
        let was_swapped = signs.swapped.load(Ordering::Acquire);
        let tcp = TcpStream::connect(rig.https).unwrap();
        // The chain is checked, and so is the name: any failure ends the test.
        let stream = connector.connect("a.acme.test", tcp).unwrap();
        let shown = stream.ssl().peer_certificate().unwrap().to_der().unwrap();
        all += 1;
        if was_swapped {
            assert!(shown != before, "the old one after the swap");
            after += 1;
        }
    });
    (all, after)
}

/// The digest of a blob that is this piece, so many times.
fn digest_of(piece: &[u8], times: usize) -> String {
    let mut hasher = Hasher::new(MessageDigest::sha256()).unwrap();
    for _ in 0..times {
        hasher.update(piece).unwrap();
    }
    let digest = hasher.finish().unwrap();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
