//! Tokens across programs: those of this edge taken by another registry, and those of another
//! server taken here.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use openssl::base64;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;
use openssl::sign::Signer;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ask, public, token_of};
use crate::harness::{
    Client, MANIFEST, Pair, Process, Rig, Setup, eventually, free_port, image, need, push_image,
    run, tidegate, try_run,
};

fn encode(bytes: &[u8]) -> String {
    let text = base64::encode_block(bytes);
    text.trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}

fn now() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Another token server, as far as it matters: a key that signs.
struct Other {
    key: PKey<Private>,
}

impl Other {
    /// Makes a certificate with a key of this kind, in `folder`.
    fn new(folder: &Path, kind: &[&str]) -> Self {
        run(Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=tokens",
                "-newkey",
            ])
            .args(kind)
            .arg("-keyout")
            .arg(folder.join("issuer-key.pem"))
            .arg("-out")
            .arg(folder.join("issuer.pem")));
        let pem = fs::read(folder.join("issuer-key.pem")).unwrap();
        Self {
            key: PKey::private_key_from_pem(&pem).unwrap(),
        }
    }

    /// The key's name as RFC 7638 has it, for an RSA key.
    fn thumbprint(&self) -> String {
        let rsa = self.key.rsa().unwrap();
        let (n, e) = (encode(&rsa.n().to_vec()), encode(&rsa.e().to_vec()));
        let canonical = format!("{{\"e\":\"{e}\",\"kty\":\"RSA\",\"n\":\"{n}\"}}");
        encode(&sha256(canonical.as_bytes()))
    }

    fn key_set(&self, kid: &str) -> String {
        let rsa = self.key.rsa().unwrap();
        let (n, e) = (encode(&rsa.n().to_vec()), encode(&rsa.e().to_vec()));
        json!({ "keys": [{ "kty": "RSA", "kid": kid, "n": n, "e": e, "use": "sig" }] }).to_string()
    }

    /// Signs with RS256.
    fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).unwrap();
        let signature = signer.sign_oneshot_to_vec(message.as_bytes()).unwrap();
        format!("{message}.{}", encode(&signature))
    }
}

fn claims(actions: &[&str]) -> Value {
    json!({
        "iss": "them", "aud": "us", "sub": "carol", "iat": now(), "nbf": now(),
        "exp": now() + 300, "jti": "1",
        "access": [{ "type": "repository", "name": "team/app", "actions": actions }],
    })
}

/// A site that takes tokens of another server; `trust` says which.
fn taking(trust: &str) -> Setup {
    Setup {
        auth: format!(
            "[site.auth.issuer]\nrealm = \"https://them.test/token\"\nservice = \"us\"\n\
             issuer = \"them\"\n{trust}\n"
        ),
        ..Setup::default()
    }
}

const RSA: [&str; 1] = ["rsa:2048"];

