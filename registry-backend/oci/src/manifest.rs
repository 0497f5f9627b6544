//! What a manifest says, read from its bytes without changing one of them.

use serde::{Deserialize, Deserializer};

use crate::descriptor::{Annotations, Descriptor, or_default};
use crate::keys::{self, Distinct};
use crate::{Digest, media_type};

/// A parsed manifest or index: what a registry must know of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// The media type to serve it with.
    pub media_type: String,
    /// What it points at.
    pub content: Content,
    /// The manifest that this one is about.
    pub subject: Option<Descriptor>,
    /// Its own `artifactType`, where it has one.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: Annotations,
}

/// What a manifest points at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// An image or artifact: blobs.
    Image {
        /// The configuration.
        config: Descriptor,
        /// The layers, lowest first.
        layers: Vec<Descriptor>,
    },
    /// An index: other manifests.
    Index {
        /// The manifests it lists.
        manifests: Vec<Descriptor>,
    },
}

impl Manifest {
    /// Reads a manifest that is pushed, and was sent with the `Content-Type` in `declared`. What was
    /// stored before is read by [`Stored`](crate::Stored), which asks less of it.
    ///
    /// # Errors
    /// [`ManifestError`] when it is no JSON, of an unknown type, or says two things at once.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Self, ManifestError> {
        let written: Written = serde_json::from_slice(bytes)?;
        let media_type = written.media_type(declared.map(media_type::essence))?;
        if !media_type::is_pushable(&media_type) {
            return Err(ManifestError::Unsupported { media_type });
        }
        if written.schema_version != Some(2) {
            return Err(ManifestError::SchemaVersion);
        }
        let content = match media_type.as_str() {
            media_type::OCI_INDEX | media_type::DOCKER_LIST => {
                if written.config.is_some() || written.layers.is_some() {
                    return Err(ManifestError::Ambiguous);
                }
                Content::Index {
                    manifests: written
                        .manifests
                        .ok_or(ManifestError::Missing("manifests"))?,
                }
            }
            _ => {
                // One document must not be an image to one client and an index to another
                // (CVE-2021-41190).
                if written.manifests.is_some() {
                    return Err(ManifestError::Ambiguous);
                }
                Content::Image {
                    config: written.config.ok_or(ManifestError::Missing("config"))?,
                    layers: written.layers.ok_or(ManifestError::Missing("layers"))?,
                }
            }
        };
        Ok(Self {
            media_type,
            content,
            subject: written.subject,
            artifact_type: written.artifact_type.filter(|kind| !kind.is_empty()),
            annotations: written.annotations,
        })
    }

    /// Describes this manifest as an entry of its subject's referrers (spec, "Listing Referrers"):
    /// annotations are pulled up, and without an artifact type the config's media type serves.
    pub fn as_referrer(&self, digest: Digest, size: u64) -> Descriptor {
        let artifact_type = match (&self.artifact_type, &self.content) {
            (Some(kind), _) => Some(kind.clone()),
            (None, Content::Image { config, .. }) => Some(config.media_type.clone()),
            (None, Content::Index { .. }) => None,
        };
        Descriptor {
            media_type: self.media_type.clone(),
            digest,
            size,
            artifact_type,
            annotations: self.annotations.clone(),
        }
    }
}

/// The JSON as written; unknown fields are the client's own and stay in the bytes.
#[derive(Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
struct Written {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "some_or_empty")]
    layers: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "some_or_empty")]
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: Annotations,
}

impl<'de> Distinct<'de> for Written {
    const KEYS: &'static [&'static str] = &[
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "subject",
        "annotations",
    ];

    fn fields<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        keys::distinct(deserializer)
    }
}

/// Tells `null`, which Go writes for an empty list, from a field that is not there at all.
fn some_or_empty<'de, D>(deserializer: D) -> Result<Option<Vec<Descriptor>>, D::Error>
where
    D: Deserializer<'de>,
{
    or_default(deserializer).map(Some)
}

