//! The keys of JSON objects, as decoders that mind their case see them, and those that do not.
//!
//! Serde takes a key for a field only where it is spelled exactly so, and refuses a field that comes
//! twice. Go's `encoding/json`, with which `registry:2` and most clients read manifests, ignores case
//! (by Unicode's simple case folding, so that `ſ` is an `s`) and takes the last value. A document with
//! `MediaType` beside `mediaType` is therefore two documents. What is pushed must be one to everyone
//! ([`Distinct`]); what lies in storage already is read as Go reads it ([`Meant`]).

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer, MapAccess, Visitor,
};

/// Which of some known keys a key is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Spelling {
    /// This one.
    Exact(usize),
    /// This one, to a decoder that ignores case.
    Folded(usize),
    /// None of them.
    Unknown,
}

impl Spelling {
    fn of(key: &str, known: &[&str]) -> Self {
        if let Some(at) = known.iter().position(|known| *known == key) {
            return Self::Exact(at);
        }
        match known.iter().position(|known| folds_to(key, known)) {
            Some(at) => Self::Folded(at),
            None => Self::Unknown,
        }
    }
}

/// Returns whether two keys are the same under simple case folding; `known` is ASCII.
fn folds_to(key: &str, known: &str) -> bool {
    // Only two characters beyond ASCII fold into it: the long s and the sign of the kelvin.
    let folded = key.chars().map(|letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(known.chars().map(|letter| letter.to_ascii_lowercase()))
}

/// An object whose known keys mean the same to every decoder.
pub(crate) trait Distinct<'de>: Sized {
    /// The keys that any client may read, at most 32.
    const KEYS: &'static [&'static str];

    /// Reads the fields, as Serde derives it.
    fn fields<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Reads an object whose known keys each come once at most, and in their one spelling.
pub(crate) fn distinct<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Distinct<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(DistinctVisitor(PhantomData))
}

struct DistinctVisitor<T>(PhantomData<T>);

impl<'de, T: Distinct<'de>> Visitor<'de> for DistinctVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
        T::fields(MapAccessDeserializer::new(Checked {
            object,
            known: T::KEYS,
            seen: 0,
        }))
    }
}

/// An object whose keys are looked at as they go by.
struct Checked<A> {
    object: A,
    known: &'static [&'static str],
    /// A bit for each known key that has been there.
    seen: u32,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Checked<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.object.next_key_seed(CheckedKey {
            seed,
            known: self.known,
            seen: &mut self.seen,
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.object.next_value_seed(seed)
    }
}

struct CheckedKey<'a, K> {
    seed: K,
    known: &'static [&'static str],
    seen: &'a mut u32,
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for CheckedKey<'_, K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for CheckedKey<'_, K> {
    type Value = K::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<K::Value, E> {
        match Spelling::of(key, self.known) {
            Spelling::Exact(at) => {
                let bit = 1 << at;
                if *self.seen & bit != 0 {
                    return Err(E::custom(format_args!("key {key:?} is there twice")));
                }
                *self.seen |= bit;
            }
            Spelling::Folded(at) => {
                let known = self.known.get(at).copied().unwrap_or_default();
                return Err(E::custom(format_args!(
                    "key {key:?} differs from {known:?} only in case"
                )));
            }
            Spelling::Unknown => {}
        }
        self.seed.deserialize(key.into_deserializer())
    }
}

/// Reads a key as that one of some known keys which it is to Go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meant(pub(crate) &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Meant {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Meant {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(match Spelling::of(key, self.0) {
            Spelling::Exact(at) | Spelling::Folded(at) => self.0.get(at).copied(),
            Spelling::Unknown => None,
        })
    }
}

/// Passes over the rest of an object.
pub(crate) fn skip<'de, A: MapAccess<'de>>(mut object: A) -> Result<(), A::Error> {
    while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_in_every_case_that_go_ignores() {
        let known = ["schemaVersion", "mediaType", "artifactType"];
        for (key, expected) in [
            ("mediaType", Spelling::Exact(1)),
            ("MediaType", Spelling::Folded(1)),
            ("MEDIATYPE", Spelling::Folded(1)),
            ("\u{17f}chemaVersion", Spelling::Folded(0)),
            ("schemaVer\u{17f}ion", Spelling::Folded(0)),
            ("mediaTypes", Spelling::Unknown),
            ("mediaTyp", Spelling::Unknown),
            ("media_type", Spelling::Unknown),
            ("media\u{130}ype", Spelling::Unknown),
            ("", Spelling::Unknown),
        ] {
            assert_eq!(Spelling::of(key, &known), expected, "{key:?}");
        }
        assert!(folds_to("\u{212a}ey", "key"));
    }
}
