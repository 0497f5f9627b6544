//! `tidegate up` and `setup`: one command from nothing to a registry, and nothing lost after.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{
    Client, Process, descendants, eventually, files_below, free_port, half_a_push, image, need,
    noise, pause, push_image, run, skip, tidegate, try_run,
};

/// A folder, ports, and `tidegate up` on them.
pub(crate) struct Up {
    folder: TempDir,
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    process: Option<Process>,
}

impl Up {
    pub(crate) fn new() -> Self {
        Self {
            folder: TempDir::with_prefix("up").unwrap(),
            https: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
            process: None,
        }
    }

    pub(crate) fn started() -> Self {
        let mut up = Self::new();
        up.start();
        up
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = tidegate();
        command.arg(verb).arg("--dir").arg(self.dir()).args([
            "--https",
            &self.https.to_string(),
            "--http",
            &self.http.to_string(),
        ]);
        command
    }

    /// Starts it and waits for the banner, which it returns.
    pub(crate) fn start(&mut self) -> String {
        let log = self.folder.path().join(format!("log-{}", free_port()));
        let mut process = Process::start(&mut self.command("up"), &log);
        let banner = eventually("the banner", || {
            let ended = process.exited();
            assert!(
                ended.is_none(),
                "up ended with {ended:?}:\n{}",
                process.log()
            );
            let said = process.log();
            said.contains("docker login").then_some(said)
        });
        self.process = Some(process);
        banner
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    pub(crate) fn password(&self) -> String {
        fs::read_to_string(self.dir().join("auth/password"))
            .unwrap()
            .trim()
            .to_owned()
    }

    pub(crate) fn client(&self) -> Client {
        let host = format!("localhost:{}", self.https.port());
        let client = Client::tls(self.https, &host, &self.dir().join("tls/cert.pem"));
        client.as_user("docker", &self.password())
    }

    /// The pids of the two roles.
    fn roles(&mut self) -> BTreeMap<String, i32> {
        let mut roles = BTreeMap::new();
        for pid in descendants(self.process().pid()) {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if let Some(verb) = line.split('\0').nth(1) {
                roles.insert(verb.to_owned(), pid);
            }
        }
        roles
    }
}

/// Every file below a folder with its bytes and mode.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    for path in files_below(folder) {
        let metadata = path.symlink_metadata().unwrap();
        // Sockets come and go with the roles.
        if metadata.is_file() {
            let mode = metadata.permissions().mode() & 0o777;
            let bytes = fs::read(&path).unwrap();
            files.insert(path, (mode, bytes));
        }
    }
    files
}

#[test]
fn one_command_starts_a_registry_and_says_how_to_use_it() {
    let mut up = Up::new();

    let banner = up.start();

    let authority = format!("localhost:{}", up.https.port());
    assert!(banner.contains(&format!("https://{authority}")), "{banner}");
    assert!(
        banner.contains(&format!("docker login {authority}")),
        "{banner}"
    );
    assert!(banner.contains("auth/password"), "{banner}");
    assert!(banner.contains("Ctrl-C"), "{banner}");
    let password = up.password();
    assert!(password.len() >= 16, "{password:?} is short");
    assert!(!banner.contains(&password), "the password is on the screen");
    assert_eq!(up.roles().keys().collect::<Vec<_>>(), ["edge", "registry"]);

    let image = image(150, &[1000, 100_000]);
    push_image(&up.client(), "hello/world", "v1", &image);
    assert_eq!(
        up.client()
            .get("/v2/hello/world/manifests/v1")
            .expect(200)
            .body,
        image.manifest
    );
    Client::plain(up.http, "localhost").get("/v2/").expect(308);
}

#[test]
fn the_login_line_of_the_banner_works_as_it_is() {
    need!("docker", "sh");
    let mut up = Up::new();
    let banner = up.start();
    let line = banner
        .lines()
        .find(|line| line.contains("docker login"))
        .unwrap();
    // No engine is asked: newer clients log in by themselves. The line itself must be right.
    assert!(line.contains("--username docker"), "{line}");
    let given = line.split('<').nth(1).map(str::trim);
    let given = given.unwrap_or_else(|| panic!("no password file in {line:?}"));
    let read = run(Command::new("sh").args(["-c", &format!("cat {given}")]));
    assert_eq!(read.trim(), up.password());
}

