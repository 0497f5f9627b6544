//! Any text is a config or a list of problems.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use settings::Document;

fuzz_target!(|text: &str| {
    // Files that the text names are looked up: keep it from naming devices and other folders.
    if text.contains('/') || text.contains("..") {
        return;
    }
    match Document::parse(Path::new("/nonexistent/edge.toml"), text) {
        Ok(mut document) => {
            let config = proxy::Config::read(&mut document.root(), &[]);
            let problems = document.finish();
            assert!(config.is_some() || problems.is_err(), "no config and no reason");
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
});
