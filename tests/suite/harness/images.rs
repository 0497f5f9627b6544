//! Images as the real clients want them: tar layers, in an OCI layout on disk.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use openssl::sha::Sha256;
use serde_json::{Value, json};

use super::oci::{MANIFEST, descriptor};
use super::{digest, noise};

const PIECE: usize = 1 << 20;

/// Writes a tar of one file, `name`, of `size` bytes that do not compress.
pub(crate) fn tar_of(path: &Path, name: &str, seed: u64, size: u64) {
    let mut tar = BufWriter::with_capacity(PIECE, File::create(path).expect("create a tar"));
    tar.write_all(&tar_header(name, size)).expect("write a tar");
    let mut left = usize::try_from(size).expect("a size");
    let mut number = 0;
    while left > 0 {
        let piece = noise(seed * 1_000_003 + number, left.min(PIECE));
        tar.write_all(&piece).expect("write a tar");
        left -= piece.len();
        number += 1;
    }
    let padding = (512 - usize::try_from(size % 512).expect("small")) % 512;
    tar.write_all(&vec![0; padding + 1024])
        .expect("write a tar");
    tar.flush().expect("write a tar");
}

/// The header of a regular file in the ustar format.
fn tar_header(name: &str, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |offset: usize, text: &str| {
        header[offset..offset + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "14000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Writes an OCI layout with one image of tar layers of these sizes, tagged `latest`; returns the
/// manifest's digest.
pub(crate) fn layout_with_layers(folder: &Path, seed: u64, layer_sizes: &[u64]) -> String {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("create a layout");
    let mut layers = Vec::new();
    for (number, &size) in (1_u64..).zip(layer_sizes) {
        let tar = folder.join("layer.tar");
        tar_of(&tar, &format!("file-{number}"), seed * 100 + number, size);
        layers.push(adopt(&blobs, &tar));
    }
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "author": format!("seed {seed}"),
        "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
    });
    let manifest = manifest.to_string().into_bytes();
    for blob in [&config, &manifest] {
        fs::write(blobs.join(&digest(blob)[7..]), blob).expect("write a blob");
    }
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    fs::write(folder.join("index.json"), index).expect("write a layout");
    fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("write a layout");
    digest(&manifest)
}

/// Moves a file among the blobs of a layout and returns its descriptor.
fn adopt(blobs: &Path, file: &Path) -> Value {
    let mut sum = Sha256::new();
    let bytes = fs::read(file).expect("read a layer");
    sum.update(&bytes);
    let hex: String = sum
        .finish()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::rename(file, blobs.join(&hex)).expect("move a layer");
    json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": format!("sha256:{hex}"), "size": bytes.len(),
    })
}

/// The digests of all blobs of a layout, in order.
pub(crate) fn blobs_of(folder: &Path) -> Vec<String> {
    let mut digests: Vec<String> = fs::read_dir(folder.join("blobs/sha256"))
        .expect("read a layout")
        .flatten()
        .map(|entry| format!("sha256:{}", entry.file_name().to_string_lossy()))
        .collect();
    digests.sort();
    digests
}
