//! What the operator wrote, read and proven: a [`Config`], or every problem at once.
//!
//! The files that it names (certificates, keys, htpasswd) are read here too, so that a check says
//! all there is to say. Nothing here opens a socket; `[registry]` and `[log]` are read by others.

mod access;
mod acme;
mod addresses;
mod auth;
mod certificate;
mod client_certificates;
mod host_pattern;
mod limits;
mod listener;
mod logins;
mod metrics;
mod quotas;
mod site;
mod tokens;
mod upstream;

use std::ffi::OsStr;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use settings::Section;

pub use acme::KeyType;
pub(crate) use acme::{Acme, Authority, Challenge, DnsHook};
pub(crate) use auth::Auth;
pub(crate) use client_certificates::ClientCertificates;
pub(crate) use host_pattern::HostPattern;
pub(crate) use limits::Limits;
pub(crate) use listener::{Listener, Tls, TlsVersion};
pub(crate) use logins::{FORGET_AFTER_MAX, Logins};
pub(crate) use metrics::Metrics;
pub(crate) use quotas::{Quota, Quotas};
pub(crate) use site::Site;
pub(crate) use upstream::{PeerAddress, Upstream};

use crate::acme::{Storage, Trouble};
use crate::filter::addresses::Network;
use crate::state_dir::StateDir;

/// Long enough for the upload of a large layer over a slow line.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// More threads than this only wait for each other.
const WORKERS_MAX: usize = 256;

/// Where a registry beside the edge listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegistryPeer {
    /// The name by which a site asks for it.
    pub name: String,
    /// The path of its Unix socket.
    pub socket: PathBuf,
}

/// Whether the files that keys name are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Files {
    LeaveAlone,
    Read,
}

