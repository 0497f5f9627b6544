//! A whole config, read: what is good, and every problem of what is not.

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
        "2: workers: must be a whole number, 1 at least",
        "3: trusted_proxies[2]: \"here\": is not a valid address or network, such as \"10.0.0.0/8\"",
        "5: listener[0].address: \"443\": is not a valid address with a port, such as \"0.0.0.0:443\" or \"[::]:443\"",
        "9: listener[2].address: 127.0.0.1:1: another listener has it already",
        "11: upstream[0].name: is the name of the registry that [registry] describes",
        "13: upstream[1].name: is missing",
        "14: upstream[1].peers[0]: \"grafana:3000\": must be an address and a port, such as \"127.0.0.1:3000\", or \"unix:/run/x.sock\"",
        "14: upstream[1].peers[1]: \"unix:x.sock\": the path of a Unix socket must be absolute and 107 bytes at most",
        "15: upstream[1].connect_timeout: must be one second at least",
        "17: site[0].hosts[1]: \"a:1\": must be without a port: sites are found by name alone",
        "18: site[0].certificate.key_file: other.pem: is not the key of the certificate cert.pem",
        "19: site[0].upstream: unknown upstream \"grafna\"",
        "23: site[1].hosts: \"a.test\" is a host of site[0] already",
        "24: site[1].certificate: \"acme\" needs the table [acme]",
        "26: site[1].auth.htpasswd_file: is missing",
        "30: site[2].certificate.key_file: is missing",
        "28: site[2].upstream: is missing",
        "32: tls.min_version: \"1.1\": must be \"1.2\" or \"1.3\"",
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

#[test]
fn methods_are_for_other_upstreams_and_each_is_a_new_one() {
    let folder = folder();
    let other = "[[upstream]]\nname = \"web\"\npeers = [\"127.0.0.1:80\"]\n";
    let written = |upstream: &str, methods: &str| {
        let site = format!("upstream = \"{upstream}\"\nallow_methods = [{methods}]");
        let text = GOOD.replace("upstream = \"registry\"", &site);
        let config = read_in(folder.path(), &format!("{text}{other}"))?;
        let [site] = &config.sites[..] else { panic!() };
        Ok(site.methods.iter().map(ToString::to_string).collect())
    };
    let good: Result<Vec<String>, String> = written("web", "'PROPFIND', 'TRACE'");
    assert_eq!(good.unwrap(), ["PROPFIND", "TRACE"]);
    for (upstream, methods, problem) in [
        ("registry", "'PROPFIND'", "is for other upstreams"),
        ("web", "'CONNECT'", "\"CONNECT\" is never passed on"),
        ("web", "'PUT'", "\"PUT\" is passed on everywhere"),
        ("web", "'propfind'", "methods are in capital letters"),
        ("web", "'LOCK', 'LOCK'", "\"LOCK\" is there twice"),
        ("web", "'A B'", "invalid HTTP method"),
    ] {
        let error = written(upstream, methods).unwrap_err();
        assert!(error.contains("allow_methods"), "{methods}: {error}");
        assert!(error.contains(problem), "{methods}: {error}");
    }
}