impl Written {
    fn media_type(&self, declared: Option<String>) -> Result<String, ManifestError> {
        if self.schema_version == Some(1) {
            return Err(ManifestError::Schema1);
        }
        let written = self
            .media_type
            .clone()
            .filter(|written| !written.is_empty());
        let declared = declared.filter(|declared| declared != "application/json");
        match (written, declared) {
            (Some(written), Some(declared)) if written != declared => {
                Err(ManifestError::MediaTypeMismatch { written, declared })
            }
            (None, Some(declared))
                if matches!(
                    declared.as_str(),
                    media_type::DOCKER_MANIFEST | media_type::DOCKER_LIST
                ) =>
            {
                Err(ManifestError::MediaTypeUnwritten { declared })
            }
            (Some(media_type), _) | (None, Some(media_type)) => match media_type.as_str() {
                media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED => {
                    Err(ManifestError::Schema1)
                }
                _ => Ok(media_type),
            },
            (None, None) if self.manifests.is_some() => Ok(media_type::OCI_INDEX.to_owned()),
            (None, None) => Ok(media_type::OCI_MANIFEST.to_owned()),
        }
    }
}

/// Why bytes are no manifest that this registry stores.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It has the fields of both an image and an index.
    #[error("manifest has the fields of both an image and an index")]
    Ambiguous,
    /// It is no JSON, or a field has the wrong shape.
    #[error("manifest is not valid JSON of its type: {0}")]
    Json(#[from] serde_json::Error),
    /// Its `mediaType` is not the `Content-Type` it was sent with.
    #[error("manifest says mediaType {written:?} and was sent as {declared:?}")]
    MediaTypeMismatch {
        /// The `mediaType` in the document.
        written: String,
        /// The `Content-Type` of the request.
        declared: String,
    },
    /// It was sent as a type that must be written in it: without, it would be read back as another.
    #[error("manifest says no mediaType and was sent as {declared:?}")]
    MediaTypeUnwritten {
        /// The `Content-Type` of the request.
        declared: String,
    },
    /// A field that its type demands is not there.
    #[error("manifest has no {0:?}")]
    Missing(&'static str),
    /// It is of Docker's schema 1, which every client has given up since 2017.
    #[error("manifest is of docker's schema 1, which can be pulled from here but not pushed")]
    Schema1,
    /// Its `schemaVersion` is not 2.
    #[error("manifest must have schemaVersion 2")]
    SchemaVersion,
    /// Its media type is not one of a manifest, or of one that is pushed no more.
    #[error(
        "media type {media_type:?} is not one of a manifest that can be pushed: \
         OCI's image manifest or index, or docker's manifest or list of version 2"
    )]
    Unsupported {
        /// The media type in question.
        media_type: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.x","digest":"{EMPTY}","size":2}},"layers":[]{extra}}}"#
        )
    }

    #[test]
    fn the_type_is_derived_where_it_is_not_written() {
        let manifest = Manifest::parse(image("").as_bytes(), None).unwrap();
        assert_eq!(manifest.media_type, media_type::OCI_MANIFEST);
        let index = Manifest::parse(br#"{"schemaVersion":2,"manifests":null}"#, None).unwrap();
        assert_eq!(index.media_type, media_type::OCI_INDEX);
        let declared = Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8");
        let manifest = Manifest::parse(image("").as_bytes(), declared).unwrap();
        assert_eq!(manifest.media_type, media_type::OCI_MANIFEST);
    }

    #[test]
    fn a_type_that_would_be_lost_is_refused() {
        for (body, declared) in [
            (image(""), media_type::DOCKER_MANIFEST),
            (
                r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(),
                media_type::DOCKER_LIST,
            ),
        ] {
            let error = Manifest::parse(body.as_bytes(), Some(declared)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("manifest says no mediaType and was sent as {declared:?}")
            );
        }
    }

    #[test]
    fn a_manifest_that_says_two_things_is_refused() {
        let both = image(r#","manifests":[]"#);
        assert!(matches!(
            Manifest::parse(both.as_bytes(), Some(media_type::OCI_MANIFEST)),
            Err(ManifestError::Ambiguous)
        ));
        let index = image(&format!(r#","mediaType":"{}""#, media_type::OCI_INDEX));
        assert!(matches!(
            Manifest::parse(index.as_bytes(), Some(media_type::OCI_MANIFEST)),
            Err(ManifestError::MediaTypeMismatch { .. })
        ));
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_its_reason() {
        let bad_digest = image("").replace(EMPTY, "sha256:bad");
        for (body, expected) in [
            ("", "manifest is not valid JSON"),
            ("[]", "manifest is not valid JSON"),
            (r#"{"schemaVersion":1}"#, "manifest is of docker's schema 1"),
            (r#"{"schemaVersion":2}"#, "manifest has no \"config\""),
            (r#"{"manifests":[]}"#, "manifest must have schemaVersion 2"),
            (
                bad_digest.as_str(),
                "manifest is not valid JSON of its type: digest",
            ),
            (
                r#"{"schemaVersion":2,"mediaType":"text/x"}"#,
                "media type \"text/x\"",
            ),
            (
                r#"{"mediaType":"application/vnd.oci.artifact.manifest.v1+json"}"#,
                "media type \"application/vnd.oci.artifact.manifest.v1+json\" is not one",
            ),
        ] {
            let error = Manifest::parse(body.as_bytes(), None)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(expected), "{body}: {error}");
        }
    }

    #[test]
    fn a_key_that_go_would_take_for_a_known_one_is_refused() {
        for (extra, key, known) in [
            (r#","MediaType":"x""#, "MediaType", "mediaType"),
            (r#","Manifests":[]"#, "Manifests", "manifests"),
            (r#","SUBJECT":null"#, "SUBJECT", "subject"),
            (
                ",\"\u{17f}chemaVersion\":1",
                "\u{17f}chemaVersion",
                "schemaVersion",
            ),
            (
                r#","\u017fchemaVersion":1"#,
                "\u{17f}chemaVersion",
                "schemaVersion",
            ),
            (r#","\u004dediaType":"x""#, "MediaType", "mediaType"),
        ] {
            let error = Manifest::parse(image(extra).as_bytes(), None).unwrap_err();
            let expected = format!("key {key:?} differs from {known:?} only in case");
            assert!(error.to_string().contains(&expected), "{extra}: {error}");
        }
        for key in Descriptor::KEYS {
            let miscased = key.to_uppercase();
            let text = image("").replacen("\"size\":2", &format!("\"size\":2,\"{miscased}\":0"), 1);
            let error = Manifest::parse(text.as_bytes(), None).unwrap_err();
            let expected = format!("key {miscased:?} differs from {key:?} only in case");
            assert!(error.to_string().contains(&expected), "{error}");
        }
        let kept = image(r#","Layer":[],"media-type":"x","urls":["u"],"Digest":"x""#);
        assert!(Manifest::parse(kept.as_bytes(), None).is_ok());
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        for (text, key) in [
            (image(r#","schemaVersion":2"#), "schemaVersion"),
            (image(r#","layers":[]"#), "layers"),
            (
                image("").replace("\"size\":2", "\"size\":2,\"size\":2"),
                "size",
            ),
            (
                image("").replace("\"size\":2", "\"urls\":[],\"urls\":[],\"size\":2"),
                "urls",
            ),
        ] {
            let error = Manifest::parse(text.as_bytes(), None).unwrap_err();
            let expected = format!("key {key:?} is there twice");
            assert!(error.to_string().contains(&expected), "{text}: {error}");
        }
        // What nobody reads may say what it likes.
        let other = image(r#","x":{"size":1,"Size":2},"y":1,"y":2"#);
        assert!(Manifest::parse(other.as_bytes(), None).is_ok());
    }

    #[test]
    fn a_descriptor_is_an_object_as_it_is_to_go() {
        let list = format!(r#"["application/vnd.x","{EMPTY}",2]"#);
        let text = format!(r#"{{"schemaVersion":2,"config":{list},"layers":[]}}"#);
        assert!(Manifest::parse(text.as_bytes(), None).is_err());
    }

    #[test]
    fn a_referrer_without_an_artifact_type_takes_its_configs() {
        let text = image(r#","annotations":{"a":"b"}"#);
        let manifest = Manifest::parse(text.as_bytes(), None).unwrap();
        let referrer = manifest.as_referrer(EMPTY.parse().unwrap(), 7);
        assert_eq!(referrer.artifact_type.as_deref(), Some("application/vnd.x"));
        assert_eq!(referrer.annotations.get("a").map(String::as_str), Some("b"));
        let text = image(r#","artifactType":"application/vnd.sbom""#);
        let manifest = Manifest::parse(text.as_bytes(), None).unwrap();
        let referrer = manifest.as_referrer(EMPTY.parse().unwrap(), 7);
        assert_eq!(
            referrer.artifact_type.as_deref(),
            Some("application/vnd.sbom")
        );
    }
}
