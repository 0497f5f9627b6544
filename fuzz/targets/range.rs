//! A range that is granted lies within the content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::range::{ByteRanges, UploadRange};

fuzz_target!(|input: (u64, &str)| {
    let (size_bytes, header) = input;
    if let Some(ranges) = ByteRanges::parse(header)
        && let Ok(ranges) = ranges.resolve(size_bytes)
    {
        assert!(!ranges.is_empty());
        for range in ranges {
            assert!(range.first <= range.last && range.last < size_bytes);
            assert!(range.size_bytes() >= 1);
        }
    }
    if let Ok(range) = header.parse::<UploadRange>() {
        assert!(range.size_bytes() >= 1);
    }
});
