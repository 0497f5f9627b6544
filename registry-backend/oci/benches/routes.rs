//! What it takes to read a path, and to find the rule that it is about.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot start may end")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use oci::{RepositoryName, RepositoryPattern, Route};

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    let paths = [
        ("version", "/v2/".to_owned()),
        (
            "manifest by tag",
            "/v2/team/app/manifests/latest".to_owned(),
        ),
        (
            "manifest by digest",
            format!("/v2/team/app/manifests/{DIGEST}"),
        ),
        ("blob", format!("/v2/team/sub/group/app/blobs/{DIGEST}")),
        (
            "upload",
            "/v2/team/app/blobs/uploads/0e8f0cd5-7bd5-4f0c-9ab2-1f9a4d6a8c31".to_owned(),
        ),
        ("tags", "/v2/team/app/tags/list".to_owned()),
        ("nothing", "/v2/team/app/nothing/here".to_owned()),
    ];
    for (name, path) in &paths {
        group.bench_function(*name, |b| b.iter(|| Route::parse(black_box(path))));
    }
    group.finish();
}

fn patterns(c: &mut Criterion) {
    let mut group = c.benchmark_group("pattern");
    let repository: RepositoryName = "team/sub/group/app".parse().unwrap();
    for pattern in [
        "team/sub/group/app",
        "team/*/group/app-*",
        "team/**",
        "**/app",
    ] {
        let pattern: RepositoryPattern = pattern.parse().unwrap();
        group.bench_function(pattern.to_string(), |b| {
            b.iter(|| pattern.matches(black_box(&repository), None));
        });
    }
    group.finish();
}

criterion_group!(benches, routes, patterns);
criterion_main!(benches);
