//! Pebble, Let's Encrypt's own CA for tests: a real ACME server, with a DNS server of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

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
        let path = self.folder.join("root.pem");
        let reply = self
            .manage()
            .request("GET", "/roots/0")
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
