//! The examples of `docs/monitoring/`: what Prometheus itself says of them, and of the page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Setup, image, need, push_image, run};
use crate::metrics::door;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/monitoring")
        .join(name)
}

#[test]
fn prometheus_takes_the_rules_and_the_scrape_config_and_alerts_fire() {
    need!("promtool");
    run(Command::new("promtool")
        .args(["check", "rules"])
        .arg(example("rules.yml")));
    run(Command::new("promtool")
        .args(["check", "config"])
        .arg(example("prometheus.yml")));
    run(Command::new("promtool")
        .args(["test", "rules"])
        .arg(example("rules_test.yml")));
}

/// The page of a Tidegate that was used, in the older text.
fn page() -> String {
    let (door, table) = door("");
    let rig = Setup {
        tables: format!("{table}[[upstream]]\nname = \"other\"\npeers = [\"127.0.0.1:1\"]\n"),
        ..Setup::default()
    }
    .start();
    push_image(&rig.client(), "app", "v1", &image(72, &[1000]));
    rig.anonymous()
        .as_user("docker", "guess")
        .get("/v2/")
        .expect(401);
    let asked = door
        .request("GET", "/metrics")
        .header("Accept", "text/plain;version=0.0.4");
    let reply = asked.send().expect(200);
    let kind = reply.header("Content-Type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    reply.text()
}

#[test]
fn prometheus_finds_nothing_to_blame_on_the_page_and_examples_name_what_is_on_it() {
    need!("promtool");
    let folder = tempfile::tempdir().unwrap();
    let text = page();
    let file = folder.path().join("page");
    fs::write(&file, &text).unwrap();
    let checked = format!("promtool check metrics < {}", file.display());
    run(Command::new("sh").args(["-c", &checked]));

    let mut families = BTreeSet::new();
    for line in text.lines() {
        let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|it| it.split_once(' '))
        else {
            continue;
        };
        families.insert(name.to_owned());
        if kind == "histogram" {
            families.extend(["_bucket", "_count", "_sum"].map(|suffix| format!("{name}{suffix}")));
        }
    }
    let dashboard: Value =
        serde_json::from_slice(&fs::read(example("dashboard.json")).unwrap()).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 10, "{queries:?}");
    queries.push(fs::read_to_string(example("rules.yml")).unwrap());
    let named: BTreeSet<String> = queries.iter().flat_map(|query| names(query)).collect();
    assert!(named.len() > 15, "{named:?}");
    let unknown: Vec<_> = named.difference(&families).collect();
    assert!(
        unknown.is_empty(),
        "{unknown:?} are not on the page:\n{text}"
    );
}

/// The queries of a dashboard, wherever they are in it.
fn collect(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "expr" || key == "query" => {
                        queries.push(text.clone());
                    }
                    other => collect(other, queries),
                }
            }
        }
        _ => {}
    }
}

/// The words of a text that are names of metrics of Tidegate's.
fn names(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let own = |word: &&str| {
        let families = ["edge_", "process_", "registry_", "tidegate_"];
        families.iter().any(|family| word.starts_with(family))
    };
    words.filter(own).map(str::to_owned)
}
