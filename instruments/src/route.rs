//! What a request is for, in as few words as a label can have values.

/// A class of paths. Which one a path is of says nothing about whether it is a valid one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RouteClass {
    /// `/v2/`
    Base,
    /// `/v2/<name>/blobs/<digest>`
    Blob,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/manifests/<reference>`
    Manifest,
    /// Whatever else: pages for tokens, other services, paths that name nothing.
    #[default]
    Other,
    /// `/v2/<name>/referrers/<digest>`
    Referrers,
    /// `/v2/<name>/tags/list`
    Tags,
    /// `/v2/<name>/blobs/uploads/…`
    Upload,
}

impl RouteClass {
    pub(crate) const ALL: [Self; 8] = [
        Self::Base,
        Self::Blob,
        Self::Catalog,
        Self::Manifest,
        Self::Other,
        Self::Referrers,
        Self::Tags,
        Self::Upload,
    ];

    /// Classifies a path of a registry by its last two segments, as it came: who encodes a letter that
    /// needs no encoding is counted among the others.
    pub fn of(path: &str) -> Self {
        let Some(rest) = path.strip_prefix("/v2/") else {
            return if path == "/v2" {
                Self::Base
            } else {
                Self::Other
            };
        };
        if rest.is_empty() {
            return Self::Base;
        }
        let mut segments = rest.rsplit('/');
        match (segments.next(), segments.next()) {
            (Some("_catalog"), None) => Self::Catalog,
            (Some("uploads"), Some("blobs")) | (_, Some("uploads")) => Self::Upload,
            (_, Some("blobs")) => Self::Blob,
            (_, Some("manifests")) => Self::Manifest,
            (_, Some("referrers")) => Self::Referrers,
            (Some("list"), Some("tags")) => Self::Tags,
            _ => Self::Other,
        }
    }

    /// Returns the value of the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Blob => "blob",
            Self::Catalog => "catalog",
            Self::Manifest => "manifest",
            Self::Other => "other",
            Self::Referrers => "referrers",
            Self::Tags => "tags",
            Self::Upload => "upload",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_classified_by_its_end() {
        for (path, class) in [
            ("/v2", "base"),
            ("/v2/", "base"),
            ("/v2/_catalog", "catalog"),
            ("/v2/a/_catalog", "other"),
            ("/v2/a/b/blobs/sha256:0", "blob"),
            ("/v2/a/blobs/uploads", "upload"),
            ("/v2/a/blobs/uploads/", "upload"),
            ("/v2/a/blobs/uploads/x", "upload"),
            ("/v2/a/manifests/latest", "manifest"),
            ("/v2/a/referrers/sha256:0", "referrers"),
            ("/v2/a/tags/list", "tags"),
            ("/v2/a/tags/lists", "other"),
            ("/v2/blobs", "other"),
            ("/auth/token", "other"),
            ("/", "other"),
            ("", "other"),
        ] {
            assert_eq!(RouteClass::of(path).name(), class, "{path}");
        }
        let all = RouteClass::ALL;
        let ordered = all.iter().enumerate();
        assert!(ordered.clone().all(|(at, class)| *class as usize == at));
    }
}
