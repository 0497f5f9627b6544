//! Pebble, Let's Encrypt's own CA for tests: a real ACME server, with a DNS server of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use openssl::base64;
use openssl::bn::{BigNum, BigNumContext, BigNumRef};
use openssl::ec::EcKey;
use openssl::ecdsa::EcdsaSig;
use openssl::sha::sha256;
use openssl::x509::X509;
use serde_json::{Value, json};

use super::tools::locate;
use super::{Client, Pair, Process, Rig, eventually, free_port};

/// A CA under which every name is this machine.
pub(crate) struct Pebble {
    folder: PathBuf,
    address: SocketAddr,
    management: SocketAddr,
    /// Where records are set.
    records: SocketAddr,
    dns: SocketAddr,
    /// What its API shows; also its root file.
    pub(crate) identity: Pair,
    environment: Vec<(&'static str, &'static str)>,
    // The CA goes first: it asks the DNS server.
    ca: Option<Process>,
    _dns_server: Process,
}

impl Pebble {
    /// Starts a CA that asks `rig`'s listeners.
    pub(crate) fn start(rig: &Rig) -> Self {
        Self::start_with(rig, &json!({}), &[])
    }

    /// As [`start`](Self::start), with more settings and variables.
    pub(crate) fn start_with(
        rig: &Rig,
        settings: &Value,
        environment: &[(&'static str, &'static str)],
    ) -> Self {
        Self::start_at(rig, "pebble", settings, environment)
    }

