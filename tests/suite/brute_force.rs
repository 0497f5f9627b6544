//! Wrong passwords: slowed, refused, and nobody else's trouble.

use std::io::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use openssl::base64;

use crate::harness::{
    Client, PASSWORD, Response, Rig, Setup, USER, eventually, heavy, memory_bytes, need, run,
};

/// Addresses are told by a header here, as a proxy in front does.
const TRUSTING: &str = "trusted_proxies = [\"127.0.0.1\"]\n";

fn try_from(client: &Client, address: &str) -> Response {
    client
        .request("GET", "/v2/")
        .header("X-Forwarded-For", address)
        .send()
}

fn retry_after(reply: &Response) -> u64 {
    let seconds = reply.header("Retry-After").expect("a time to come back");
    seconds.parse().expect("seconds")
}

#[test]
fn wrong_passwords_are_slowed_then_refused_with_a_time_to_come_back() {
    let rig = Setup {
        top: TRUSTING.to_owned(),
        tables: "[limits.logins]\nper_address = 8\nforget_after = \"16s\"\n".to_owned(),
        ..Setup::default()
    }
    .start();
    let begin = Instant::now();
    let mut failed = 0;
    let refused = loop {
        let client = rig.anonymous().as_user(USER, &format!("guess {failed}"));
        let reply = try_from(&client, "198.51.100.1");
        if reply.status == 429 {
            break reply.expect_error(429, "TOOMANYREQUESTS");
        }
        reply.expect_error(401, "UNAUTHORIZED");
        failed += 1;
        assert!(failed < 50, "nobody stops this");
    };
    assert!(failed >= 5, "refused after {failed}");
    assert!(begin.elapsed() > Duration::from_millis(300), "not slowed");
    let again = retry_after(&refused);
    assert!((1..=5).contains(&again), "{again}");
    // Everyone else is as welcome as ever.
    let right = rig.client();
    try_from(&right, "198.51.100.2").expect(200);
    eventually("the log to say what refused", || {
        rig.edge_log()
            .contains("limits.logins.per_address")
            .then_some(())
    });
    // In time it is forgotten.
    eventually("another try to be looked at", || {
        let wrong = rig.anonymous().as_user(USER, "another guess");
        (try_from(&wrong, "198.51.100.1").status == 401).then_some(())
    });
}

