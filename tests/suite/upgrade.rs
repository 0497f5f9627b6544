//! Restarts and upgrades: sockets stay open, transfers finish, and nobody is refused.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::Signal;
use slots::descriptors;

use crate::harness::{
    Client, Output, Process, Rig, Setup, descendants, digest, eventually, free_port, half_a_push,
    image, noise, push_image, tidegate, try_run,
};

fn supervised() -> Rig {
    Setup {
        supervised: true,
        ..Setup::default()
    }
    .start()
}

fn upgrade(rig: &Rig, more: &[&str]) -> Output {
    let mut command = tidegate();
    command.arg("upgrade").arg("--config").arg(rig.config());
    try_run(command.args(more))
}

/// Asks again and again while `work` goes on; each answer has to be a good one.
fn nobody_is_refused<T>(client: &Client, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                let reply = client.request("GET", "/v2/").try_send();
                assert_eq!(reply.expect("a reply").status, 200);
                asked += 1;
            }
            asked
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
        result
    })
}

#[test]
fn an_upgrade_amid_pushes_cuts_none_and_refuses_nobody() {
    let mut rig = supervised();
    let client = rig.client();
    let bytes = noise(301, 3_000_000);
    let mut push = half_a_push(&client, &bytes);
    let before: Vec<i32> = rig.pids().into_iter().flat_map(descendants).collect();

    nobody_is_refused(&client, || {
        let upgraded = upgrade(&rig, &[]);
        assert!(upgraded.success, "{upgraded}");
        for role in ["edge", "registry"] {
            let said = format!("{role}: a new process serves, version ");
            assert!(upgraded.stdout.contains(&said), "{upgraded}");
        }
        // The next requests come to the new processes, and find what the old ones have kept.
        push_image(&client, "a/b", "v1", &image(302, &[100_000, 300]));
        push.write(&bytes[bytes.len() / 2..]).unwrap();
        push.reply().unwrap().expect(201);
    });

    let path = format!("/v2/slow/blobs/{}", digest(&bytes));
    assert!(client.get(&path).expect(200).body == bytes);
    eventually("the old processes to end", || {
        let now: Vec<i32> = rig.pids().into_iter().flat_map(descendants).collect();
        let left = now.iter().any(|pid| before.contains(pid));
        (!left && now.len() == 2).then_some(())
    });
    for role in [0, 1] {
        let process = if role == 0 {
            rig.edge()
        } else {
            rig.registry()
        };
        assert_eq!(process.terminate().code(), Some(0), "{}", process.log());
    }
}

#[test]
fn an_upload_that_the_old_registry_writes_to_is_waited_for() {
    let rig = supervised();
    let client = rig.client();
    let place = client.post("/v2/a/blobs/uploads/").expect(202).location();
    let bytes = noise(303, 200_000);
    let (first, rest) = bytes.split_at(100_000);
    let mut patch = client
        .request("PATCH", &place)
        .header("Content-Length", &first.len().to_string())
        .open()
        .unwrap();
    patch.write(&first[..50_000]).unwrap();
    let upgraded = upgrade(&rig, &["--role", "registry"]);
    assert!(upgraded.success, "{upgraded}");

    let next = thread::scope(|scope| {
        let next = scope.spawn(|| {
            let patch = client.request("PATCH", &place).body(rest);
            patch.header("Content-Range", "100000-199999").send()
        });
        patch.write(&first[50_000..]).unwrap();
        patch.reply().unwrap().expect(202);
        next.join().unwrap()
    });
    let place = next.expect(202).location();
    let name = digest(&bytes);
    let put = crate::harness::with_query(&place, &format!("digest={name}"));
    client.request("PUT", &put).send().expect(201);
    let read = client.get(&format!("/v2/a/blobs/{name}")).expect(200);
    assert!(read.body == bytes);
}

