//! References, names and digests: what parses is what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{Digest, Reference, RepositoryName, UploadId};

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest.hex().len(), digest.algorithm().hex_len());
    }
    if let Ok(repository) = text.parse::<RepositoryName>() {
        assert_eq!(repository.as_str(), text);
    }
    if let Ok(id) = text.parse::<UploadId>() {
        assert_eq!(id.as_str(), text);
    }
});