#[test]
fn nobody_is_locked_out_of_an_address_they_have_logged_in_from() {
    let rig = Setup {
        top: TRUSTING.to_owned(),
        // Nothing is remembered for longer than a moment: each login is a login.
        auth: "remember_for = \"1ms\"\n".to_owned(),
        tables: "[limits.logins]\nper_address = 4\nper_user = 8\n".to_owned(),
        ..Setup::default()
    }
    .start();
    let home = "203.0.113.7";
    try_from(&rig.client(), home).expect(200);
    for host in 0..12 {
        for guess in 0..3 {
            let wrong = rig.anonymous().as_user(USER, &format!("guess {guess}"));
            try_from(&wrong, &format!("198.51.100.{host}"));
        }
    }
    // The attacker shares an address with the user, too.
    for guess in 0..12 {
        let wrong = rig
            .anonymous()
            .as_user("somebody", &format!("guess {guess}"));
        try_from(&wrong, home);
    }
    let strange = try_from(&rig.client(), "192.0.2.99").expect_error(429, "TOOMANYREQUESTS");
    assert!(retry_after(&strange) >= 1);
    let begin = Instant::now();
    for _ in 0..5 {
        try_from(&rig.client(), home).expect(200);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn the_desk_that_hands_out_tokens_counts_in_the_same_account() {
    let rig = Setup {
        top: TRUSTING.to_owned(),
        auth: "scheme = \"both\"\n".to_owned(),
        tables: "[limits.logins]\nper_address = 6\n".to_owned(),
        ..Setup::default()
    }
    .start();
    let paths = ["/v2/", "/auth/token?account=docker"];
    let mut last = [0; 2];
    for guess in 0..12 {
        let wrong = rig.anonymous().as_user(USER, &format!("guess {guess}"));
        let request = wrong.request("GET", paths[guess % 2]);
        let reply = request.header("X-Forwarded-For", "198.51.100.1").send();
        last[guess % 2] = reply.status;
    }
    assert_eq!(last, [429, 429]);
    // The form of OAuth, with the right password, is no way around it.
    let form = format!("grant_type=password&username={USER}&password={PASSWORD}");
    let client = rig.anonymous();
    let request = client.request("POST", "/auth/token");
    let request = request.header("X-Forwarded-For", "198.51.100.1");
    let request = request.header("Content-Type", "application/x-www-form-urlencoded");
    let refused = request.body(form.replace(' ', "+")).send();
    assert!(retry_after(&refused.expect_error(429, "TOOMANYREQUESTS")) >= 1);
}

#[test]
fn what_was_counted_outlives_a_reload() {
    let setup = Setup {
        top: TRUSTING.to_owned(),
        tables: "[limits.logins]\nper_address = 2\n".to_owned(),
        ..Setup::default()
    };
    let mut rig = setup.prepare();
    rig.start_registry();
    rig.start_edge();
    rig.wait_until_ready();
    for guess in 0..4 {
        let wrong = rig.anonymous().as_user(USER, &format!("guess {guess}"));
        try_from(&wrong, "198.51.100.1");
    }
    rig.write_config(&Setup {
        top: format!("{TRUSTING}drain_timeout = \"9s\"\n"),
        tables: "[limits.logins]\nper_address = 2\n".to_owned(),
        ..Setup::default()
    });
    rig.reload_edge();
    eventually("the reload", || {
        rig.edge_log().contains("config reloaded").then_some(())
    });
    let wrong = rig.anonymous().as_user(USER, "another guess");
    try_from(&wrong, "198.51.100.1").expect_error(429, "TOOMANYREQUESTS");
}

/// How long each of two kinds of requests takes, taking turns; the medians.
fn medians(rounds: usize, kinds: [&dyn Fn(); 2]) -> [f64; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..2 * rounds {
        let begin = Instant::now();
        kinds[round % 2]();
        times[round % 2].push(begin.elapsed().as_secs_f64());
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

#[test]
fn an_unknown_user_and_a_wrong_password_cannot_be_told_apart() {
    need!("htpasswd");
    let _alone = heavy();
    let dear = run(Command::new("htpasswd").args(["-nbBC", "9", USER, PASSWORD]));
    let cheap = run(Command::new("htpasswd").args(["-nbBC", "4", "cheap", PASSWORD]));
    let rig = Setup {
        htpasswd: Some(format!("{}\n{}\n", dear.trim(), cheap.trim())),
        tables: "[limits.logins]\nper_address = 0\nper_user = 0\n".to_owned(),
        ..Setup::default()
    }
    .start();
    let shown = |user: &str| {
        let reply = rig.anonymous().as_user(user, "wrong").get("/v2/");
        let mut headers = reply.headers.clone();
        headers.retain(|(name, _)| !["date", "x-request-id"].contains(&&*name.to_lowercase()));
        (reply.status, headers, reply.body)
    };
    assert_eq!(shown(USER), shown("nobody"));
    let count = AtomicUsize::new(0);
    let guess = |user: &str| {
        let count = count.fetch_add(1, Ordering::Relaxed);
        let wrong = rig.anonymous().as_user(user, &format!("guess {count}"));
        wrong.get("/v2/").expect(401);
    };
    for user in [USER, "cheap"] {
        let [known, unknown] = medians(25, [&|| guess(user), &|| guess("nobody")]);
        let ratio = known / unknown;
        assert!((0.7..1.4).contains(&ratio), "{user}: {known} {unknown}");
    }
}

/// Sends `count` wrong logins, each of another user and from another address, over one connection.
fn flood(rig: &Rig, thread: u32, count: u32) -> [usize; 2] {
    const AT_ONCE: u32 = 50;
    let mut exchange = rig.anonymous().connect().unwrap();
    let mut statuses = [0; 2];
    for turn in 0..count / AT_ONCE {
        let mut requests = Vec::new();
        for number in 0..AT_ONCE {
            let number = turn * AT_ONCE + number;
            let credentials = base64::encode_block(format!("u{thread}-{number}:x").as_bytes());
            let [_, a, b, c] = number.to_be_bytes();
            write!(
                requests,
                "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n\
                 X-Forwarded-For: {}.{a}.{b}.{c}\r\n\r\n",
                11 + thread
            )
            .unwrap();
        }
        exchange.write(&requests).unwrap();
        for _ in 0..AT_ONCE {
            match exchange.reply().unwrap().status {
                401 => statuses[0] += 1,
                429 | 503 => statuses[1] += 1,
                status => panic!("{status}"),
            }
        }
    }
    statuses
}

#[test]
fn a_hundred_thousand_wrong_logins_leave_memory_flat_and_others_alone() {
    let _alone = heavy();
    let rig = Setup {
        top: TRUSTING.to_owned(),
        // {SHA} of the usual password: the flood is what is under test, not the hash.
        htpasswd: Some(format!("{USER}:{{SHA}}{}\n", sha1(PASSWORD))),
        tables: "[log]\nlevel = \"warn\"\n".to_owned(),
        ..Setup::default()
    }
    .start();
    let edge = rig.pids()[0];
    // Until all that it remembers is full: from then on, nothing may grow.
    flood(&rig, 200, 20_000);
    let before = memory_bytes(edge);
    let over = AtomicBool::new(false);
    let (statuses, slowest) = thread::scope(|scope| {
        let bystander = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                rig.client().get("/v2/").expect(200);
                slowest = slowest.max(begin.elapsed());
            }
            slowest
        });
        let flooding = [0, 1, 2, 3].map(|thread| {
            let rig = &rig;
            scope.spawn(move || flood(rig, thread, 25_000))
        });
        let statuses = flooding.map(|flood| flood.join().unwrap());
        over.store(true, Ordering::Relaxed);
        (statuses, bystander.join().unwrap())
    });
    assert_eq!(statuses.iter().flatten().sum::<usize>(), 100_000);
    let grown = memory_bytes(edge).saturating_sub(before);
    assert!(grown < 8 << 20, "grown by {} KiB", grown >> 10);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

fn sha1(text: &str) -> String {
    base64::encode_block(&openssl::sha::sha1(text.as_bytes()))
}
