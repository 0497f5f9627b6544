//! The recipes of docs/access.md, as they are written there, and what real clients make of each.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{
    Authority, Dockerd, Output, PASSWORD, Pair, Rig, Setup, USER, eventually, heavy,
    layout_with_layers, need, run, skip, tar_of, tidegate, try_run,
};

/// Tidegate, run by a recipe.
struct Served {
    rig: Rig,
    /// Of a user of the authority that the recipes trust.
    certificate: Pair,
}

impl Served {
    /// Runs the recipe under this heading. Only places and names are not as written: those that
    /// are the test's own, and what `edits` says.
    fn by(heading: &str, edits: &[(&str, &str)]) -> Self {
        let mut rig = Setup::default().prepare();
        let folder = rig.config().parent().unwrap().to_owned();
        let authority = Authority::found(&folder, "clients");
        let certificate = authority.issue("eve", "/CN=eve");
        let place = |path: PathBuf| path.display().to_string();
        let mut recipe = recipe(heading);
        for (written, here) in [
            (
                "[\"registry.example.com\"]",
                "[\"localhost\", \"registry.test\"]".to_owned(),
            ),
            (
                "/etc/tidegate/tls/cert.pem",
                place(rig.certificate.cert.clone()),
            ),
            (
                "/etc/tidegate/tls/key.pem",
                place(rig.certificate.key.clone()),
            ),
            ("/etc/tidegate/htpasswd", place(rig.path("htpasswd"))),
            (
                "/etc/tidegate/clients-ca.pem",
                place(authority.at("root.pem")),
            ),
        ] {
            recipe = recipe.replace(written, &here);
        }
        assert!(!recipe.contains("/etc/"), "{recipe}");
        for (written, here) in edits {
            assert!(recipe.contains(written), "{written} is not in {recipe}");
            recipe = recipe.replace(written, here);
        }
        let text = fs::read_to_string(rig.config()).unwrap();
        let (listeners, rest) = text.split_once("[[site]]").unwrap();
        let (_, registry) = rest.split_once("[registry]").unwrap();
        fs::write(
            rig.config(),
            format!("{listeners}{recipe}\n[registry]{registry}"),
        )
        .unwrap();
        run(tidegate().arg("check").arg("--config").arg(rig.config()));
        rig.start_registry();
        rig.start_edge();
        eventually("both roles to listen", || {
            UnixStream::connect(rig.socket()).ok()?;
            TcpStream::connect(rig.https).ok()
        });
        Self { rig, certificate }
    }
}

/// The config under a heading of docs/access.md.
fn recipe(heading: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/access.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page
        .split_once(&format!("\n### {heading}\n"))
        .unwrap_or_else(|| panic!("no recipe {heading:?}"));
    let (_, code) = section.split_once("```toml\n").unwrap();
    code.split_once("```").unwrap().0.to_owned()
}

/// A client as its users know it: it trusts the edge, and has an image to push.
trait Client {
    fn push(&self, name: &str) -> Output;
    fn pull(&self, name: &str) -> Output;
    fn login(&self, password: &str) -> Output;
    fn logout(&self);
    /// Puts a certificate where the client looks for one.
    fn identify(&self, pair: &Pair);
}

struct Docker<'a> {
    engine: &'a Dockerd,
    registry: String,
}

impl<'a> Docker<'a> {
    fn of(served: &Served, engine: &'a Dockerd) -> Self {
        let registry = format!("registry.test:{}", served.rig.https.port());
        engine.trust(&registry, &served.rig.certificate.cert);
        Self { engine, registry }
    }
}

impl Client for Docker<'_> {
    fn push(&self, name: &str) -> Output {
        let image = format!("{}/{name}", self.registry);
        self.engine.run(&["tag", "image", &image]);
        self.engine.try_run(&["push", &image])
    }

    fn pull(&self, name: &str) -> Output {
        self.engine
            .try_run(&["pull", &format!("{}/{name}", self.registry)])
    }

    fn login(&self, password: &str) -> Output {
        self.engine
            .try_run(&["login", "-u", USER, "-p", password, &self.registry])
    }

    fn logout(&self) {
        self.engine.run(&["logout", &self.registry]);
    }

    fn identify(&self, pair: &Pair) {
        self.engine.identify(&self.registry, pair);
    }
}

struct Skopeo {
    folder: PathBuf,
    registry: String,
}

impl Skopeo {
    fn of(served: &Served) -> Self {
        let folder = served.rig.path("skopeo");
        fs::create_dir_all(folder.join("certs")).unwrap();
        fs::copy(&served.rig.certificate.cert, folder.join("certs/ca.crt")).unwrap();
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        fs::write(folder.join("policy.json"), policy).unwrap();
        layout_with_layers(&folder.join("image"), 1, &[1000, 50_000]);
        Self {
            folder,
            registry: served.rig.name(),
        }
    }

    fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("skopeo");
        command
            .args(["--policy", &self.at("policy.json")])
            .args(arguments);
        try_run(command.env("REGISTRY_AUTH_FILE", self.folder.join("auth.json")))
    }
}