/// What an edge needs to know to start, or to go on differently.
#[derive(Debug)]
pub struct Config {
    /// How certificates are obtained.
    pub(crate) acme: Option<Acme>,
    pub(crate) drain_timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) listeners: Vec<Listener>,
    /// Where figures are told, if anywhere.
    pub(crate) metrics: Option<Metrics>,
    pub(crate) sites: Vec<Site>,
    pub(crate) state_dir: StateDir,
    pub(crate) tls: Tls,
    pub(crate) trusted_proxies: Box<[Network]>,
    pub(crate) workers: NonZero<usize>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads everything of the file but `[log]` and `[registry]`; `registries` are what the
    /// latter describes. The files that it names are read too.
    ///
    /// `None` means that problems were noted in `root`'s document.
    pub fn read(root: &mut Section, registries: &[RegistryPeer]) -> Option<Self> {
        Self::read_with(root, registries, Files::Read)
    }

    /// Checks every key, but leaves alone the files that they name: they are not for the eyes of
    /// the registry's user.
    ///
    /// What is returned has nothing to serve.
    pub fn read_keys(root: &mut Section, registries: &[RegistryPeer]) -> Option<Self> {
        let mut config = Self::read_with(root, registries, Files::LeaveAlone)?;
        config.listeners.clear();
        config.sites.clear();
        Some(config)
    }

    fn read_with(root: &mut Section, registries: &[RegistryPeer], files: Files) -> Option<Self> {
        let drain_timeout = limits::wait(root, "drain_timeout");
        let workers = root.optional("workers");
        if workers.is_some_and(|workers: NonZero<usize>| workers.get() > WORKERS_MAX) {
            root.problem("workers", format!("must be {WORKERS_MAX} at most"));
        }
        let trusted_proxies = addresses::networks(root, "trusted_proxies");
        let limits = root.table("limits").map(Limits::read).unwrap_or_default();
        let tls = root
            .table("tls")
            .map(|table| Tls::read(table, files))
            .unwrap_or_default();
        let listeners = listener::read_all(root, &trusted_proxies);
        let upstreams = upstream::read_all(root, registries, limits);
        let mut warnings = Vec::new();
        if trusted_proxies.iter().any(Network::is_everywhere) {
            warnings.push(
                "trusted_proxies: holds every address, so that every client may say whom it is from"
                    .to_owned(),
            );
        }
        let metrics = root.table("metrics");
        let metrics = metrics.and_then(|own| Metrics::read(own, &listeners, &mut warnings));
        let state_dir = read_state_dir(root);
        let storage = Storage::new(state_dir.clone());
        let acme = root.table("acme").map(|table| Acme::read(table, files));
        let surroundings = site::Surroundings {
            upstreams: &upstreams,
            tls_listens: listeners.iter().any(|listener| listener.tls),
            acme: acme.as_ref().map(|acme| site::AroundAcme {
                storage: &storage,
                has_dns: acme.dns.is_some(),
                key_types: &acme.key_types,
            }),
            acme_failed: root.has("acme") && acme.is_none(),
            files,
        };
        let sites = site::read_all(root, surroundings, &mut warnings);
        warn_of_the_unused(&upstreams, &sites, &mut warnings);
        let keeps = |site: &Site| site.hands_out_tokens() || site.is_managed();
        if files == Files::Read
            && sites.iter().any(keeps)
            && let Err(error) = state_dir.check()
        {
            let path = state_dir.path().display();
            root.problem("state_dir", format!("{path}: {error}"));
        }
        let one_per_core = || available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let config = Self {
            acme,
            drain_timeout: drain_timeout.unwrap_or(DRAIN_TIMEOUT),
            limits,
            listeners,
            metrics,
            sites,
            state_dir,
            tls,
            trusted_proxies,
            workers: workers.unwrap_or_else(one_per_core),
            warnings,
        };
        (!root.failed()).then_some(config)
    }

    /// Returns whether a key is needed to sign tokens with.
    pub(crate) fn hands_out_tokens(&self) -> bool {
        self.sites.iter().any(Site::hands_out_tokens)
    }

    /// Returns whether there is a certificate to be obtained.
    pub fn looks_after_certificates(&self) -> bool {
        self.sites.iter().any(Site::is_managed)
    }

    /// Returns what is wrong with the certificates that are looked after.
    pub fn certificate_troubles(&self) -> Vec<Trouble> {
        let storage = Storage::new(self.state_dir.clone());
        let certificates = self.sites.iter().flat_map(|site| &site.certificates);
        certificates
            .filter_map(|certificate| {
                let name = &certificate.upkeep.as_ref()?.name;
                Trouble::of(name, &certificate.key, &storage.record(name).ok()?)
            })
            .collect()
    }

    /// Returns what is allowed and yet worth an operator's look, such as a certificate whose time
    /// is over.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Warns of registries that nobody can reach.
fn warn_of_the_unused(upstreams: &[Arc<Upstream>], sites: &[Site], warnings: &mut Vec<String>) {
    for upstream in upstreams.iter().filter(|upstream| upstream.registry) {
        if !sites
            .iter()
            .any(|site| Arc::ptr_eq(&site.upstream, upstream))
        {
            let name = &upstream.name;
            warnings.push(format!(
                "registry {name:?}: is no site's upstream, so nobody can reach it"
            ));
        }
    }
}

/// Reads where the edge keeps what it makes itself; by default where systemd says, or else beside the
/// config file.
pub fn read_state_dir(root: &mut Section) -> StateDir {
    let written = root.path("state_dir");
    let given = || {
        let folders = std::env::var_os("STATE_DIRECTORY")?;
        // There may be several; ours is the first.
        let first = folders.as_bytes().split(|byte| *byte == b':').next()?;
        (!first.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(first)))
    };
    StateDir::new(
        written
            .or_else(given)
            .unwrap_or_else(|| root.beside("state")),
    )
}

/// Reads the types of key that sites have a certificate of a CA for.
pub fn read_key_types(root: &mut Section) -> Vec<KeyType> {
    let acme = root.table("acme");
    acme.map_or_else(
        || vec![KeyType::default()],
        |mut table| acme::key_types(&mut table),
    )
}

