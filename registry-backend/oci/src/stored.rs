//! What a manifest says that lies in storage, whoever put it there.
//!
//! [`Manifest::parse`](crate::Manifest::parse) decides what may be pushed. What `registry:2`, its forks
//! and their older versions have stored has been somebody's image all the same: Docker's schema 1, the
//! artifact manifests that OCI gave up, images without layers. All that has to be known to serve it is
//! its media type, and to list it, its subject; so nothing but those is looked at here, and a field of
//! the wrong shape is as good as none.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::descriptor::{Annotations, Descriptor};
use crate::{Digest, keys, media_type};

/// Longer than any media type may be (RFC 6838, section 4.2: 127 characters on either side).
const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// A manifest of any kind: what a registry must know to serve and list it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// The media type to serve it with, which can be put into a header.
    pub media_type: String,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// What kind of artifact it is: its own word, or else its config's media type.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: Annotations,
}

impl Stored {
    /// Reads any JSON object as a manifest, keys as Go does.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let written: Written = match serde_json::from_slice(bytes) {
            // Go puts U+FFFD in the place of what is no UTF-8.
            Err(_) if str::from_utf8(bytes).is_err() => {
                serde_json::from_str(&String::from_utf8_lossy(bytes))
            }
            read => read,
        }?;
        let media_type = written.media_type();
        let own = written.artifact_type.filter(|kind| !kind.is_empty());
        Ok(Self {
            media_type,
            subject: written.subject.digest.and_then(|text| text.parse().ok()),
            artifact_type: own.or(written.config.media_type),
            annotations: written.annotations,
        })
    }

    /// Describes this manifest as an entry of its subject's referrers (spec, "Listing Referrers").
    pub fn as_referrer(&self, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest,
            size,
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

/// What is looked at of the JSON.
#[derive(Debug, Default)]
struct Written {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Pointer,
    subject: Pointer,
    annotations: Annotations,
    /// It has the layers of Docker's schema 1.
    has_fs_layers: bool,
    is_signed: bool,
    has_manifests: bool,
}

impl Written {
    const KEYS: [&'static str; 9] = [
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "subject",
        "annotations",
        "fsLayers",
        "signatures",
        "manifests",
    ];

    /// The media type is stored nowhere but in the manifest, and not in every one.
    fn media_type(&self) -> String {
        let written = self.media_type.as_deref().filter(|it| is_servable(it));
        if let Some(written) = written {
            return written.to_owned();
        }
        let is_schema1 = match self.schema_version {
            Some(version) => version == 1,
            None => self.has_fs_layers,
        };
        match is_schema1 {
            true if self.is_signed => media_type::DOCKER_SCHEMA1_SIGNED,
            true => media_type::DOCKER_SCHEMA1,
            false if self.has_manifests => media_type::OCI_INDEX,
            false => media_type::OCI_MANIFEST,
        }
        .to_owned()
    }
}

/// Returns whether bytes may be served as this media type: one of data for programs, which no browser
/// shows as a page of the registry's.
fn is_servable(media_type: &str) -> bool {
    // The characters of a name (RFC 6838, section 4.2), so no parameters.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    let Some(name) = media_type.strip_prefix("application/") else {
        return false;
    };
    media_type.len() <= MEDIA_TYPE_BYTES_MAX
        && name.bytes().all(plain)
        && (name.starts_with("vnd.") || name.ends_with("+json"))
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object)
    }
}

/// Reads what is known of a manifest, and passes over the rest.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Written, A::Error> {
        let mut written = Written::default();
        while let Some(key) = object.next_key_seed(keys::Meant(&Written::KEYS))? {
            match key {
                Some("schemaVersion") => {
                    written.schema_version = object.next_value::<Lax<_>>()?.0;
                }
                Some("mediaType") => written.media_type = object.next_value::<Lax<_>>()?.0,
                Some("artifactType") => {
                    written.artifact_type = object.next_value::<Lax<_>>()?.0;
                }
                Some("config") => written.config = object.next_value::<Lax<_>>()?.0,
                Some("subject") => written.subject = object.next_value::<Lax<_>>()?.0,
                Some("annotations") => {
                    written.annotations = object.next_value::<Lax<_>>()?.0;
                }
                other => {
                    object.next_value::<IgnoredAny>()?;
                    written.has_fs_layers |= other == Some("fsLayers");
                    written.is_signed |= other == Some("signatures");
                    written.has_manifests |= other == Some("manifests");
                }
            }
        }
        Ok(written)
    }
}

