//! What it takes to hash what arrives.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oci::Algorithm;
use registry_backend::digest_of;

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("hashing");
    for (name, algorithm) in [("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512)] {
        for kib in [1, 64, 1024] {
            let bytes = vec![7; kib << 10];
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function(format!("{name}, {kib} KiB"), |b| {
                b.iter(|| digest_of(algorithm, black_box(&bytes)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, hashing);
criterion_main!(benches);