impl Client for Skopeo {
    fn push(&self, name: &str) -> Output {
        let from = format!("oci:{}:latest", self.at("image"));
        let to = format!("docker://{}/{name}", self.registry);
        self.run(&["copy", "--dest-cert-dir", &self.at("certs"), &from, &to])
    }

    fn pull(&self, name: &str) -> Output {
        let from = format!("docker://{}/{name}", self.registry);
        let to = format!("oci:{}:latest", self.at("pulled"));
        self.run(&["copy", "--src-cert-dir", &self.at("certs"), &from, &to])
    }

    fn login(&self, password: &str) -> Output {
        let certs = self.at("certs");
        self.run(&[
            "login",
            "--cert-dir",
            &certs,
            "-u",
            USER,
            "-p",
            password,
            &self.registry,
        ])
    }

    fn logout(&self) {
        let output = self.run(&["logout", &self.registry]);
        assert!(output.success, "{output}");
    }

    fn identify(&self, pair: &Pair) {
        fs::copy(&pair.cert, self.folder.join("certs/client.cert")).unwrap();
        fs::copy(&pair.key, self.folder.join("certs/client.key")).unwrap();
    }
}

#[track_caller]
fn works(output: &Output) {
    assert!(output.success, "{output}");
}

#[track_caller]
fn refused(output: &Output) {
    let text = format!("{}{}", output.stdout, output.stderr).to_lowercase();
    let told = [
        "unauthorized",
        "denied",
        "authentication required",
        "certificate required",
        "invalid username/password",
        "no basic auth credentials",
    ];
    assert!(!output.success, "{output}");
    assert!(told.iter().any(|word| text.contains(word)), "{output}");
}

/// Goes through every recipe with a client, which `of` makes for each anew.
fn walk<C: Client>(of: impl Fn(&Served) -> C) {
    passwords_only(&of);
    certificates_only(&of);
    either(&of);
    the_vpn_or_a_password(&of);
    public_pull(&of);
}

fn passwords_only<C: Client>(of: &impl Fn(&Served) -> C) {
    let served = Served::by("Passwords only", &[]);
    let client = of(&served);
    refused(&client.push("team/app:v1"));
    refused(&client.login("wrong"));
    works(&client.login(PASSWORD));
    works(&client.push("team/app:v1"));
    works(&client.pull("team/app:v1"));
    client.logout();
    refused(&client.pull("team/app:v1"));
}

fn certificates_only<C: Client>(of: &impl Fn(&Served) -> C) {
    let served = Served::by("Client certificates only", &[]);
    let client = of(&served);
    refused(&client.push("team/app:v1"));
    client.identify(&served.certificate);
    works(&client.push("team/app:v1"));
    works(&client.pull("team/app:v1"));
}

fn either<C: Client>(of: &impl Fn(&Served) -> C) {
    let served = Served::by("Either a password or a certificate", &[]);
    let client = of(&served);
    refused(&client.push("team/app:v1"));
    works(&client.login(PASSWORD));
    works(&client.push("team/app:v1"));
    client.logout();
    refused(&client.pull("team/app:v1"));
    client.identify(&served.certificate);
    works(&client.pull("team/app:v1"));
    works(&client.push("team/app:v2"));
}

fn the_vpn_or_a_password<C: Client>(of: &impl Fn(&Served) -> C) {
    let heading = "The VPN, or a password";
    let outside = Served::by(heading, &[]);
    let client = of(&outside);
    refused(&client.push("team/app:v1"));
    works(&client.login(PASSWORD));
    works(&client.push("team/app:v1"));
    works(&client.pull("team/app:v1"));
    client.logout();
    drop(outside);
    // Here the VPN is this machine.
    let edits = [("10.8.0.0/16", "127.0.0.0/8"), ("fd00:8::/32", "::1/128")];
    let inside = Served::by(heading, &edits);
    let client = of(&inside);
    works(&client.push("team/app:v1"));
    works(&client.pull("team/app:v1"));
}

fn public_pull<C: Client>(of: &impl Fn(&Served) -> C) {
    let served = Served::by("Everyone may pull, the team may push", &[]);
    let client = of(&served);
    refused(&client.push("public/app:v1"));
    works(&client.login(PASSWORD));
    works(&client.push("public/app:v1"));
    works(&client.push("team/app:v1"));
    works(&client.pull("team/app:v1"));
    client.logout();
    works(&client.pull("public/app:v1"));
    refused(&client.pull("team/app:v1"));
    refused(&client.push("public/app:v2"));
}

#[test]
fn skopeo_gets_what_each_recipe_says() {
    need!("skopeo", "openssl");
    walk(Skopeo::of);
}

#[test]
fn docker_gets_what_each_recipe_says() {
    need!("dockerd", "docker", "unshare", "openssl");
    if !rustix::process::getuid().is_root() {
        skip("only root can run a Docker engine");
        return;
    }
    let _one = heavy();
    let engine = Dockerd::start();
    let layer = engine.scratch().join("layer.tar");
    tar_of(&layer, "file", 7, 50_000);
    engine.run(&["import", layer.to_str().unwrap(), "image"]);
    walk(|served| Docker::of(served, &engine));
}
