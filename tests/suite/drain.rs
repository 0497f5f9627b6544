//! SIGTERM: transfers under way finish, new connections go elsewhere.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Rig, Setup, digest, eventually, half_a_push, noise, push_blob};

#[test]
fn a_slow_push_completes_while_the_edge_drains_and_new_connections_are_refused() {
    let mut rig = Rig::start();
    let bytes = noise(96, 2_000_000);
    let mut push = half_a_push(&rig.client(), &bytes);

    rig.edge().signal(Signal::TERM);

    eventually("new connections to be refused", || {
        TcpStream::connect(rig.https).is_err().then_some(())
    });
    let log = rig.edge_log();
    assert!(rig.edge().exited().is_none(), "the edge did not wait");
    assert!(
        log.contains("drain") || log.contains("under way") || log.contains("wait"),
        "{log}"
    );
    push.write(&bytes[bytes.len() / 2..]).unwrap();
    push.reply().unwrap().expect(201);
    let status = rig.edge().wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{}", rig.edge_log());
    rig.start_edge();
    rig.wait_until_ready();
    let path = format!("/v2/slow/blobs/{}", digest(&bytes));
    assert!(rig.client().get(&path).expect(200).body == bytes);
}

#[test]
fn a_slow_pull_completes_while_the_edge_drains() {
    let mut rig = Rig::start();
    let client = rig.client();
    let bytes = noise(97, 30_000_000);
    let name = push_blob(&client, "slow", &bytes);
    let mut pull = client
        .request("GET", &format!("/v2/slow/blobs/{name}"))
        .open()
        .unwrap();
    let head = pull.reply_head().unwrap().expect(200);
    assert_eq!(head.header("Content-Length"), Some("30000000"));

    rig.edge().signal(Signal::TERM);
    eventually("new connections to be refused", || {
        TcpStream::connect(rig.https).is_err().then_some(())
    });

    let mut received = Vec::new();
    let mut piece = vec![0; 1 << 16];
    while received.len() < bytes.len() {
        let count = pull.read_some(&mut piece).unwrap();
        assert!(count > 0, "cut after {} bytes", received.len());
        received.extend_from_slice(&piece[..count]);
    }
    assert!(received == bytes);
    assert_eq!(rig.edge().wait(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn an_idle_edge_ends_at_once() {
    let mut rig = Rig::start();
    rig.client().get("/v2/").expect(200);
    // An idle connection is no transfer.
    let idle = rig.client().connect().unwrap();
    rig.edge().signal(Signal::TERM);
    assert_eq!(rig.edge().wait(Duration::from_secs(10)).code(), Some(0));
    drop(idle);
}

#[test]
fn the_drain_ends_at_its_limit() {
    let mut rig = Setup {
        top: "drain_timeout = \"1s\"".to_owned(),
        ..Setup::default()
    }
    .start();
    let push = half_a_push(&rig.client(), &noise(98, 2_000_000));
    rig.edge().signal(Signal::TERM);
    rig.edge().wait(Duration::from_secs(20));
    drop(push);
}

#[test]
fn the_registry_drains_too() {
    let mut rig = Rig::start();
    // The registry writes it in pieces of 1 MiB.
    let bytes = noise(99, 8_000_000);
    let mut push = half_a_push(&rig.client(), &bytes);
    // The half must have reached the registry before it is asked to stop.
    eventually("bytes to arrive", || {
        let mut size = 0;
        let uploads = rig.tree().join("repositories/slow/_uploads");
        for session in std::fs::read_dir(uploads).ok()?.flatten() {
            size = session
                .path()
                .join("data")
                .metadata()
                .map_or(0, |data| data.len());
        }
        (size > 0).then_some(())
    });

    rig.registry().signal(Signal::TERM);
    push.write(&bytes[bytes.len() / 2..]).unwrap();
    push.reply().unwrap().expect(201);

    assert_eq!(rig.registry().wait(Duration::from_secs(20)).code(), Some(0));
}