/// Returns the hosts of the sites that a config names, whatever else is wrong with it.
pub fn read_hosts(root: &mut Section) -> Vec<String> {
    let sites = root.tables("site");
    let hosts = |mut site: Section| site.optional::<Vec<String>>("hosts").unwrap_or_default();
    sites.into_iter().flat_map(hosts).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use settings::Document;
    use tempfile::TempDir;

    use super::*;
    use crate::tls::self_signed;

    /// A folder with a certificate for `a.test`, its key, and an htpasswd file.
    fn folder() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let pair = self_signed::generate(&["a.test".to_owned()], &[]).unwrap();
        fs::write(folder.path().join("cert.pem"), pair.cert_pem).unwrap();
        fs::write(folder.path().join("key.pem"), pair.key_pem).unwrap();
        let users = "docker:{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=\n";
        fs::write(folder.path().join("htpasswd"), users).unwrap();
        folder
    }

    fn read_in(folder: &Path, text: &str) -> Result<Config, String> {
        let mut document = Document::parse(&folder.join("edge.toml"), text).unwrap();
        let registry = RegistryPeer {
            name: "registry".to_owned(),
            socket: "/run/registry.sock".into(),
        };
        let config = Config::read(&mut document.root(), &[registry]);
        match document.finish() {
            Ok(()) => Ok(config.unwrap()),
            Err(problems) => {
                assert!(config.is_none());
                let prefix = format!("{}/edge.toml:", folder.display());
                let problems = problems.to_string().replace(&prefix, "");
                Err(problems.replace(&format!("{}/", folder.display()), ""))
            }
        }
    }

    const GOOD: &str = r#"
[[listener]]
address = "127.0.0.1:443"
tls = true
[[site]]
hosts = ["a.test"]
certificate = { cert_file = "cert.pem", key_file = "key.pem" }
upstream = "registry"
[site.auth]
htpasswd_file = "htpasswd"
"#;

    #[test]
    fn a_good_config_has_every_default() {
        let folder = folder();
        let config = read_in(folder.path(), GOOD).unwrap();
        assert_eq!(config.warnings(), [""; 0]);
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.drain_timeout, Duration::from_secs(300));
        assert_eq!(config.tls.min_version, TlsVersion::Tls12);
        assert!(config.tls.ciphers.is_none() && config.tls.ticket_keys.is_none());
        let [site] = &config.sites[..] else { panic!() };
        assert!(site.upstream.registry);
        assert_eq!(site.max_body_size, None);
        assert_eq!(&*site.auth.as_ref().unwrap().realm, "Registry");
    }

    const BAD: &str = r#"