#[test]
fn secrets_are_readable_by_their_owner_alone() {
    let up = Up::started();
    let mode = |name: &str| {
        fs::metadata(up.dir().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("auth/password"), 0o600);
    assert_eq!(mode("tls/key.pem"), 0o600);
    assert!(matches!(mode("auth/htpasswd"), 0o600 | 0o640));
}

#[test]
fn a_second_start_changes_nothing_and_keeps_all_data() {
    let mut up = Up::started();
    let image = image(151, &[1000]);
    push_image(&up.client(), "kept", "v1", &image);
    assert_eq!(up.process().terminate().code(), Some(0));
    let before = snapshot(&up.dir());

    up.start();
    assert_eq!(
        up.client().get("/v2/kept/manifests/v1").expect(200).body,
        image.manifest
    );
    assert_eq!(up.process().terminate().code(), Some(0));

    let after = snapshot(&up.dir());
    assert!(before == after, "{:?}\n{:?}", before.keys(), after.keys());
}

#[test]
fn setup_writes_all_once_and_says_what_it_kept() {
    let up = Up::new();
    let first = run(&mut up.command("setup"));
    for name in [
        "edge.toml",
        "tls/cert.pem",
        "tls/key.pem",
        "auth/htpasswd",
        "auth/password",
    ] {
        let said = format!("wrote {}", up.dir().join(name).display());
        assert!(first.contains(&said), "{first}");
    }
    let before = snapshot(&up.dir());
    let second = run(&mut up.command("setup"));
    assert!(
        second.contains("kept") && !second.contains("wrote"),
        "{second}"
    );
    assert!(before == snapshot(&up.dir()));

    // One file lost is one file written.
    fs::remove_file(up.dir().join("tls/cert.pem")).unwrap();
    fs::remove_file(up.dir().join("tls/key.pem")).unwrap();
    let third = run(&mut up.command("setup"));
    assert_eq!(third.matches("wrote").count(), 2, "{third}");
    assert!(
        try_run(
            tidegate()
                .arg("check")
                .arg("--config")
                .arg(up.dir().join("edge.toml"))
        )
        .success
    );
}

#[test]
fn names_addresses_user_and_password_come_from_flags_and_environment() {
    need!("openssl");
    let up = Up::new();
    let mut setup = up.command("setup");
    setup
        .args([
            "--name",
            "registry.lan",
            "--name",
            "other.lan",
            "--ip",
            "192.0.2.7",
        ])
        .env("TIDEGATE_USERNAME", "ann")
        .env("TIDEGATE_PASSWORD", "given by hand");
    run(&mut setup);

    let cert = up.dir().join("tls/cert.pem");
    let mut openssl = Command::new("openssl");
    openssl
        .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
        .arg(&cert);
    let names = run(&mut openssl);
    for name in ["DNS:registry.lan", "DNS:other.lan", "IP Address:192.0.2.7"] {
        assert!(names.contains(name), "{names}");
    }
    let mut verify = tidegate();
    verify
        .args(["htpasswd", "list"])
        .arg(up.dir().join("auth/htpasswd"));
    assert_eq!(run(&mut verify).trim(), "ann");
    let config = fs::read_to_string(up.dir().join("edge.toml")).unwrap();
    assert!(config.contains("registry.lan"), "{config}");
    assert!(!config.contains("given by hand"));
}

#[test]
fn a_taken_port_is_one_clear_line_and_nothing_keeps_running() {
    let up = Up::new();
    let _taken = TcpListener::bind(up.https).unwrap();
    let output = try_run(&mut up.command("up"));
    assert_eq!(output.code, Some(1), "{output}");
    let port = up.https.port().to_string();
    let said: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| line.contains(&port))
        .collect();
    assert!(
        !said.is_empty() && said.iter().any(|line| line.contains("in use")),
        "{output}"
    );
    assert!(!output.stdout.contains("docker login"), "{output}");
}

