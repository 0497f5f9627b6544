//! Where logs are written: nobody but the role and root decides which file that is.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{Process, Rig, Setup, eventually, need, run, skip, tidegate, try_run};

/// Two users without rights and the group of both, by numbers that nobody has.
const EDGE: &str = "64101";
const REGISTRY: &str = "64102";
const BOTH: &str = "64100";

/// A config whose logs go to these files.
fn logging_to(edge: &Path, registry: &Path) -> Setup {
    Setup {
        tables: format!("[log]\nfile = \"{}\"\n", edge.display()),
        registry: format!("log.file = \"{}\"\n", registry.display()),
        ..Setup::default()
    }
}

fn check(rig: &Rig) -> crate::harness::Output {
    try_run(tidegate().arg("check").arg("--config").arg(rig.config()))
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// `program` as another user.
fn acting_as(user: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user, "--regid", BOTH, "--clear-groups"])
        .arg(program);
    command
}

#[test]
fn one_role_cannot_have_the_other_write_to_a_file_of_its_choice() {
    need!("setpriv");
    if !rustix::process::getuid().is_root() {
        skip("only root can be two other users");
        return;
    }
    // Both write to one folder, as the packages of earlier versions had it.
    let folder = TempDir::with_prefix("logs").unwrap();
    let at = |name: &str| folder.path().join(name);
    set_mode(folder.path(), 0o755);
    let ids = |user: &str| (user.parse().ok(), BOTH.parse().ok());
    let make = |name: &str, user: &str, mode| {
        fs::create_dir(at(name)).unwrap();
        let (user, group) = ids(user);
        chown(at(name), user, group).unwrap();
        set_mode(&at(name), mode);
    };
    make("log", "0", 0o770);
    make("data", REGISTRY, 0o700);
    make("run", REGISTRY, 0o750);
    let log = at("log").join("registry.log");
    let setup = Setup {
        root: Some(at("data")),
        ..logging_to(&at("log").join("edge.log"), &log)
    };
    let rig = setup.prepare();
    // What belongs to the rig is for its own user; the registry reads the config and nothing else.
    let config = fs::read_to_string(rig.config()).unwrap();
    let socket = at("run").join("registry.sock").display().to_string();
    let config = config.replace(&rig.socket().display().to_string(), &socket);
    fs::write(at("edge.toml"), config).unwrap();
    let program = at("tidegate");
    fs::copy(env!("CARGO_BIN_EXE_tidegate"), &program).unwrap();
    let victim = at("data").join("victim");
    fs::write(&victim, "precious").unwrap();
    let (user, group) = ids(REGISTRY);
    chown(&victim, user, group).unwrap();

    let sh = |user: &str, script: &str| {
        let mut command = acting_as(user, Path::new("sh"));
        run(command.args(["-c", script]).arg(&log).arg(&victim));
    };
    for (plant, why) in [
        ("ln -s \"$1\" \"$0\"", "is a symbolic link"),
        ("mkfifo \"$0\"", "no regular file"),
        ("touch \"$0\"; chmod 666 \"$0\"", "is owned by user 64101"),
    ] {
        sh(EDGE, plant);
        let mut registry = acting_as(REGISTRY, &program);
        registry
            .arg("registry")
            .arg("--config")
            .arg(at("edge.toml"));
        let mut registry = Process::start(&mut registry, &at("output"));
        let status = eventually("the registry to refuse, or to write", || {
            assert_eq!(fs::read(&victim).unwrap(), b"precious", "{plant}");
            registry.exited()
        });
        assert_eq!(status.code(), Some(1), "{plant}");
        let said = registry.log();
        let last = said.lines().last().unwrap();
        let path = log.display().to_string();
        assert!(
            last.contains(&path) && last.contains(why),
            "{plant}: {said}"
        );
        sh(EDGE, "rm \"$0\"");
    }
}

#[test]
fn check_and_both_roles_refuse_what_is_no_file_of_the_log_alone() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("victim"), "precious").unwrap();
    symlink(at("victim"), at("edge.log")).unwrap();
    fs::hard_link(at("victim"), at("registry.log")).unwrap();
    let rig = logging_to(&at("edge.log"), &at("registry.log")).prepare();
    let checked = check(&rig);
    assert_eq!(checked.code, Some(1), "{checked}");
    let problems = [
        ("edge", "log.file: ", "is a symbolic link"),
        ("registry", "registry.log.file: ", "has 2 hard links"),
    ];
    for (role, key, why) in problems {
        let problem = |text: &str| {
            text.lines()
                .any(|line| line.contains(key) && line.contains(why))
        };
        assert!(problem(&checked.stderr), "{checked}");
        let mut command = tidegate();
        command.arg(role).arg("--config").arg(rig.config());
        let mut role = Process::start(&mut command, &at("output"));
        let status = eventually("the role to refuse, or to write", || {
            assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
            role.exited()
        });
        assert_eq!(status.code(), Some(1));
        assert!(problem(&role.log()), "{}", role.log());
    }
}

#[test]
fn a_reload_does_not_follow_a_link_either() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (log, moved, victim) = (at("edge.log"), at("edge.log.1"), at("victim"));
    let mut rig = logging_to(&log, &at("registry.log")).start();
    fs::write(&victim, "precious").unwrap();
    fs::rename(&log, &moved).unwrap();
    symlink(&victim, &log).unwrap();
    rig.reload_edge();
    // It goes on with the file that it has, and says there why.
    eventually("the reload to be refused", || {
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        let log = fs::read_to_string(&moved).unwrap();
        let refused = log.contains("is a symbolic link") && log.contains("nothing was changed");
        refused.then_some(())
    });
    rig.client().get("/v2/linked/tags/list").expect(404);
    eventually("the line of a request", || {
        let log = fs::read_to_string(&moved).unwrap();
        log.contains("/v2/linked/").then_some(())
    });
}

#[test]
fn the_names_of_the_outputs_are_no_links() {
    let tables = "[log]\nfile = \"/dev/stdout\"\naccess_file = \"/dev/null\"\n".to_owned();
    let registry = "log.file = \"/dev/stderr\"\n".to_owned();
    let setup = Setup {
        tables,
        registry,
        ..Setup::default()
    };
    let rig = setup.start();
    assert!(check(&rig).success);
    rig.client().get("/v2/nowhere/tags/list").expect(404);
    for log in [rig.edge_log(), rig.registry_log()] {
        assert!(log.contains(": ready"), "{log}");
        assert!(!log.contains("/v2/nowhere/"), "{log}");
    }
}

#[test]
fn a_folder_that_others_may_write_to_works_and_is_warned_of() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, mode) in [("shared", 0o1770), ("own", 0o750)] {
        fs::create_dir(at(name)).unwrap();
        set_mode(&at(name), mode);
    }
    let (shared, own) = (
        at("shared").join("edge.log"),
        at("own").join("registry.log"),
    );
    let rig = logging_to(&shared, &own).start();
    let (edge, registry) = (fs::read_to_string(&shared), fs::read_to_string(&own));
    let (edge, registry) = (edge.unwrap(), registry.unwrap());
    let checked = check(&rig);
    assert!(checked.success, "{checked}");
    for said in [&checked.stderr, &edge] {
        assert!(said.contains("log.file: "), "{said}");
        assert!(said.contains("put something else in the place"), "{said}");
    }
    for said in [&checked.stderr, &registry] {
        assert!(!said.contains("registry.log.file"), "{said}");
    }
    assert!(!registry.contains("WARN"), "{registry}");
}
