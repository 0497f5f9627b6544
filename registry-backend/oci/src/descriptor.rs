//! `{mediaType, digest, size}`: how manifests point at content.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Digest;
use crate::keys::{self, Distinct};

/// Free-form notes on a manifest or descriptor.
pub type Annotations = BTreeMap<String, String>;

/// A pointer at content (image-spec, "Descriptors"), without the fields that a registry ignores.
///
/// One is read only where its keys are the same to every decoder, those that are ignored included.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// What the content is called.
    pub digest: Digest,
    /// How many bytes the content has.
    pub size: u64,
    /// Of a manifest that is an artifact: what kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Notes on the content.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: Annotations,
}

impl<'de> Distinct<'de> for Descriptor {
    const KEYS: &'static [&'static str] = &[
        "mediaType",
        "digest",
        "size",
        "urls",
        "annotations",
        "data",
        "artifactType",
        "platform",
    ];

    fn fields<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        keys::distinct(deserializer)
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The derived function, not this one: it belongs to the type and so comes first.
        Self::serialize(self, serializer)
    }
}

/// Reads `null` as the default: Go's encoders write it for an empty list or map.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
