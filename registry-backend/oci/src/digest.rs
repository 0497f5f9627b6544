//! `sha256:…`: the name of content.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A hash algorithm that this registry computes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Algorithm {
    /// `sha256`, the spec's default.
    #[default]
    Sha256,
    /// `sha512`
    Sha512,
}

impl Algorithm {
    /// Every algorithm, in the order of their names.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Returns the name as it stands before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Returns the number of hex digits after the colon.
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(name: &str) -> Result<Self, DigestError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
            .ok_or(DigestError::Unsupported)
    }
}

/// A digest whose algorithm is known and whose hex has the right length and case.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Names the output of a hash function.
    ///
    /// # Errors
    /// [`DigestError::Malformed`] when `bytes` is not as long as the algorithm's output.
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, DigestError> {
        use fmt::Write as _;

        if bytes.len() * 2 != algorithm.hex_len() {
            return Err(DigestError::Malformed);
        }
        let mut hex = String::with_capacity(algorithm.hex_len());
        for byte in bytes {
            write!(hex, "{byte:02x}").map_err(|fmt::Error| DigestError::Malformed)?;
        }
        Ok(Self {
            algorithm,
            hex: hex.into(),
        })
    }

    /// Reads the two parts of a path: the algorithm's folder and the hex.
    ///
    /// # Errors
    /// [`DigestError`] as for the text of a digest.
    pub fn from_parts(algorithm: &str, hex: &str) -> Result<Self, DigestError> {
        let algorithm: Algorithm = algorithm.parse()?;
        let digits = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != algorithm.hex_len() || !digits {
            return Err(DigestError::Malformed);
        }
        Ok(Self {
            algorithm,
            hex: hex.into(),
        })
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the lower-case hex digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::Malformed)?;
        Self::from_parts(algorithm, hex)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Why a text is no digest.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DigestError {
    /// It is not `algorithm:hex` with lower-case hex of the algorithm's length.
    #[error("digest is not of the form algorithm:hex")]
    Malformed,
    /// Its algorithm is not one this registry computes.
    #[error("digest algorithm is neither sha256 nor sha512")]
    Unsupported,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_hex_of_the_right_length_is_a_digest() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        assert_eq!(digest.to_string(), format!("sha256:{hex}"));
        for (text, error) in [
            (
                format!("sha256:{}", hex.to_uppercase()),
                DigestError::Malformed,
            ),
            (format!("sha256:{hex}\n"), DigestError::Malformed),
            (format!("sha512:{hex}"), DigestError::Malformed),
            (format!("md5:{hex}"), DigestError::Unsupported),
            (hex.to_owned(), DigestError::Malformed),
            ("sha256:".to_owned(), DigestError::Malformed),
            (String::new(), DigestError::Malformed),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_output_of_a_hash_is_named_by_its_hex() {
        let digest = Digest::new(Algorithm::Sha256, &[0xab; 32]).unwrap();
        assert_eq!(digest.hex(), "ab".repeat(32));
        assert_eq!(
            Digest::new(Algorithm::Sha512, &[0; 32]),
            Err(DigestError::Malformed)
        );
    }
}
