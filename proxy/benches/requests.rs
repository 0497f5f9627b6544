//! What it takes to find out who asks, and whether the rules let them.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot start may end")]

use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use proxy::explain::{Asker, Question};
use proxy::tls::self_signed;
use proxy::{Config, KnownPassword, RegistryPeer};
use settings::Document;

fn credentials(c: &mut Criterion) {
    let known = KnownPassword::new("bench", b"correct horse battery").unwrap();
    let headers = |value: &str| {
        let value = value.parse().unwrap();
        HeaderMap::from_iter([(http::header::AUTHORIZATION, value)])
    };
    let right = headers("Basic YmVuY2g6Y29ycmVjdCBob3JzZSBiYXR0ZXJ5");
    let wrong = headers("Basic YmVuY2g6d3JvbmcgaG9yc2UgYmF0dGVyeQ==");
    assert!(known.is_in(&right) && !known.is_in(&wrong));
    let mut group = c.benchmark_group("credentials");
    group.bench_function("known", |b| b.iter(|| known.is_in(black_box(&right))));
    group.bench_function("unknown", |b| b.iter(|| known.is_in(black_box(&wrong))));
    group.finish();
}

/// A site whose last rule lets everyone with a name do everything.
fn config(rules: usize) -> Config {
    let mut text = String::from(
        "[[listener]]\naddress = \"127.0.0.1:443\"\ntls = true\n\
         [[site]]\nhosts = [\"registry.test\"]\nupstream = \"registry\"\n\
         certificate = { cert_file = \"cert.pem\", key_file = \"key.pem\" }\n\
         [site.auth]\nhtpasswd_file = \"htpasswd\"\n\
         [site.access]\nallow_from = [\"10.0.0.0/8\", \"127.0.0.0/8\"]\n",
    );
    for number in 1..rules {
        text.push_str(&format!(
            "[[site.access.rule]]\nrepositories = [\"team{number}/*/app-*\", \"home/${{user}}/**\"]\n\
             who = [\"@group{number}\", \"user{number}\"]\nactions = [\"pull\"]\n"
        ));
    }
    text.push_str("[[site.access.rule]]\nwho = [\"authenticated\"]\nactions = [\"*\"]\n");
    let folder = tempfile::tempdir().unwrap();
    let pair = self_signed::generate(&["registry.test".to_owned()], &[]).unwrap();
    fs::write(folder.path().join("cert.pem"), pair.cert_pem).unwrap();
    fs::write(folder.path().join("key.pem"), pair.key_pem).unwrap();
    fs::write(
        folder.path().join("htpasswd"),
        "bench:{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=\n",
    )
    .unwrap();
    let mut document = Document::parse(&folder.path().join("edge.toml"), &text).unwrap();
    let registry = RegistryPeer {
        name: "registry".to_owned(),
        socket: "/run/registry.sock".into(),
    };
    let config = Config::read(&mut document.root(), &[registry]);
    document.finish().unwrap();
    config.unwrap()
}

fn rules(c: &mut Criterion) {
    let question = Question {
        host: Some("registry.test".to_owned()),
        asker: Asker::User("bench".to_owned()),
        from: IpAddr::V4(Ipv4Addr::LOCALHOST),
        action: "pull".to_owned(),
        repository: Some("team/sub/app".parse().unwrap()),
    };
    let mut group = c.benchmark_group("rules");
    for rules in [1, 10, 50] {
        let config = config(rules);
        assert!(config.explain(&question).unwrap().allowed);
        group.bench_function(rules.to_string(), |b| {
            b.iter(|| config.explain(black_box(&question)));
        });
    }
    group.finish();
}

criterion_group!(benches, credentials, rules);
criterion_main!(benches);