#[test]
fn a_successor_that_cannot_start_changes_nothing() {
    let rig = supervised();
    let good = fs::read_to_string(rig.config()).unwrap();
    fs::write(rig.config(), good.replace("realm = ", "raelm = ")).unwrap();
    let refused = upgrade(&rig, &["--role", "edge"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("raelm"), "{refused}");
    rig.client().get("/v2/").expect(200);
    fs::write(rig.config(), good).unwrap();
    let upgraded = upgrade(&rig, &[]);
    assert!(upgraded.success, "{upgraded}");
    rig.client().get("/v2/").expect(200);
}

#[test]
fn a_listener_that_is_gone_from_the_config_is_closed_and_a_new_one_opened() {
    let rig = supervised();
    let old = fs::read_to_string(rig.config()).unwrap();
    let port = free_port();
    let moved = rig.http.port().to_string();
    fs::write(rig.config(), old.replace(&moved, &port.to_string())).unwrap();
    let upgraded = upgrade(&rig, &["--role", "edge"]);
    assert!(upgraded.success, "{upgraded}");
    rig.client().get("/v2/").expect(200);
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    eventually("the old listener to be closed", || {
        let connected = std::net::TcpStream::connect(rig.http);
        connected.is_err().then_some(())
    });
}

#[test]
fn a_transfer_outlasts_an_upgrade_and_the_restart_that_follows() {
    let mut rig = supervised();
    let bytes = noise(304, 2_000_000);
    let mut push = half_a_push(&rig.client(), &bytes);
    let upgraded = upgrade(&rig, &[]);
    assert!(upgraded.success, "{upgraded}");
    // As systemd does; the processes that have been told to finish are told so once more.
    for role in [0, 1] {
        let supervisor = if role == 0 {
            rig.edge()
        } else {
            rig.registry()
        };
        supervisor.signal(Signal::USR1);
        assert_eq!(supervisor.wait(Duration::from_secs(10)).code(), Some(0));
    }
    push.write(&bytes[bytes.len() / 2..]).unwrap();
    push.reply().unwrap().expect(201);
}

#[test]
fn a_listener_moves_to_an_address_that_overlaps_at_a_restart() {
    let rig = Setup::default().prepare();
    let notify = rig.path("edge.manager");
    let mut manager = Manager::at(&notify);
    let mut first = manager.start(&rig, "edge", &notify);
    manager.until_ready();
    first.signal(Signal::USR1);
    assert_eq!(first.wait(Duration::from_secs(10)).code(), Some(0));
    let text = fs::read_to_string(rig.config()).unwrap();
    let wide = format!("0.0.0.0:{}", rig.https.port());
    fs::write(rig.config(), text.replace(&rig.https.to_string(), &wide)).unwrap();
    let _second = manager.start(&rig, "edge", &notify);
    manager.until_ready();
    std::net::TcpStream::connect(rig.https).unwrap();
}

#[test]
fn a_role_that_cannot_start_has_nobody_wait_for_it() {
    let rig = Setup::default().prepare();
    let notify = rig.path("registry.manager");
    let mut manager = Manager::at(&notify);
    let mut first = manager.start(&rig, "registry", &notify);
    manager.until_ready();
    first.signal(Signal::USR1);
    assert_eq!(first.wait(Duration::from_secs(10)).code(), Some(0));
    let moved = rig.root.with_extension("away");
    fs::rename(&rig.root, &moved).unwrap();
    fs::write(&rig.root, "no folder").unwrap();
    let mut second = manager.start(&rig, "registry", &notify);
    assert_eq!(second.wait(Duration::from_secs(30)).code(), Some(1));
    manager.hear();
    assert!(
        std::os::unix::net::UnixStream::connect(rig.socket()).is_err(),
        "somebody waits there"
    );
}

#[test]
fn a_role_of_its_own_says_that_it_has_to_be_restarted() {
    let rig = Rig::start();
    let refused = upgrade(&rig, &[]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("restart it"), "{refused}");
    rig.client().get("/v2/").expect(200);
}

/// What a service manager keeps of a role (`FDSTORE=1`).
struct Manager {
    socket: UnixDatagram,
    kept: Vec<(String, OwnedFd)>,
}

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        Self {
            socket,
            kept: Vec::new(),
        }
    }

    /// Takes what a role says until it is ready.
    fn until_ready(&mut self) {
        eventually("the role to be ready", || self.hear().then_some(()));
    }

    /// Takes what a role has said; returns whether it is ready.
    fn hear(&mut self) -> bool {
        let mut ready = false;
        loop {
            let (mut text, mut files) = (vec![0; 4096], Vec::new());
            let Ok(length) = descriptors::receive(&self.socket, &mut text, &mut files) else {
                return ready;
            };
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            let name = text.split("FDNAME=").nth(1).unwrap_or_default().trim();
            if text.contains("FDSTOREREMOVE=1") {
                self.kept.retain(|(other, _)| other != name);
            } else if let Some(open) = files.pop() {
                self.kept.push((name.to_owned(), open));
            }
            ready |= text.contains("READY=1");
        }
    }

    /// Starts a role as systemd does, with what was kept.
    fn start(&self, rig: &Rig, role: &str, notify: &Path) -> Process {
        let mut command = Command::new("sh");
        let program = tidegate();
        let names: Vec<&str> = self.kept.iter().map(|(name, _)| name.as_str()).collect();
        let mappings = self
            .kept
            .iter()
            .zip(3..)
            .map(|((_, open), child_fd)| FdMapping {
                parent_fd: open.try_clone().unwrap(),
                child_fd,
            });
        command
            .args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"])
            .arg(program.get_program())
            .args([role, "--supervise", "--config"])
            .arg(rig.config())
            .env("NOTIFY_SOCKET", notify)
            .env("LISTEN_FDS", self.kept.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .fd_mappings(mappings.collect())
            .unwrap();
        Process::start(&mut command, &rig.path(&format!("{role}-managed.log")))
    }
}

#[test]
fn a_service_manager_keeps_the_sockets_while_a_role_restarts() {
    let rig = Setup::default().prepare();
    let mut running = Vec::new();
    for role in ["registry", "edge"] {
        let notify = rig.path(&format!("{role}.manager"));
        let mut manager = Manager::at(&notify);
        let mut first = manager.start(&rig, role, &notify);
        manager.until_ready();
        // The listeners; or a socket, and the root with its lock.
        let count = if role == "edge" { 3 } else { 2 };
        assert_eq!(manager.kept.len(), count, "{:?}", manager.kept);
        first.signal(Signal::USR1);
        assert_eq!(first.wait(Duration::from_secs(10)).code(), Some(0));
        // Nobody serves, and whoever comes waits.
        let early = match role {
            "edge" => std::net::TcpStream::connect(rig.https).map(drop),
            _ => std::os::unix::net::UnixStream::connect(rig.socket()).map(drop),
        };
        early.unwrap();
        let kept = manager.kept.len();
        let second = manager.start(&rig, role, &notify);
        manager.until_ready();
        assert_eq!(manager.kept.len(), kept, "nothing is kept twice");
        running.push(second);
    }
    eventually("both to serve", || {
        let reply = rig.client().request("GET", "/v2/").try_send().ok()?;
        (reply.status == 200).then_some(())
    });
}