#[test]
fn tokens_of_another_server_decide_by_themselves() {
    need!("openssl");
    let folder = TempDir::new().unwrap();
    let other = Other::new(folder.path(), &RSA);
    let certificate = folder.path().join("issuer.pem");
    let rig = taking(&format!("root_certificate_files = [{certificate:?}]")).start();
    let nobody = rig.anonymous();
    let reply = nobody
        .get("/v2/team/app/tags/list")
        .expect_error(401, "UNAUTHORIZED");
    let expected = "Bearer realm=\"https://them.test/token\",service=\"us\",\
                    scope=\"repository:team/app:pull\"";
    assert_eq!(reply.all("WWW-Authenticate"), [expected]);
    // Tokens are the other's to hand out.
    nobody.get("/auth/token").expect(404);
    nobody.get("/.well-known/jwks.json").expect(404);

    let header = json!({ "typ": "JWT", "alg": "RS256", "kid": other.thumbprint() });
    let carol = nobody.as_bearer(&other.token(&header, &claims(&["pull", "push"])));
    push_image(&carol, "team/app", "v1", &image(95, &[1000]));
    carol.get("/v2/team/app/manifests/v1").expect(200);
    let reply = carol.delete("/v2/team/app/manifests/v1").expect(401);
    let challenge = reply.header("WWW-Authenticate").unwrap().to_owned();
    assert!(
        challenge.ends_with(",error=\"insufficient_scope\""),
        "{challenge}"
    );
    carol.get("/v2/other/app/tags/list").expect(401);
    carol.get("/v2/_catalog").expect(401);
    assert!(rig.edge_log().contains("principal=\"carol\""));

    let chain = fs::read_to_string(&certificate).unwrap();
    let chain: String = chain
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let header_x5c = json!({ "typ": "JWT", "alg": "RS256", "x5c": [chain] });
    let by_chain = nobody.as_bearer(&other.token(&header_x5c, &claims(&["pull"])));
    by_chain.get("/v2/team/app/manifests/v1").expect(200);

    let stranger_folder = TempDir::new().unwrap();
    let stranger = Other::new(stranger_folder.path(), &RSA);
    let wrong = |claim: &str, value: Value| {
        let mut claims = claims(&["pull"]);
        claims[claim] = value;
        other.token(&header, &claims)
    };
    let none = json!({ "typ": "JWT", "alg": "none", "kid": other.thumbprint() });
    let symmetric = json!({ "typ": "JWT", "alg": "HS256", "kid": other.thumbprint() });
    let stranger_chain = fs::read_to_string(stranger_folder.path().join("issuer.pem")).unwrap();
    let stranger_chain: String = stranger_chain
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let own_chain = json!({ "typ": "JWT", "alg": "RS256", "x5c": [stranger_chain] });
    for token in [
        stranger.token(&header, &claims(&["pull"])),
        stranger.token(&own_chain, &claims(&["pull"])),
        other.token(&none, &claims(&["pull"])),
        other.token(&symmetric, &claims(&["pull"])),
        wrong("iss", json!("others")),
        wrong("aud", json!("them")),
        wrong("exp", json!(now() - 100)),
        wrong("nbf", json!(now() + 100)),
        wrong("exp", Value::Null),
    ] {
        let reply = nobody.as_bearer(&token).get("/v2/");
        reply.expect_error(401, "UNAUTHORIZED");
    }
    // The password of the htpasswd file is taken beside it.
    rig.client().get("/v2/team/app/manifests/v1").expect(200);
}

#[test]
fn keys_come_from_a_file_or_are_fetched_and_fetched_again() {
    need!("openssl");
    let folder = TempDir::new().unwrap();
    let other = Other::new(folder.path(), &RSA);
    fs::write(folder.path().join("jwks.json"), other.key_set("one")).unwrap();
    let jwks = folder.path().join("jwks.json");
    let rig = taking(&format!("jwks_file = {jwks:?}")).start();
    let header = |kid: &str| json!({ "typ": "JWT", "alg": "RS256", "kid": kid });
    let token = |kid: &str| other.token(&header(kid), &claims(&["pull"]));
    rig.anonymous()
        .as_bearer(&token("one"))
        .get("/v2/")
        .expect(200);
    rig.anonymous()
        .as_bearer(&token("two"))
        .get("/v2/")
        .expect(401);

    // A server of the real openssl's, over TLS and with a certificate of its own.
    let pair = Pair::create(folder.path(), "tls", &["localhost"]);
    let port = free_port();
    let mut command = Command::new("openssl");
    command
        .current_dir(folder.path())
        .args([
            "s_server",
            "-quiet",
            "-WWW",
            "-accept",
            &port.to_string(),
            "-cert",
        ])
        .arg(&pair.cert)
        .arg("-key")
        .arg(&pair.key);
    let _server = Process::start(&mut command, &folder.path().join("log"));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("the server", || std::net::TcpStream::connect(address).ok());
    let rig = taking(&format!(
        "jwks_url = \"https://localhost:{port}/jwks.json\"\njwks_ca_file = {:?}",
        pair.cert
    ))
    .start();
    eventually("the keys to be fetched", || {
        let reply = rig.anonymous().as_bearer(&token("one")).get("/v2/");
        (reply.status == 200).then_some(())
    });
    fs::write(folder.path().join("jwks.json"), other.key_set("two")).unwrap();
    eventually("a key that was not known to be fetched", || {
        let reply = rig.anonymous().as_bearer(&token("two")).get("/v2/");
        (reply.status == 200).then_some(())
    });
    rig.anonymous()
        .as_bearer(&token("one"))
        .get("/v2/")
        .expect(401);
}

