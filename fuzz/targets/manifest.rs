//! Any bytes are a manifest or an error, and what was read once is read the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::Manifest;

fuzz_target!(|input: (Option<&str>, &[u8])| {
    let (declared, bytes) = input;
    if let Ok(manifest) = Manifest::parse(bytes, declared) {
        let again = Manifest::parse(bytes, Some(&manifest.media_type));
        assert_eq!(again.ok(), Some(manifest));
    }
});