workers = 0
trusted_proxies = ["10.0.0.0/8", "::1", "here"]
[[listener]]
address = "443"
[[listener]]
address = "127.0.0.1:1"
[[listener]]
address = "127.0.0.1:1"
[[upstream]]
name = "registry"
peers = []
[[upstream]]
peers = ["grafana:3000", "unix:x.sock"]
connect_timeout = "10ms"
[[site]]
hosts = ["a.test", "a:1"]
certificate = { cert_file = "cert.pem", key_file = "other.pem" }
upstream = "grafna"
[site.auth]
htpasswd_file = "des"
[[site]]
hosts = ["a.test"]
certificate = "acme"
upstream = "registry"
[site.auth]
realm = "x"
[[site]]
hosts = ["c.test"]
certificate = { cert_file = "none.pem" }
[tls]
min_version = "1.1"
ciphers = "ROT13"
[limits]
max_headers = 1000
max_uri_size = "1GiB"
keepalive_timeout = "0s"
"#;

    #[test]
    fn every_problem_is_told_at_once_with_its_key() {
        let folder = folder();
        let other = self_signed::generate(&["b.test".to_owned()], &[]).unwrap();
        fs::write(folder.path().join("other.pem"), other.key_pem).unwrap();
        fs::write(folder.path().join("des"), "a:nC3WAwp5D6PMs\nb\n").unwrap();
        let problems = read_in(folder.path(), BAD).unwrap_err();
        let expected = [
            "2: workers: invalid value: integer `0`, expected a nonzero usize",
            "3: trusted_proxies[2]: \"here\": is no address and no network such as \"10.0.0.0/8\"",
            "5: listener[0].address: \"443\": is no address with a port, such as \"0.0.0.0:443\" or \"[::]:443\"",
            "9: listener[2].address: 127.0.0.1:1: another listener has it already",
            "11: upstream[0].name: is the name of the registry that [registry] describes",
            "13: upstream[1].name: is missing",
            "14: upstream[1].peers[0]: \"grafana:3000\": must be an address and a port, such as \"127.0.0.1:3000\", or \"unix:/run/x.sock\"",
            "14: upstream[1].peers[1]: \"unix:x.sock\": the path of a Unix socket must be absolute and 107 bytes at most",
            "15: upstream[1].connect_timeout: must be one second at least",
            "17: site[0].hosts[1]: \"a:1\": must be without a port: sites are found by name alone",
            "18: site[0].certificate.key_file: other.pem: is not the key of the certificate cert.pem",
            "19: site[0].upstream: unknown upstream \"grafna\"",
            "21: site[0].auth.htpasswd_file: des: line 1: the hash is in no supported format",
            "21: site[0].auth.htpasswd_file: des: line 2: is not of the form user:hash",
            "23: site[1].hosts: \"a.test\" is a host of site[0] already",
            "24: site[1].certificate: \"acme\" needs the table [acme]",
            "26: site[1].auth.htpasswd_file: is missing",
            "30: site[2].certificate.key_file: is missing",
            "28: site[2].upstream: is missing",
            "32: tls.min_version: must be \"1.2\" or \"1.3\"",
            "33: tls.ciphers: OpenSSL knows none of these ciphers",
            "35: limits.max_headers: must be between 1 and 256",
            "36: limits.max_uri_size: must be between 1 byte and 64 KiB",
            "37: limits.keepalive_timeout: must be one second at least",
        ];
        for line in expected {
            let (at, message) = line.split_once(": ").unwrap();
            let told = problems.lines().any(|problem| {
                problem
                    .split_once(": ")
                    .is_some_and(|(_, told)| told.starts_with(message))
            });
            assert!(told, "{at}: {message}\n--- is not among\n{problems}");
        }
        assert!(problems.lines().count() <= expected.len() + 2, "{problems}");
    }

    #[test]
    fn no_duration_is_longer_than_can_be_counted() {
        let folder = folder();
        let text = format!(
            "drain_timeout = \"100000y\"\n{GOOD}\nremember_for = \"100000y\"\n\
             [limits]\nwrite_timeout = \"25days\"\nheader_timeout = \"24days\"\n"
        );
        let problems = read_in(folder.path(), &text).unwrap_err();
        for told in [
            "drain_timeout: must be 24 days at most",
            "site[0].auth.remember_for: must be 24 hours at most",
            "limits.write_timeout: must be 24 days at most",
        ] {
            assert!(problems.contains(told), "{told}\n--- not in\n{problems}");
        }
        assert_eq!(problems.lines().count(), 3, "{problems}");
    }

    #[test]
    fn how_much_is_too_much_is_checked() {
        let folder = folder();
        let limits = "[site.limits]\naddress = { rate = 5, burst = 9 }\n\
                      site = { concurrent = 7 }\nprincipal = { rate = 3 }\n\
                      [limits]\nmin_body_rate = 0\nlogins = { per_user = 0, forget_after = \"1h\" }\n";
        let config = read_in(folder.path(), &format!("{GOOD}{limits}")).unwrap();
        let quotas = &config.sites[0].quotas;
        assert_eq!(&*quotas.key, "site[0].limits");
        let quota = |rate, burst, concurrent| Quota {
            rate: NonZero::new(rate),
            burst,
            concurrent: NonZero::new(concurrent),
        };
        assert_eq!(quotas.site, quota(0, 1, 7));
        assert_eq!(quotas.address, quota(5, 9, 0));
        assert_eq!(quotas.principal, quota(3, 3, 0));
        assert_eq!(config.limits.min_body_rate, 0);
        let logins = config.limits.logins;
        assert_eq!((logins.per_address, logins.per_user), (20, 0));

        let limits = "[site.limits]\naddress = { burst = 9 }\nsite = { rate = 1, burst = 0 }\n\
                      [limits]\nhttp2_max_streams = 0\nlogins = { forget_after = \"2d\" }\n";
        let problems = read_in(folder.path(), &format!("{GOOD}{limits}")).unwrap_err();
        for told in [
            "site[0].limits.address.burst: needs a rate",
            "site[0].limits.site.burst: must be 1 at least",
            "limits.http2_max_streams: must be between 1 and 10000",
            "limits.logins.forget_after: must be between 1s and 24h",
        ] {
            assert!(problems.contains(told), "{told}\n--- not in\n{problems}");
        }
    }

    #[test]
    fn without_tls_or_without_a_site_nothing_would_be_served() {
        let folder = folder();
        let plain = GOOD.replace("tls = true", "");
        let problems = read_in(folder.path(), &plain).unwrap_err();
        assert!(
            problems.contains("listener: there is none with tls = true"),
            "{problems}"
        );
        let (listener, _) = GOOD.split_once("[[site]]").unwrap();
        let problems = read_in(folder.path(), listener).unwrap_err();
        assert!(problems.contains("site: there is none"), "{problems}");
    }

    #[test]
    fn what_is_allowed_and_unwise_is_a_warning() {
        let folder = folder();
        let text = GOOD
            .replace("[\"a.test\"]", "[\"a.test\", \"*.b.test\"]")
            .replace("[site.auth]\nhtpasswd_file = \"htpasswd\"", "");
        let config = read_in(folder.path(), &text).unwrap();
        let [host, open] = config.warnings() else {
            panic!("{:?}", config.warnings())
        };
        assert!(
            host.ends_with("is not made for *.b.test, clients will refuse it"),
            "{host}"
        );
        assert!(
            open.contains("site[0]: has no [site.auth] and no rule"),
            "{open}"
        );
    }

    #[test]
    fn to_believe_everybody_is_a_warning() {
        let folder = folder();
        for (proxies, warned) in [
            ("\"10.0.0.0/8\", \"::1\"", false),
            ("\"10.0.0.0/8\", \"0.0.0.0/0\"", true),
            ("\"::/0\"", true),
        ] {
            let text = format!("trusted_proxies = [{proxies}]\n{GOOD}");
            let config = read_in(folder.path(), &text).unwrap();
            let mut warnings = config.warnings().iter();
            let told = warnings.any(|warning| warning.starts_with("trusted_proxies: "));
            assert_eq!(told, warned, "{proxies}");
        }
    }

    #[test]
    fn keys_alone_are_checked_without_a_look_at_any_file() {
        let text = GOOD
            .replace("cert.pem", "none.pem")
            .replace("\"htpasswd\"", "\"none\"");
        let registry = RegistryPeer {
            name: "registry".to_owned(),
            socket: "/run/registry.sock".into(),
        };
        let read = |text: &str| {
            let mut document = Document::parse(Path::new("/none/edge.toml"), text).unwrap();
            let config = Config::read_keys(&mut document.root(), std::slice::from_ref(&registry));
            (config, document.finish())
        };
        let (config, finished) = read(&text);
        finished.unwrap();
        assert!(config.unwrap().sites.is_empty());
        let (config, finished) = read(&text.replace("upstream =", "upstrem ="));
        assert!(config.is_none());
        assert!(
            finished
                .unwrap_err()
                .to_string()
                .contains("site[0].upstrem")
        );
    }
}
