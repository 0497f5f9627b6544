//! The figures of registries, which the edge asks for and joins with its own.

use std::collections::HashSet;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::harness::{Rig, Setup, eventually, image, push_image};
use crate::metrics::{door, figure, sum, text};

/// A second registry, which no site needs.
fn team(rig: &Rig) -> String {
    format!(
        "[[registry.instance]]\nname = \"team\"\nlisten = \"unix:{}\"\n\
         storage.filesystem.root = \"{}\"\n",
        rig.path("team.sock").display(),
        rig.path("team").display(),
    )
}

#[test]
fn each_registry_is_on_the_page_under_its_name_and_each_family_once() {
    let (door, table) = door("");
    let other =
        "[[upstream]]\nname = \"nobody\"\npeers = [\"127.0.0.1:1\", \"unix:/nonexistent\"]\n";
    let mut rig = Setup::default().prepare();
    let tables = format!("{table}{other}{}", team(&rig));
    rig.write_config(&Setup {
        tables,
        ..Setup::default()
    });
    rig.start_registry();
    rig.start_edge();
    rig.wait_until_ready();
    push_image(&rig.client(), "app", "v1", &image(71, &[100_000, 10]));

    let now = eventually("the push on the page", || {
        let now = text(&door);
        let done = sum(&now, "registry_manifests_written_total", &["\"registry\""]) == 1.0;
        done.then_some(now)
    });
    for name in ["registry", "team"] {
        let labelled = |metric: &str| format!("{metric}{{registry=\"{name}\"}}");
        assert_eq!(figure(&now, &labelled("tidegate_registry_up")), 1.0);
        assert_eq!(figure(&now, &labelled("registry_storage_writable")), 1.0);
        assert!(figure(&now, &labelled("registry_storage_free_bytes")) > 0.0);
        assert!(figure(&now, &labelled("registry_process_resident_memory_bytes")) > 0.0);
        assert_eq!(figure(&now, &labelled("registry_uploads_open")), 0.0);
        assert_eq!(
            figure(&now, &labelled("registry_config_last_reload_successful")),
            1.0
        );
        assert_eq!(figure(&now, &labelled("registry_draining")), 0.0);
    }
    // Two layers and a config.
    assert_eq!(
        figure(&now, "registry_blobs_written_total{registry=\"registry\"}"),
        3.0
    );
    assert_eq!(
        figure(&now, "registry_blobs_written_total{registry=\"team\"}"),
        0.0
    );
    assert!(figure(&now, "registry_written_bytes_total{registry=\"registry\"}") > 100_000.0);
    let of_manifests = [
        "registry=\"registry\"",
        "route=\"manifest\"",
        "method=\"PUT\"",
    ];
    assert_eq!(sum(&now, "registry_requests_total", &of_manifests), 1.0);
    assert_eq!(
        sum(
            &now,
            "registry_request_duration_seconds_count",
            &of_manifests
        ),
        1.0
    );
    let syncs = sum(
        &now,
        "registry_fsync_duration_seconds_count",
        &["\"registry\""],
    );
    assert!(syncs >= 4.0, "{syncs}");
    assert_eq!(figure(&now, "edge_upstream_up{upstream=\"nobody\"}"), 0.0);

    let mut families = HashSet::new();
    for line in now.lines().filter(|line| line.starts_with("# TYPE ")) {
        assert!(families.insert(line), "{line} is there twice");
    }
    assert!(now.ends_with("# EOF\n"));
}

#[test]
fn a_refused_reload_of_the_registry_shows() {
    let (door, table) = door("");
    let mut rig = Setup {
        tables: table,
        ..Setup::default()
    }
    .start();
    let good = std::fs::read_to_string(rig.config()).unwrap();
    std::fs::write(rig.config(), format!("{good}\nnonsense = 1\n")).unwrap();
    rig.registry().signal(rustix::process::Signal::HUP);
    let in_force = "registry_config_last_reload_successful{registry=\"registry\"}";
    eventually("the refused reload", || {
        (figure(&text(&door), in_force) == 0.0).then_some(())
    });
    let ready = door.get("/readyz").expect(503).text();
    assert_eq!(
        ready,
        "registry \"registry\": its last reload was refused\n"
    );
}

/// Asks for the page while a registry is as `hangs` has it, and returns how long it took.
fn time_of_a_page(hangs: impl FnOnce(&Rig) -> UnixListener) -> Duration {
    let (door, table) = door("");
    let mut rig = Setup {
        tables: table,
        ..Setup::default()
    }
    .prepare();
    let _listener = hangs(&rig);
    rig.start_edge();
    eventually("the edge", || {
        door.request("GET", "/healthz").try_send().ok()
    });
    let begun = Instant::now();
    let now = text(&door);
    let took = begun.elapsed();
    assert_eq!(
        figure(&now, "tidegate_registry_up{registry=\"registry\"}"),
        0.0
    );
    assert!(now.contains("edge_connections_open "), "{now}");
    assert!(!now.contains("registry_storage"), "{now}");
    took
}

#[test]
fn a_registry_that_takes_connections_and_says_nothing_does_not_keep_the_page() {
    let took = time_of_a_page(|rig| UnixListener::bind(rig.socket()).unwrap());
    // It is waited for one second; the rest is for a busy machine.
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

#[test]
fn what_is_no_page_of_figures_is_left_out_whole() {
    use std::io::{Read as _, Write as _};
    time_of_a_page(|rig| {
        let listener = UnixListener::bind(rig.socket()).unwrap();
        let accepting = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            for stream in accepting.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = [0; 4096];
                drop(stream.read(&mut head));
                let page = "# HELP registry_storage_x X\n# TYPE registry_storage_x gauge\n\
                    registry_storage_x 1\nedge_connections_open 5\n# EOF\n";
                let length = page.len();
                let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{page}");
                drop(stream.write_all(reply.as_bytes()));
            }
        });
        listener
    });
}
