//! Where the log goes to the journal, or to a terminal that somebody looks at.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::fstat;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;

use crate::harness::{Client, Setup, eventually, free_port, image, push_image, tidegate};

/// A process, and what it has written to an output that the test made.
struct Watched {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Watched {
    /// Starts `command`, whose output is read from `end`.
    fn start(command: &mut Command, output: OwnedFd, mut end: impl Read + Send + 'static) -> Self {
        let child = command.stdin(Stdio::null()).stderr(output).spawn().unwrap();
        // The command holds the output of the child, too, which would not end otherwise.
        command.stderr(Stdio::null());
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = end.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..len]).into_owned();
                heard.lock().unwrap().push_str(&text);
            }
        });
        Self { child, said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said `what`.
    fn says(&self, what: &str) -> String {
        eventually(what, || {
            let said = self.said();
            said.contains(what).then_some(said)
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), Signal::TERM).ok();
        self.child.wait().ok();
    }
}

/// A stream such as systemd makes, and what names it.
fn stream() -> (OwnedFd, UnixStream, String) {
    let (output, end) = UnixStream::pair().unwrap();
    let found = fstat(&output).unwrap();
    let name = format!("{}:{}", found.st_dev, found.st_ino);
    (output.into(), end, name)
}

#[test]
fn lines_for_the_journal_have_a_priority_and_no_time() {
    let mut rig = Setup::default().prepare();
    rig.start_registry();
    let (output, end, name) = stream();
    let mut command = tidegate();
    command.arg("edge").arg("--config").arg(rig.config());
    let edge = Watched::start(command.env("JOURNAL_STREAM", name), output, end);
    edge.says("ready");
    rig.wait_until_ready();
    rig.registry().kill();
    rig.client().get("/v2/gone/tags/list").expect(503);
    let said = edge.says("/v2/gone/tags/list");
    for (begin, what) in [
        ("<6> INFO tidegate::edge: ", "ready"),
        ("<6> INFO access: client=", "/v2/gone/tags/list"),
        ("<4> WARN proxy::outage: ", "upstream=\"registry\""),
    ] {
        let mut lines = said.lines().filter(|line| line.contains(what));
        assert!(lines.any(|line| line.starts_with(begin)), "{begin}: {said}");
    }
    assert!(said.lines().all(|line| line.starts_with(['<'])), "{said}");
}

#[test]
fn each_problem_of_a_config_is_an_error_in_the_journal() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("edge.toml");
    fs::write(&config, "worker = 1\n[limit]\n").unwrap();
    let (output, end, name) = stream();
    let mut command = tidegate();
    command.arg("edge").arg("--config").arg(&config);
    let edge = Watched::start(command.env("JOURNAL_STREAM", name), output, end);
    let said = edge.says("limit: unknown key");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() >= 2, "{said}");
    assert!(lines.iter().all(|line| line.starts_with("<3>")), "{said}");
}

#[test]
fn whoever_has_another_output_than_the_variable_says_writes_as_ever() {
    let rig = Setup::default().prepare();
    let log = rig.path("own.log");
    let (_output, _end, name) = stream();
    let mut command = tidegate();
    command.arg("edge").arg("--config").arg(rig.config());
    let output = File::create(&log).unwrap();
    assert!(output.metadata().unwrap().ino() > 0);
    let edge = Watched::start(
        command.env("JOURNAL_STREAM", name),
        output.into(),
        File::open("/dev/null").unwrap(),
    );
    let said = eventually("the edge", || {
        let said = fs::read_to_string(&log).unwrap();
        said.contains("ready").then_some(said)
    });
    assert!(said.starts_with("20") && !said.contains("<6>"), "{said}");
    drop(edge);
}

/// A terminal: the end that a program has, and the one that shows what it writes.
fn terminal() -> (OwnedFd, File) {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap();
    let output = File::options().write(true).open(name.to_str().unwrap());
    (output.unwrap().into(), File::from(screen))
}

#[test]
fn on_a_terminal_up_shows_each_request_in_short() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let (https, http) = (free_port(), free_port());
    let up = |format: &str| {
        let mut command = tidegate();
        command.arg("up").arg("--dir").arg(&data);
        command.args(["--https", &format!("127.0.0.1:{https}")]);
        command.args(["--http", &format!("127.0.0.1:{http}")]);
        command.env("NO_COLOR", "1").stdout(Stdio::null());
        if !format.is_empty() {
            let config = data.join("edge.toml");
            let text = fs::read_to_string(&config).unwrap();
            fs::write(&config, format!("{text}\n[log]\nformat = \"{format}\"\n")).unwrap();
        }
        let (output, screen) = terminal();
        let up = Watched::start(&mut command, output, screen);
        up.says("tidegate::edge: ready");
        up
    };
    let client = |user: &str, password: &str| {
        let name = format!("localhost:{https}");
        let address = ([127, 0, 0, 1], https).into();
        Client::tls(address, &name, &data.join("tls/cert.pem")).as_user(user, password)
    };
    let short = up("");
    let password = fs::read_to_string(data.join("auth/password")).unwrap();
    let docker = client("docker", password.trim());
    push_image(&docker, "team/app", "1.2", &image(330, &[200_000]));
    docker.get("/v2/team/app/manifests/1.2").expect(200);
    client("eve", "x").get("/v2/").expect(401);
    let said = short.says("login as eve");
    let time = |line: &str| line.len() > 8 && line.as_bytes()[2] == b':';
    for part in [
        " docker push team/app:1.2 → 201 (",
        " docker pull team/app:1.2 → 200 (",
        " - GET /v2/ → 401 (unknown user, login as eve, from 127.0.0.1, ",
    ] {
        let mut lines = said.lines().filter(|line| line.contains(part));
        assert!(lines.any(time), "no {part} in {said}");
    }
    assert!(!said.contains("request_id="), "{said}");
    assert!(!said.contains('\u{1b}'), "colours against NO_COLOR: {said}");
    drop(short);

    // Whoever asks for a format gets it.
    let long = up("text");
    client("docker", password.trim()).get("/v2/").expect(200);
    let said = long.says("request_id=");
    assert!(said.contains("INFO access: client=127.0.0.1"), "{said}");
}
