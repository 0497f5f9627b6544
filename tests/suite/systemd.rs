//! The units: well-formed, and locked down as far as the roles survive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{files_below, need, run, try_run};

/// What each service may score at most; lower is safer.
const EXPOSURE_MAX: f64 = 1.5;

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut units: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|kind| kind == "service" || kind == "socket")
        })
        .collect();
    units.sort();
    units
}

/// The units, with a program where they say one is.
fn installed() -> (TempDir, Vec<PathBuf>) {
    let folder = TempDir::new().unwrap();
    let mut copies = Vec::new();
    for unit in units() {
        let text = fs::read_to_string(&unit).unwrap();
        let text: String = text
            .lines()
            .map(|line| {
                if line.starts_with("Exec") {
                    line.replace("/usr/local/bin/tidegate", "/bin/true")
                        .replace("/usr/bin/tidegate", "/bin/true")
                } else {
                    line.to_owned()
                }
            })
            .collect::<Vec<_>>()
            .join("\n");
        let copy = folder.path().join(unit.file_name().unwrap());
        fs::write(&copy, text).unwrap();
        copies.push(copy);
    }
    (folder, copies)
}

#[test]
fn both_roles_have_a_unit() {
    let names: Vec<String> = units()
        .iter()
        .map(|unit| unit.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    for name in ["tidegate-edge.service", "tidegate-registry.service"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    need!("systemd-analyze");
    let (_folder, units) = installed();
    let output = try_run(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .args(&units),
    );
    assert!(output.success, "{output}");
    let ours: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| line.contains("tidegate"))
        .collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn systemd_rates_each_service_as_safe() {
    need!("systemd-analyze");
    for unit in units()
        .iter()
        .filter(|unit| unit.extension().is_some_and(|kind| kind == "service"))
    {
        let mut command = Command::new("systemd-analyze");
        let report = run(command
            .args(["security", "--offline=true", "--no-pager"])
            .arg(unit));
        let line = report
            .lines()
            .find(|line| line.contains("Overall exposure level"))
            .unwrap();
        let score = line
            .split(": ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .unwrap();
        let score: f64 = score.parse().unwrap();
        println!("{}: {score}", unit.display());
        assert!(
            score <= EXPOSURE_MAX,
            "{}: {score}\n{report}",
            unit.display()
        );
    }
}

#[test]
fn the_units_do_what_the_roles_need() {
    for (name, role) in [("tidegate-edge", "edge"), ("tidegate-registry", "registry")] {
        let unit = units()
            .into_iter()
            .find(|unit| unit.ends_with(format!("{name}.service")))
            .unwrap();
        let text = fs::read_to_string(unit).unwrap();
        for line in [
            "Type=notify",
            "ExecReload=",
            "RestartPreventExitStatus=78",
            "RestartSec=2",
            "StartLimitIntervalSec=0",
            "User=",
            "Restart=",
            // Neither can take the machine from the other.
            "MemoryHigh=",
            "MemoryMax=",
            "TasksMax=",
        ] {
            assert!(text.contains(line), "{name}: no {line}");
        }
        // A folder that the other may not write to.
        let folder = format!("\nLogsDirectory=tidegate/{role}\n");
        assert!(
            text.contains(&folder),
            "{name}: no folder of its own for logs"
        );
        let mode = text
            .lines()
            .find_map(|line| line.strip_prefix("LogsDirectoryMode="));
        assert!(matches!(mode, Some("0700" | "0750")), "{name}: {mode:?}");
        assert!(text.contains(&format!("tidegate {role}")), "{name}");
        let ports = text.lines().any(|line| {
            line.starts_with("AmbientCapabilities=") && line.contains("CAP_NET_BIND_SERVICE")
        });
        assert_eq!(ports, role == "edge", "{name}: who may bind port 443");
    }
}

#[test]
fn make_install_puts_everything_in_its_place() {
    need!("make");
    let folder = TempDir::new().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The build is not under test: the binary at hand is installed.
    let mut make = Command::new("make");
    make.current_dir(root)
        .args(["install", &format!("DESTDIR={}", folder.path().display())])
        .arg(format!("BINARY={}", env!("CARGO_BIN_EXE_tidegate")));
    run(&mut make);
    let files = files_below(folder.path());
    let named = |end: &str| {
        files
            .iter()
            .any(|path| path.to_string_lossy().ends_with(end))
    };
    for end in [
        "bin/tidegate",
        "/tidegate-edge.service",
        "/tidegate-registry.service",
        "/edge.toml",
        "sysusers.d/tidegate.conf",
        "tmpfiles.d/tidegate.conf",
    ] {
        assert!(named(end), "{end} is not among {files:#?}");
    }

    // What an uninstall leaves it names, each thing; nothing of it, if nothing is left.
    let at = |path: &str| folder.path().join(path);
    for kept in [
        "var/lib/tidegate",
        "var/lib/registry-team",
        "var/log/tidegate",
    ] {
        fs::create_dir_all(at(kept)).unwrap();
    }
    let uninstall = || {
        let mut make = Command::new("make");
        make.current_dir(root);
        run(make.args(["uninstall", &format!("DESTDIR={}", folder.path().display())]))
    };
    let said = uninstall();
    for kept in [
        "etc/tidegate",
        "var/lib/tidegate",
        "var/lib/registry-team",
        "var/log/tidegate",
    ] {
        let line = format!("  {}", at(kept).display());
        assert!(said.lines().any(|said| said == line), "no {line} in {said}");
    }
    assert!(!said.contains("lib/registry\n"), "{said}");
    assert!(!at("usr/local/bin/tidegate").exists());
    fs::remove_dir_all(at("etc")).unwrap();
    fs::remove_dir_all(at("var")).unwrap();
    let said = uninstall();
    assert!(
        said.contains("Removed.") && !said.contains("Still there"),
        "{said}"
    );
}
