//! Any bytes are a manifest or an error, and what was read once is read the same again: as what it was
//! pushed, and as what lies in storage then.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{Manifest, Stored};

fuzz_target!(|input: (Option<&str>, &[u8])| {
    let (declared, bytes) = input;
    let stored = Stored::read(bytes);
    if let Ok(manifest) = Manifest::parse(bytes, declared) {
        let again = Manifest::parse(bytes, Some(&manifest.media_type));
        assert_eq!(again.as_ref().ok(), Some(&manifest));
        let stored = stored.expect("what can be pushed can be served");
        assert_eq!(stored.media_type, manifest.media_type);
        let subject = manifest.subject.map(|subject| subject.digest);
        assert_eq!(stored.subject, subject);
    }
});
