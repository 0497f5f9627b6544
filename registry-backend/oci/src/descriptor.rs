//! `{mediaType, digest, size}`: how manifests point at content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Free-form notes on a manifest or descriptor.
pub type Annotations = BTreeMap<String, String>;

/// A pointer at content (image-spec, "Descriptors"), without the fields that a registry ignores.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
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

/// Reads `null` as the default: Go's encoders write it for an empty list or map.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