    /// As [`start_with`](Self::start_with), beside another one.
    pub(crate) fn start_at(
        rig: &Rig,
        name: &str,
        settings: &Value,
        environment: &[(&'static str, &'static str)],
    ) -> Self {
        let folder = rig.path(name);
        fs::create_dir_all(&folder).expect("a folder");
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let [address, management, records, dns] = [(); 4].map(|()| local(free_port()));
        let identity = Pair::create(&folder, "identity", &["localhost"]);
        let mut config = json!({
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": identity.cert,
            "privateKey": identity.key,
            "httpPort": rig.http.port(),
            "tlsPort": rig.https.port(),
            "retryAfter": { "authz": 1, "order": 1 },
            "keyAlgorithm": "ecdsa",
            "profiles": { "default": { "description": "90 days", "validityPeriod": 7_776_000 } },
        });
        for (key, value) in settings.as_object().expect("a table") {
            config[key] = value.clone();
        }
        let text = json!({ "pebble": config }).to_string();
        fs::write(folder.join("config.json"), text).expect("write Pebble's config");
        let mut server = Command::new(program("pebble-challtestsrv"));
        server
            .args(["-dnsserver", &dns.to_string()])
            .args(["-management", &records.to_string()])
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""]);
        let dns_server = Process::start(&mut server, &folder.join("dns.log"));
        let mut pebble = Self {
            folder,
            address,
            management,
            records,
            dns,
            identity,
            environment: environment.to_vec(),
            ca: None,
            _dns_server: dns_server,
        };
        pebble.restart();
        eventually("the DNS server", || {
            let client = Client::plain(records, "localhost");
            client.request("GET", "/").try_send().ok()
        });
        pebble
    }

    /// Starts the CA again; it has forgotten everything, and has another root.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let mut server = Command::new(program("pebble"));
        server
            .arg("-config")
            .arg(self.folder.join("config.json"))
            .args(["-dnsserver", &self.dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .env("PEBBLE_AUTHZREUSE", "0")
            .envs(self.environment.iter().copied());
        self.ca = Some(Process::start(&mut server, &self.folder.join("pebble.log")));
        eventually("Pebble to answer", || {
            let api = Client::tls(self.address, "localhost", &self.identity.cert);
            // Pebble answers nobody who does not say who it is.
            let request = api.request("GET", "/dir").header("User-Agent", "suite");
            let reply = request.try_send().ok()?;
            (reply.status == 200).then_some(())
        });
    }

    /// Takes the CA down.
    pub(crate) fn stop(&mut self) {
        if let Some(mut ca) = self.ca.take() {
            ca.kill();
        }
    }

    /// The keys of `[acme]` that lead here.
    pub(crate) fn keys(&self) -> String {
        format!(
            "agree_to_terms = true\nemail = \"ops@acme.test\"\ndirectory = \"{}\"\nroot_file = \"{}\"\n",
            self.directory(),
            self.identity.cert.display(),
        )
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    /// Writes the root that its certificates lead to into a file.
    pub(crate) fn root(&self) -> PathBuf {
        self.root_number(0)
    }

    /// The same of another one, where there are more.
    pub(crate) fn root_number(&self, number: usize) -> PathBuf {
        let path = self.folder.join(format!("root-{number}.pem"));
        let reply = self
            .manage()
            .request("GET", &format!("/roots/{number}"))
            .header("User-Agent", "suite")
            .send()
            .expect(200);
        fs::write(&path, &reply.body).expect("write the root");
        path
    }

    /// A client of what Pebble lets tests ask.
    pub(crate) fn manage(&self) -> Client {
        Client::tls(self.management, "localhost", &self.identity.cert)
    }

    /// Revokes a certificate, as whoever has its key may (RFC 8555, section 7.6).
    pub(crate) fn revoke(&self, chain: &Path, key: &Path) {
        let certificate = X509::from_pem(&fs::read(chain).expect("read the chain"));
        let certificate = certificate.expect("a certificate").to_der().expect("DER");
        let key = EcKey::private_key_from_pem(&fs::read(key).expect("read the key"));
        let key = key.expect("a key on a curve");
        let (mut x, mut y) = (BigNum::new().expect("x"), BigNum::new().expect("y"));
        let mut context = BigNumContext::new().expect("a context");
        key.public_key()
            .affine_coordinates(key.group(), &mut x, &mut y, &mut context)
            .expect("a point");
        let number = |number: &BigNumRef| number.to_vec_padded(32).expect("32 bytes");
        let api = Client::tls(self.address, "localhost", &self.identity.cert);
        let ask = |method, path| api.request(method, path).header("User-Agent", "suite");
        let directory = ask("GET", "/dir").send().expect(200).json();
        let path = |name: &str| {
            let url = directory[name].as_str().expect("a URL");
            let rest = url.strip_prefix("https://").expect("HTTPS");
            rest.split_once('/').map(|(_, path)| format!("/{path}"))
        };
        let new_nonce = path("newNonce").expect("a path");
        let nonce = ask("HEAD", &new_nonce).send();
        let protected = json!({
            "alg": "ES256",
            "jwk": { "kty": "EC", "crv": "P-256", "x": base64url(&number(&x)), "y": base64url(&number(&y)) },
            "nonce": nonce.header("Replay-Nonce"),
            "url": directory["revokeCert"],
        });
        let protected = base64url(protected.to_string().as_bytes());
        let payload = json!({ "certificate": base64url(&certificate) }).to_string();
        let payload = base64url(payload.as_bytes());
        let signed = sha256(format!("{protected}.{payload}").as_bytes());
        let signature = EcdsaSig::sign(&signed, &key).expect("a signature");
        let signature = [number(signature.r()), number(signature.s())].concat();
        let body = json!({
            "protected": protected,
            "payload": payload,
            "signature": base64url(&signature),
        });
        let revoke = path("revokeCert").expect("a path");
        ask("POST", &revoke)
            .header("Content-Type", "application/jose+json")
            .body(body.to_string())
            .send()
            .expect(200);
    }

    /// Where the records of the DNS server are set, by POST.
    pub(crate) fn records(&self) -> SocketAddr {
        self.records
    }

    /// Makes a name lead to an address.
    pub(crate) fn lead(&self, host: &str, address: &str) {
        let body = json!({ "host": format!("{host}."), "addresses": [address] });
        let client = Client::plain(self.records, "localhost");
        let request = client.request("POST", "/add-a");
        request.body(body.to_string()).send().expect(200);
    }

    /// Makes a name lead where every other leads.
    pub(crate) fn lead_home(&self, host: &str) {
        let body = json!({ "host": format!("{host}.") });
        let client = Client::plain(self.records, "localhost");
        let request = client.request("POST", "/clear-a");
        request.body(body.to_string()).send().expect(200);
    }
}

fn program(name: &str) -> PathBuf {
    locate(name).unwrap_or_else(|| Path::new(name).to_owned())
}

fn base64url(bytes: &[u8]) -> String {
    let text = base64::encode_block(bytes);
    text.trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}