/// What is read from a value of the right shape, and is its default otherwise.
trait Lenient: Default {
    fn text(_text: &str) -> Self {
        Self::default()
    }

    fn number(_number: u64) -> Self {
        Self::default()
    }

    fn object<'de, A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        keys::skip(object)?;
        Ok(Self::default())
    }
}

impl Lenient for Option<String> {
    fn text(text: &str) -> Self {
        Some(text.to_owned())
    }
}

impl Lenient for Option<u64> {
    fn number(number: u64) -> Self {
        Some(number)
    }
}

/// What counts of a descriptor.
#[derive(Debug, Default)]
struct Pointer {
    media_type: Option<String>,
    digest: Option<String>,
}

impl Lenient for Pointer {
    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut pointer = Self::default();
        while let Some(key) = object.next_key_seed(keys::Meant(&["mediaType", "digest"]))? {
            match key {
                Some("mediaType") => pointer.media_type = object.next_value::<Lax<_>>()?.0,
                Some("digest") => pointer.digest = object.next_value::<Lax<_>>()?.0,
                _ => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(pointer)
    }
}

impl Lenient for Annotations {
    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut annotations = Self::default();
        while let Some((key, value)) = object.next_entry::<String, Lax<Option<String>>>()? {
            if let Some(text) = value.0 {
                annotations.insert(key, text);
            }
        }
        Ok(annotations)
    }
}

/// Any value at all, read as a `T` where it has the shape of one.
struct Lax<T>(T);

impl<'de, T: Lenient> Deserialize<'de> for Lax<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LaxVisitor(PhantomData))
    }
}

struct LaxVisitor<T>(PhantomData<T>);

