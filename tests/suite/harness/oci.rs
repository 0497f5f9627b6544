//! Blobs, manifests and images, and pushing them by hand.

use openssl::hash::{MessageDigest, hash};
use serde_json::{Value, json};

use super::{Client, Exchange, Response};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Returns `length` bytes that do not compress and are the same for the same `seed`.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The sha256 digest of `bytes`, as the spec writes it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    digest_with(MessageDigest::sha256(), "sha256", bytes)
}

pub(crate) fn digest512(bytes: &[u8]) -> String {
    digest_with(MessageDigest::sha512(), "sha512", bytes)
}

fn digest_with(algorithm: MessageDigest, name: &str, bytes: &[u8]) -> String {
    let sum = hash(algorithm, bytes).expect("hash");
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}:{hex}")
}

/// Pushes a blob the usual way, POST then PUT, and returns its digest.
pub(crate) fn push_blob(client: &Client, repository: &str, bytes: &[u8]) -> String {
    let digest = digest(bytes);
    let session = client
        .post(&format!("/v2/{repository}/blobs/uploads/"))
        .expect(202);
    let location = with_query(&session.location(), &format!("digest={digest}"));
    client
        .request("PUT", &location)
        .body(bytes)
        .send()
        .expect(201);
    digest
}

/// Appends a parameter to an upload's location, which may have some already.
pub(crate) fn with_query(location: &str, parameter: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}{parameter}")
}

pub(crate) fn push_manifest(
    client: &Client,
    repository: &str,
    reference: &str,
    media_type: &str,
    manifest: &[u8],
) -> Response {
    client
        .request("PUT", &format!("/v2/{repository}/manifests/{reference}"))
        .header("Content-Type", media_type)
        .body(manifest)
        .send()
}

/// A small image: its parts and the manifest that names them.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
}

impl Image {
    pub(crate) fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// The manifest as a descriptor, with more of its fields.
    pub(crate) fn descriptor(&self, more: &Value) -> Value {
        let mut descriptor = json!({
            "mediaType": MANIFEST, "digest": self.digest(), "size": self.manifest.len(),
        });
        merge(&mut descriptor, more);
        descriptor
    }
}

/// Makes an image of layers of these sizes; `seed` makes it unlike any other.
pub(crate) fn image(seed: u64, layer_sizes: &[usize]) -> Image {
    image_with(seed, layer_sizes, &json!({}))
}

/// [`image`], with more fields in its manifest.
pub(crate) fn image_with(seed: u64, layer_sizes: &[usize], more: &Value) -> Image {
    let layers: Vec<Vec<u8>> = (1_u64..)
        .zip(layer_sizes)
        .map(|(number, &size)| noise(seed * 1000 + number, size))
        .collect();
    let digests: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "author": format!("seed {seed}"),
        "rootfs": { "type": "layers", "diff_ids": digests },
    })
    .to_string()
    .into_bytes();
    let layer_list: Vec<Value> = layers
        .iter()
        .map(|layer| descriptor(LAYER, layer))
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config), "layers": layer_list,
    });
    merge(&mut manifest, more);
    Image {
        config,
        layers,
        manifest: manifest.to_string().into_bytes(),
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

fn merge(into: &mut Value, more: &Value) {
    if let (Some(into), Some(more)) = (into.as_object_mut(), more.as_object()) {
        into.extend(more.clone());
    }
}

/// An index of these images, each for an architecture of its own.
pub(crate) fn index_of(images: &[&Image]) -> Vec<u8> {
    let architectures = ["amd64", "arm64", "riscv64", "s390x"];
    let manifests: Vec<Value> = images
        .iter()
        .zip(architectures)
        .map(|(image, architecture)| {
            image.descriptor(&json!({
                "platform": { "architecture": architecture, "os": "linux" }
            }))
        })
        .collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
        .to_string()
        .into_bytes()
}

/// Pushes all parts of an image and its manifest under `reference`; returns the manifest's digest.
pub(crate) fn push_image(
    client: &Client,
    repository: &str,
    reference: &str,
    image: &Image,
) -> String {
    for blob in image.layers.iter().chain([&image.config]) {
        push_blob(client, repository, blob);
    }
    push_manifest(client, repository, reference, MANIFEST, &image.manifest).expect(201);
    image.digest()
}

/// A push of a blob in one PUT, of which half is sent.
pub(crate) fn half_a_push(client: &Client, bytes: &[u8]) -> Exchange {
    let location = client
        .post("/v2/slow/blobs/uploads/")
        .expect(202)
        .location();
    let location = with_query(&location, &format!("digest={}", digest(bytes)));
    let mut push = client
        .request("PUT", &location)
        .header("Content-Length", &bytes.len().to_string())
        .open()
        .unwrap();
    push.write(&bytes[..bytes.len() / 2]).unwrap();
    push
}
