//! A path under `/v2/` never panics, and what it names can be written and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{Query, Route};

fuzz_target!(|target: &str| {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let query = Query::parse(query);
    for name in ["digest", "from", "mount", "n", "last", "tag"] {
        let _ = query.all(name).count();
    }
    if let Ok(route) = Route::parse(path) {
        let Some(repository) = route.repository() else {
            return;
        };
        // Whatever the spelling, the name is one that the grammar lets into a path.
        assert!(repository.components().all(oci::repository::is_component));
        let canonical = match &route {
            Route::Base | Route::Catalog => return,
            Route::Blob { digest, .. } => format!("/v2/{repository}/blobs/{digest}"),
            Route::Manifest { reference, .. } => format!("/v2/{repository}/manifests/{reference}"),
            Route::Referrers { digest, .. } => format!("/v2/{repository}/referrers/{digest}"),
            Route::Tags { .. } => format!("/v2/{repository}/tags/list"),
            Route::Upload { id, .. } => format!("/v2/{repository}/blobs/uploads/{id}"),
            Route::Uploads { .. } => format!("/v2/{repository}/blobs/uploads/"),
        };
        assert_eq!(Route::parse(&canonical), Ok(route));
    }
});
