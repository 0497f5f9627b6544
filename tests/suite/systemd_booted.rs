//! The units on a booted system: what an operator does there, and what clients notice of it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Booted, Client, Output, digest, eventually, free_port, half_a_push, need, noise, push_blob,
    skip,
};

const UNITS: [&str; 2] = ["tidegate-registry", "tidegate-edge"];
const PASSWORD: &str = "correct horse battery";

/// A booted system on which both units serve.
struct System {
    booted: Booted,
    https: u16,
}

impl System {
    fn start(booted: Booted) -> Self {
        let system = Self {
            booted,
            https: free_port(),
        };
        system.write_config("");
        let folder = system.booted.root().join("etc/tidegate");
        let password = folder.join("password");
        fs::write(&password, PASSWORD).unwrap();
        for command in [
            "systemd-sysusers",
            "systemd-tmpfiles --create --prefix=/etc/tidegate --prefix=/var/log/tidegate",
            "systemctl daemon-reload",
            "tidegate gencert --name localhost --out-dir /etc/tidegate/tls",
            "tidegate htpasswd add /etc/tidegate/htpasswd docker < /etc/tidegate/password",
            "tidegate check",
        ] {
            system.good(&["sh", "-c", command]);
        }
        system.good(&["systemctl", "start", UNITS[0], UNITS[1]]);
        system.client().get("/v2/").expect(200);
        system
    }

    fn write_config(&self, more: &str) {
        let text = format!(
            r#"
[[listener]]
address = "127.0.0.1:{}"
tls = true
[[site]]
hosts = ["localhost"]
certificate = {{ cert_file = "tls/cert.pem", key_file = "tls/key.pem" }}
upstream = "registry"
[site.auth]
realm = "Registry"
htpasswd_file = "htpasswd"
[registry]
listen = "unix:/run/tidegate/registry.sock"
allow_users = ["tidegate-edge"]
[registry.storage]
filesystem = {{ root = "/var/lib/registry" }}
{more}
"#,
            self.https
        );
        fs::write(self.booted.root().join("etc/tidegate/edge.toml"), text).unwrap();
    }

    fn client(&self) -> Client {
        let certificate = self.booted.root().join("etc/tidegate/tls/cert.pem");
        let address = ([127, 0, 0, 1], self.https).into();
        Client::tls(address, "localhost", &certificate).as_user("docker", PASSWORD)
    }

    fn good(&self, arguments: &[&str]) -> Output {
        let output = self.booted.enter(arguments);
        let logs = || UNITS.map(|unit| self.booted.journal(unit)).join("\n");
        assert!(output.success, "{arguments:?}: {output}\n{}", logs());
        output
    }

    fn property(&self, unit: &str, property: &str) -> String {
        let shown = self.good(&["systemctl", "show", "--value", "--property", property, unit]);
        shown.stdout.trim().to_owned()
    }
}

/// Asks ten times a second while `work` goes on; each answer has to be a good one.
fn nobody_is_refused<T>(client: &Client, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let reply = client.request("GET", "/v2/").try_send();
                assert_eq!(reply.expect("a reply").status, 200);
                crate::harness::pause(Duration::from_millis(100));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        asking.join().unwrap();
        result
    })
}

#[test]
fn the_units_restart_upgrade_reload_and_stop_as_operators_expect() {
    need!("systemd-nspawn", "nsenter", "make");
    let booted = match Booted::start() {
        Ok(booted) => booted,
        Err(why) => return skip(&format!("no systemd can be booted here: {why}")),
    };
    let system = System::start(booted);
    restarts_and_upgrades_cut_no_push_and_refuse_nobody(&system);
    a_crash_is_waited_out(&system);
    a_reload_says_what_it_did(&system);
    a_bad_config_is_shown_and_not_tried_again(&system);
    a_stop_waits_for_the_transfers_of_every_process(&system);
}

fn restarts_and_upgrades_cut_no_push_and_refuse_nobody(system: &System) {
    let client = system.client();
    let commands: [&[&str]; 4] = [
        &["systemctl", "restart", UNITS[1]],
        &["systemctl", "restart", UNITS[0]],
        &["systemctl", "restart", UNITS[0], UNITS[1]],
        &["tidegate", "upgrade"],
    ];
    for (seed, command) in (400..).zip(commands) {
        let bytes = noise(seed, 3_000_000);
        nobody_is_refused(&client, || {
            let mut push = half_a_push(&client, &bytes);
            system.good(command);
            push_blob(&client, "a/b", &noise(seed + 100, 100_000));
            push.write(&bytes[bytes.len() / 2..]).unwrap();
            push.reply().unwrap().expect(201);
        });
        let path = format!("/v2/slow/blobs/{}", digest(&bytes));
        assert!(client.get(&path).expect(200).body == bytes);
    }
}

fn a_crash_is_waited_out(system: &System) {
    let client = system.client();
    for unit in UNITS {
        let before = system.property(unit, "MainPID");
        system.good(&[
            "systemctl",
            "kill",
            "--kill-whom=all",
            "--signal=KILL",
            unit,
        ]);
        client.get("/v2/").expect(200);
        assert_ne!(system.property(unit, "MainPID"), before);
    }
}

fn a_reload_says_what_it_did(system: &System) {
    system.good(&["systemctl", "reload", UNITS[0], UNITS[1]]);
    system.write_config("[limits]\nno_such_key = 1\n");
    let refused = system.booted.run(&["reload", UNITS[1]]);
    assert!(!refused.success, "{refused}");
    let journal = system.booted.journal(UNITS[1]);
    assert!(journal.contains("no_such_key"), "{journal}");
    system.client().get("/v2/").expect(200);
    system.write_config("");
}

fn a_bad_config_is_shown_and_not_tried_again(system: &System) {
    system.write_config("[limits]\nno_such_key = 1\n");
    let failed = system.booted.run(&["restart", UNITS[1]]);
    assert!(!failed.success, "{failed}");
    eventually("the unit to have failed", || {
        (system.property(UNITS[1], "ActiveState") == "failed").then_some(())
    });
    let status = system
        .booted
        .run(&["status", "--no-pager", "--full", UNITS[1]]);
    assert!(status.stdout.contains("no_such_key"), "{status}");
    assert_eq!(system.property(UNITS[1], "NRestarts"), "0");
    system.write_config("");
    system.good(&["systemctl", "start", UNITS[1]]);
    system.client().get("/v2/").expect(200);
}

fn a_stop_waits_for_the_transfers_of_every_process(system: &System) {
    let client = system.client();
    let (first, second) = (noise(420, 2_000_000), noise(421, 2_000_000));
    let mut before = half_a_push(&client, &first);
    system.good(&["systemctl", "restart", UNITS[0], UNITS[1]]);
    let mut after = half_a_push(&client, &second);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| system.good(&["systemctl", "stop", UNITS[1], UNITS[0]]));
        eventually("connections to be refused", || {
            let connected = std::net::TcpStream::connect(("127.0.0.1", system.https));
            connected.is_err().then_some(())
        });
        let begin = Instant::now();
        for (push, bytes) in [(&mut after, &second), (&mut before, &first)] {
            assert!(
                !stopping.is_finished(),
                "it did not wait: {:?}",
                begin.elapsed()
            );
            push.write(&bytes[bytes.len() / 2..]).unwrap();
            push.reply().unwrap().expect(201);
        }
        stopping.join().unwrap();
    });
    let left = system.booted.enter(&["pgrep", "--list-full", "tidegate"]);
    assert!(left.stdout.is_empty(), "{left}");
}