impl<'de, T: Lenient> Visitor<'de> for LaxVisitor<T> {
    type Value = Lax<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Lax<T>, E> {
        Ok(Lax(T::text(text)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Lax<T>, E> {
        Ok(Lax(T::number(number)))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Lax<T>, A::Error> {
        T::object(object).map(Lax)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lax<T>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lax(T::default()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Lax<T>, E> {
        Ok(Lax(T::default()))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Lax<T>, E> {
        Ok(Lax(T::default()))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Lax<T>, E> {
        Ok(Lax(T::default()))
    }

    fn visit_unit<E: Error>(self) -> Result<Lax<T>, E> {
        Ok(Lax(T::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn every_kind_of_manifest_that_was_ever_stored_has_its_media_type() {
        let artifact = "application/vnd.oci.artifact.manifest.v1+json";
        for (text, expected) in [
            (
                r#"{"schemaVersion":1,"fsLayers":[],"signatures":[{"protected":"x"}]}"#,
                media_type::DOCKER_SCHEMA1_SIGNED,
            ),
            (
                r#"{"schemaVersion":1,"fsLayers":[]}"#,
                media_type::DOCKER_SCHEMA1,
            ),
            (
                r#"{"schemaVersion":1,"name":"a"}"#,
                media_type::DOCKER_SCHEMA1,
            ),
            (r#"{"fsLayers":null}"#, media_type::DOCKER_SCHEMA1),
            (
                r#"{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[]}"#,
                artifact,
            ),
            (
                r#"{"MediaType":"application/vnd.oci.artifact.manifest.v1+json"}"#,
                artifact,
            ),
            (
                r#"{"schemaVersion":2,"manifests":[{"digest":"none","size":-1}]}"#,
                media_type::OCI_INDEX,
            ),
            (r#"{"manifests":null}"#, media_type::OCI_INDEX),
            (
                r#"{"schemaVersion":"2","config":[]}"#,
                media_type::OCI_MANIFEST,
            ),
            (r#"{"mediaType":7,"layers":{}}"#, media_type::OCI_MANIFEST),
            (r#"{"mediaType":""}"#, media_type::OCI_MANIFEST),
            ("{}", media_type::OCI_MANIFEST),
        ] {
            let stored = Stored::read(text.as_bytes()).unwrap();
            assert_eq!(stored.media_type, expected, "{text}");
        }
    }

    #[test]
    fn a_media_type_that_is_none_for_data_is_not_served() {
        for bad in [
            "text/html",
            "application/",
            "application/x\\u000d\\u000aSet-Cookie: a",
            "application/\\u00e4",
            "application/x ",
            &format!("application/{}", "x".repeat(MEDIA_TYPE_BYTES_MAX)),
        ] {
            let text = format!(r#"{{"mediaType":"{bad}"}}"#);
            let stored = Stored::read(text.as_bytes()).unwrap();
            assert_eq!(stored.media_type, media_type::OCI_MANIFEST, "{bad}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_no_manifest() {
        for bytes in [&b""[..], b"[]", b"null", b"\"x\"", b"{", b"{} x", b"\xff{}"] {
            assert!(Stored::read(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn fields_of_the_wrong_shape_count_as_none() {
        let text = format!(
            r#"{{"subject":{{"digest":"{EMPTY}","size":-5}},"artifactType":{{}},
            "config":{{"mediaType":"application/vnd.x","digest":5}},
            "annotations":{{"a":"b","c":5,"d":["e"]}}}}"#
        );
        let stored = Stored::read(text.as_bytes()).unwrap();
        assert_eq!(stored.subject, Some(EMPTY.parse().unwrap()));
        assert_eq!(stored.artifact_type.as_deref(), Some("application/vnd.x"));
        let annotations = Annotations::from([("a".to_owned(), "b".to_owned())]);
        assert_eq!(stored.annotations, annotations);
        for subject in ["null", "5", "[]", r#"{"digest":"md5:00"}"#, "{}"] {
            let text = format!(r#"{{"subject":{subject},"annotations":[{subject}]}}"#);
            let stored = Stored::read(text.as_bytes()).unwrap();
            assert_eq!(stored.subject, None, "{subject}");
        }
    }

    #[test]
    fn text_that_is_no_utf8_is_read_as_go_reads_it() {
        let text = b"{\"mediaType\":\"application/vnd.x\",\"annotations\":{\"a\":\"\xff\"}}";
        let stored = Stored::read(text).unwrap();
        assert_eq!(stored.media_type, "application/vnd.x");
        assert_eq!(stored.annotations["a"], "\u{fffd}");
    }

    #[test]
    fn what_may_be_pushed_is_read_back_as_it_was_understood() {
        let config = format!(r#"{{"mediaType":"application/vnd.x","digest":"{EMPTY}","size":2}}"#);
        for text in [
            format!(r#"{{"schemaVersion":2,"config":{config},"layers":null}}"#),
            format!(
                r#"{{"schemaVersion":2,"config":{config},"layers":[{config}],"subject":{config},
                "artifactType":"application/vnd.y","annotations":{{"a":"b"}}}}"#
            ),
            format!(r#"{{"schemaVersion":2,"manifests":[{config}],"subject":{config}}}"#),
            format!(
                r#"{{"schemaVersion":2,"config":{config},"layers":[],"signatures":1e999,
                "fsLayers":"\udc00","platform":-1e999}}"#
            ),
        ] {
            let pushed = Manifest::parse(text.as_bytes(), None).unwrap();
            let stored = Stored::read(text.as_bytes()).unwrap();
            let digest: Digest = EMPTY.parse().unwrap();
            assert_eq!(
                stored.as_referrer(digest.clone(), 7),
                pushed.as_referrer(digest, 7)
            );
            assert_eq!(stored.subject, pushed.subject.map(|subject| subject.digest));
        }
    }
}