#[test]
fn an_unreadable_folder_is_one_clear_line() {
    let up = Up::new();
    fs::write(up.dir(), "a file, not a folder").unwrap();
    let output = try_run(&mut up.command("up"));
    assert_eq!(output.code, Some(1), "{output}");
    assert!(
        output.stderr.contains(&up.dir().display().to_string()),
        "{output}"
    );
    assert!(output.stderr.lines().count() <= 2, "{output}");
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    if !rustix::process::getuid().is_root() {
        skip("only root can mount a small disk");
        return;
    }
    let mut up = Up::new();
    fs::create_dir(up.dir()).unwrap();
    // One page: room for the folders and no file.
    let mount = ["-t", "tmpfs", "-o", "size=4k,mode=0700", "tidegate"];
    run(Command::new("mount").args(mount).arg(up.dir()));
    run(Command::new("sh")
        .args(["-c", "head -c 4096 /dev/zero > \"$0/ballast\""])
        .arg(up.dir()));
    let output = try_run(&mut up.command("up"));
    let left = snapshot(&up.dir());
    fs::remove_file(up.dir().join("ballast")).unwrap();
    run(Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(up.dir()));
    let recovered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        up.start();
        up.client().get("/v2/").expect(200);
    }));
    drop(up.process.take());
    run(Command::new("umount").arg("--lazy").arg(up.dir()));

    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("space"), "{output}");
    let whole = |name: &PathBuf| name.ends_with("ballast") || !left[name].1.is_empty();
    assert!(left.keys().all(whole), "half-written: {:?}", left.keys());
    assert!(recovered.is_ok(), "with room again it did not start");
}

#[test]
fn ctrl_c_finishes_the_push_under_way_and_stops_both() {
    let mut up = Up::started();
    let client = up.client();
    let bytes = noise(152, 1_000_000);
    let mut push = half_a_push(&client, &bytes);
    let roles = up.roles();

    up.process().signal(Signal::INT);
    eventually("new connections to be refused", || {
        std::net::TcpStream::connect(up.https)
            .is_err()
            .then_some(())
    });
    push.write(&bytes[500_000..]).unwrap();
    push.reply().unwrap().expect(201);

    assert_eq!(up.process().wait(Duration::from_secs(20)).code(), Some(0));
    for (role, pid) in roles {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{role} is still there"
        );
    }
}

#[test]
fn when_one_role_dies_the_other_is_stopped_and_the_exit_code_says_it() {
    for victim in ["edge", "registry"] {
        let mut up = Up::started();
        let roles = up.roles();
        let pid = Pid::from_raw(roles[victim]).unwrap();
        kill_process(pid, Signal::KILL).unwrap();

        let status = up.process().wait(Duration::from_secs(30));

        assert_eq!(status.code(), Some(1), "{victim}: {}", up.process().log());
        assert!(
            up.process().log().contains(victim),
            "{}",
            up.process().log()
        );
        for (role, pid) in roles {
            assert!(
                !Path::new(&format!("/proc/{pid}")).exists(),
                "{role} outlived {victim}"
            );
        }
    }
}

#[test]
fn when_up_itself_is_killed_no_role_stays_behind() {
    let mut up = Up::started();
    let roles = up.roles();
    up.process().kill();
    for (role, pid) in roles {
        eventually(&format!("the end of the {role}"), || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.chars().next());
            matches!(state, None | Some('Z')).then_some(())
        });
    }
}

#[test]
fn two_ups_in_one_folder_are_refused() {
    let up = Up::started();
    let mut second = tidegate();
    second.arg("up").arg("--dir").arg(up.dir());
    second.args(["--https", &format!("127.0.0.1:{}", free_port())]);
    let output = try_run(&mut second);
    assert_eq!(output.code, Some(1), "{output}");
    pause(Duration::from_millis(1));
    up.client().get("/v2/").expect(200);
}

#[test]
fn a_long_path_is_no_obstacle_for_the_socket() {
    let mut up = Up::new();
    let deep = up.folder.path().join("x".repeat(120));
    fs::create_dir(&deep).unwrap();
    std::os::unix::fs::symlink(&deep, up.dir()).unwrap();
    fs::remove_file(up.dir()).unwrap();
    let mut command = tidegate();
    command.args(["up", "--dir"]).arg(deep.join("data")).args([
        "--https",
        &up.https.to_string(),
        "--http",
        &up.http.to_string(),
    ]);
    let mut process = Process::start(&mut command, &up.folder.path().join("log"));
    eventually("the banner", || {
        assert!(process.exited().is_none(), "{}", process.log());
        process.log().contains("docker login").then_some(())
    });
    up.process = Some(process);
    assert_eq!(up.process().terminate().code(), Some(0));
}