#[test]
fn an_issuer_that_cannot_be_trusted_is_told_by_check() {
    let told = |trust: &str| {
        let rig = taking(trust).prepare();
        fs::write(rig.path("empty"), "").unwrap();
        let check = try_run(tidegate().arg("check").arg("--config").arg(rig.config()));
        assert_eq!(check.code, Some(1), "{trust}: {check}");
        check.stderr
    };
    for (trust, expected) in [
        ("", "needs root_certificate_files, jwks_file or jwks_url"),
        (
            "jwks_url = \"http://a.test/x\"",
            "jwks_url: must begin with https://",
        ),
        (
            "jwks_url = \"here\"",
            "jwks_url: \"here\": is not a valid URL",
        ),
        ("jwks_file = \"none\"", "jwks_file: "),
        ("jwks_file = \"empty\"", "is not a valid JSON Web Key Set"),
        (
            "root_certificate_files = [\"empty\"]",
            "holds no certificate",
        ),
        (
            "jwks_ca_file = \"empty\"\njwks_file = \"empty\"",
            "jwks_url, which is missing",
        ),
        ("colour = 1", "colour: unknown key"),
    ] {
        let told = told(trust);
        assert!(told.contains(expected), "{trust}: {told}");
    }
}

/// An edge whose tokens are for the service `other`.
fn giver() -> Rig {
    Setup {
        auth: "[site.auth.token]\nservice = \"other\"".to_owned(),
        ..public()
    }
    .start()
}

/// `docker-registry` with our edge as its token server.
fn taker(rig: &Rig, folder: &Path) -> (Client, Process) {
    let mut certificates = tidegate();
    certificates
        .args(["token", "certificates", "--config"])
        .arg(rig.config());
    fs::write(folder.join("bundle.pem"), run(&mut certificates)).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {root}\n  delete:\n    \
         enabled: true\nhttp:\n  addr: {address}\nauth:\n  token:\n    \
         realm: https://{name}/auth/token\n    service: other\n    issuer: localhost\n    \
         rootcertbundle: {folder}/bundle.pem\n",
        root = folder.join("root").display(),
        name = rig.name(),
        folder = folder.display(),
    );
    fs::write(folder.join("config.yml"), text).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(folder.join("config.yml"));
    let process = Process::start(&mut command, &folder.join("log"));
    let client = Client::plain(address, &address.to_string());
    eventually("docker-registry to answer", || {
        let reply = client.request("GET", "/v2/").try_send().ok()?;
        (reply.status == 401).then_some(())
    });
    (client, process)
}

#[test]
fn dockers_own_registry_takes_our_tokens() {
    need!("docker-registry");
    let rig = giver();
    let folder = TempDir::new().unwrap();
    let (registry, _process) = taker(&rig, folder.path());
    let challenge = registry
        .get("/v2/")
        .header("WWW-Authenticate")
        .unwrap()
        .to_owned();
    assert!(
        challenge.contains(&format!("https://{}/auth/token", rig.name())),
        "{challenge}"
    );
    let token = |client: &Client, scope: &str| {
        token_of(ask(client, &format!("service=other&scope={scope}")))
    };
    let push = token(&rig.client(), "repository:public/app:pull,push");
    let digest = push_image(
        &registry.as_bearer(&push),
        "public/app",
        "v1",
        &image(96, &[1000]),
    );
    let pull = token(&rig.anonymous(), "repository:public/app:pull,push");
    let nobody = registry.as_bearer(&pull);
    let manifest = nobody.request("GET", "/v2/public/app/manifests/v1");
    manifest.header("Accept", MANIFEST).send().expect(200);
    nobody.post("/v2/public/app/blobs/uploads/").expect(401);
    let catalog = token(&rig.client(), "registry:catalog:*");
    registry.as_bearer(&catalog).get("/v2/_catalog").expect(200);
    let delete = token(&rig.client(), "repository:public/app:*");
    let path = format!("/v2/public/app/manifests/{digest}");
    registry.as_bearer(&delete).delete(&path).expect(202);
    registry
        .as_bearer(&format!("{pull}x"))
        .get("/v2/")
        .expect(401);
}

#[test]
fn crane_walks_between_the_two() {
    need!("docker-registry", "crane");
    let rig = giver();
    let folder = TempDir::new().unwrap();
    let (registry, _process) = taker(&rig, folder.path());
    let token = token_of(ask(&rig.client(), "scope=repository:public/app:pull,push"));
    let bearer = registry.as_bearer(&token);
    push_image(&bearer, "public/app", "v1", &image(97, &[1000]));
    let name = registry.name();
    let mut crane = Command::new("crane");
    crane
        .args(["manifest", "--insecure", &format!("{name}/public/app:v1")])
        .env("SSL_CERT_FILE", &rig.certificate.cert)
        .env("HOME", folder.path());
    assert!(run(&mut crane).contains("schemaVersion"));
}
