//! The distribution-spec's own conformance tool, with everything it knows switched on.

use std::fs;
use std::process::Command;

use crate::harness::{PASSWORD, Setup, USER, need, try_run};

/// What the tool leaves off by itself for `OCI_VERSION=dev`, or may one day.
const SWITCHES: [&str; 31] = [
    "API_PING",
    "API_PULL",
    "API_PUSH",
    "API_REFERRER",
    "API_BLOBS_ATOMIC",
    "API_BLOBS_DELETE",
    "API_BLOBS_DIGEST_HEADER",
    "API_BLOBS_MOUNT_ANONYMOUS",
    "API_BLOBS_UPLOAD_CANCEL",
    "API_MANIFESTS_ATOMIC",
    "API_MANIFESTS_DELETE",
    "API_MANIFESTS_DIGEST_HEADER",
    "API_MANIFESTS_TAG_PARAM",
    "API_TAGS_ATOMIC",
    "API_TAGS_DELETE",
    "API_TAGS_LIST",
    "DATA_IMAGE",
    "DATA_INDEX",
    "DATA_INDEX_LIST",
    "DATA_SPARSE",
    "DATA_ARTIFACT",
    "DATA_SUBJECT",
    "DATA_SUBJECT_MISSING",
    "DATA_ARTIFACT_LIST",
    "DATA_SUBJECT_LIST",
    "DATA_DATA_FIELD",
    "DATA_NONDISTRIBUTABLE",
    "DATA_CUSTOM_FIELDS",
    "DATA_NO_LAYERS",
    "DATA_EMPTY_BLOB",
    "DATA_SHA512",
];

#[test]
fn the_conformance_tool_passes_through_the_edge() {
    need!("conformance");
    // The spec's option, which is off by default.
    let rig = Setup {
        registry: "sparse_images = true".to_owned(),
        ..Setup::default()
    }
    .start();
    let results = rig.path("results");
    fs::create_dir(&results).unwrap();
    let mut tool = Command::new("conformance");
    tool.current_dir(&results)
        .env("SSL_CERT_FILE", &rig.certificate.cert)
        .env("OCI_REGISTRY", rig.name())
        .env("OCI_TLS", "enabled")
        .env("OCI_VERSION", "dev")
        .env("OCI_USERNAME", USER)
        .env("OCI_PASSWORD", PASSWORD)
        .env("OCI_REPO1", "conformance/one")
        .env("OCI_REPO2", "conformance/two")
        .env("OCI_RESULTS_DIR", &results);
    for switch in SWITCHES {
        tool.env(format!("OCI_{switch}"), "true");
    }

    let output = try_run(&mut tool);

    // A config it cannot load makes the tool exit with 0 and no results.
    let report = fs::read_to_string(results.join("results.yaml"))
        .unwrap_or_else(|error| panic!("no results: {error}\n{output}"));
    assert!(output.success, "{output}");
    // What it calls skipped is what the registry answered that it does not do; the tool lets it pass.
    for bad in ["FAIL", "Error", "Skip", "Disabled"] {
        assert!(!report.contains(bad), "{report}");
    }
}
