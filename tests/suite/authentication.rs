//! Who is let in: every kind of htpasswd line, and what a refusal says.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::{PASSWORD, Rig, Setup, USER, eventually, need, noise, run, tidegate, try_run};

#[test]
fn a_refusal_carries_the_challenge_and_the_specs_json() {
    let rig = Rig::start();
    for client in [
        rig.anonymous(),
        rig.anonymous().as_user(USER, "wrong"),
        rig.anonymous().as_user("nobody", PASSWORD),
        rig.anonymous().as_user("", ""),
    ] {
        let reply = client.get("/v2/").expect_error(401, "UNAUTHORIZED");
        assert_eq!(
            reply.header("WWW-Authenticate"),
            Some("Basic realm=\"Registry\", charset=\"UTF-8\"")
        );
        assert_eq!(reply.header("Content-Type"), Some("application/json"));
    }
    for header in [
        "Basic",
        "Basic !!!",
        "Basic Og",
        "Bearer abc",
        "Basic ZG9ja2Vy",
        "",
    ] {
        let request = rig.anonymous();
        let reply = request
            .request("GET", "/v2/")
            .header("Authorization", header)
            .send();
        reply.expect_error(401, "UNAUTHORIZED");
    }
}

#[test]
fn a_refused_push_is_told_so_even_with_a_large_body() {
    need!("curl");
    let rig = Rig::start();
    let file = rig.path("large");
    fs::write(&file, noise(61, 8_000_000)).unwrap();
    for flag in ["--http1.1", "--http2"] {
        for _ in 0..10 {
            let mut command = Command::new("curl");
            command
                .args(["-sS", flag, "--max-time", "60", "--cacert"])
                .arg(&rig.certificate.cert)
                .args([
                    "-H",
                    "Expect:",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    "-T",
                ])
                .arg(&file)
                .arg(format!("https://{}/v2/a/blobs/uploads/x", rig.name()));
            assert_eq!(try_run(&mut command).stdout, "401", "{flag}");
        }
    }
}

#[test]
fn every_format_of_apaches_htpasswd_lets_its_user_in() {
    need!("htpasswd", "openssl", "mkpasswd");
    let secret = "pässword: with spaces";
    let made = |program: &str, arguments: &[&str]| {
        run(Command::new(program).args(arguments)).trim().to_owned()
    };
    let mut file = String::from("# people\n\n");
    for (user, flag) in [("bcrypt", "-nbB"), ("apr1", "-nbm"), ("sha1", "-nbs")] {
        file += &format!("{}\n", made("htpasswd", &[flag, user, secret]));
    }
    for (user, flag) in [("sha256", "-nb2"), ("sha512", "-nb5")] {
        // Older Apaches cannot write these; openssl and mkpasswd always can.
        let output = try_run(Command::new("htpasswd").args([flag, user, secret]));
        if output.success {
            file += &format!("{}\n", output.stdout.trim());
        } else {
            let method = if user == "sha256" { "-5" } else { "-6" };
            file += &format!("{user}:{}\n", made("openssl", &["passwd", method, secret]));
        }
    }
    file += &format!(
        "apr1-openssl:{}\n",
        made("openssl", &["passwd", "-apr1", secret])
    );
    for (user, method) in [
        ("mk256", "sha-256"),
        ("mk512", "sha-512"),
        ("mkbcrypt", "bcrypt"),
    ] {
        let rounds = if method == "bcrypt" { "5" } else { "2000" };
        file += &format!(
            "{user}:{}\n",
            made("mkpasswd", &["-m", method, "-R", rounds, secret])
        );
    }
    let users: Vec<String> = file
        .lines()
        .filter_map(|line| line.split_once(':').map(|(user, _)| user.to_owned()))
        .collect();
    assert_eq!(users.len(), 9);
    let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
    file += &format!("{USER}:{hashed}\n");
    let rig = Setup {
        htpasswd: Some(file),
        ..Setup::default()
    }
    .start();

    for user in &users {
        rig.anonymous()
            .as_user(user, secret)
            .get("/v2/")
            .expect(200);
        rig.anonymous()
            .as_user(user, "wrong")
            .get("/v2/")
            .expect(401);
    }
}

#[test]
fn a_plain_password_lets_nobody_in_unless_the_config_says_so() {
    let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
    let file = format!("{USER}:{hashed}\nplain:open sesame\n");
    let rig = Setup {
        htpasswd: Some(file.clone()),
        auth: "insecure_plain_passwords = true".to_owned(),
        ..Setup::default()
    };
    rig.start()
        .anonymous()
        .as_user("plain", "open sesame")
        .get("/v2/")
        .expect(200);

    let rig = Setup {
        htpasswd: Some(file),
        ..Setup::default()
    }
    .prepare();
    let check = try_run(tidegate().arg("check").arg("--config").arg(rig.config()));
    assert_eq!(check.code, Some(1), "{check}");
    assert!(check.stderr.contains("htpasswd"), "{check}");
    assert!(!check.stderr.contains("open sesame"), "{check}");
}

#[test]
fn a_verified_password_is_not_hashed_again_and_is_forgotten_with_its_line() {
    need!("htpasswd");
    // At cost 12 one verification takes a quarter of a second and more.
    let line = run(Command::new("htpasswd").args(["-nbBC", "12", USER, PASSWORD]));
    let rig = Setup {
        htpasswd: Some(line),
        ..Setup::default()
    }
    .start();
    let client = rig.client();
    let before = cpu_ticks(&rig);
    for _ in 0..50 {
        client.get("/v2/").expect(200);
    }
    // 50 verifications would be more than ten seconds of CPU.
    let spent = cpu_ticks(&rig) - before;
    assert!(
        spent < 300,
        "50 requests cost {spent} hundredths of a second"
    );

    let other = run(Command::new("htpasswd").args(["-nbBC", "5", USER, "a new one"]));
    fs::write(rig.path("htpasswd"), other).unwrap();
    eventually("the old password to be refused", || {
        (client.get("/v2/").status == 401).then_some(())
    });
    rig.anonymous()
        .as_user(USER, "a new one")
        .get("/v2/")
        .expect(200);
}

/// The CPU time of both roles so far, in hundredths of a second.
fn cpu_ticks(rig: &Rig) -> u64 {
    rig.pids()
        .into_iter()
        .map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<&str> = stat
                .rsplit_once(')')
                .unwrap()
                .1
                .split_whitespace()
                .collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        })
        .sum()
}

#[test]
fn guessing_passwords_holds_nobody_else_up() {
    need!("htpasswd");
    // At this cost one guess takes a second and more of a core.
    let slow = run(Command::new("htpasswd").args(["-nbBC", "14", "slow", "secret"]));
    let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
    let htpasswd = Some(format!("{}\n{USER}:{hashed}\n", slow.trim()));
    let rig = Setup {
        htpasswd,
        ..Setup::default()
    }
    .start();
    let client = rig.client();
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                rig.anonymous()
                    .as_user("slow", "a guess")
                    .get("/v2/")
                    .expect(401);
                answered.fetch_add(1, Ordering::Relaxed);
            });
        }
        // The guesses are there once the edge is busy with them.
        let before = cpu_ticks(&rig);
        eventually("the guesses to arrive", || {
            (cpu_ticks(&rig) > before + 5).then_some(())
        });
        for _ in 0..5 {
            client.get("/v2/").expect(200);
        }
        let answered = answered.load(Ordering::Relaxed);
        assert!(answered < 4, "5 requests waited for {answered} guesses");
    });
}
