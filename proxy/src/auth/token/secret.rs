//! Secrets that are handed out once and kept as a hash.
//!
//! `tgt_` or `tgr_`, 256 random bits and a checksum of four bytes, in hexadecimal: a scanner for leaked
//! secrets finds them by `tg[tr]_[0-9a-f]{72}` and knows by the checksum that it found one. So much
//! randomness needs no slow hash: nobody guesses it.

use std::fmt;

use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;
use openssl::sha::sha256;

/// The hash that a secret is kept as.
pub(crate) type Hashed = [u8; 32];

/// What a secret is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// To get new tokens with, in the place of a password.
    Refresh,
    /// The password of a robot.
    Robot,
}

impl Purpose {
    fn prefix(self) -> &'static str {
        match self {
            Self::Refresh => "tgr_",
            Self::Robot => "tgt_",
        }
    }
}

/// A secret, in clear.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Makes one that nobody knows.
    pub(crate) fn random(purpose: Purpose) -> Result<Self, ErrorStack> {
        let mut bytes = [0; 32];
        rand_bytes(&mut bytes)?;
        let body = format!("{}{}", purpose.prefix(), hex(&bytes));
        Ok(Self(format!("{body}{}", checksum(&body))))
    }

    /// Reads what may be one for `purpose`; a slip of the hand is found without a look at any store.
    pub(crate) fn parse(text: &[u8], purpose: Purpose) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let random = text.strip_prefix(purpose.prefix())?;
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if random.len() != 72 || !random.bytes().all(hexadecimal) {
            return None;
        }
        let (body, sum) = text.split_at_checked(text.len() - 8)?;
        (checksum(body) == sum).then(|| Self(text.to_owned()))
    }

    /// Returns the hash that it is kept as and found by.
    pub(crate) fn hashed(&self) -> Hashed {
        sha256(self.0.as_bytes())
    }

    /// Returns it for the one time that it is shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn checksum(body: &str) -> String {
    let digest = sha256(body.as_bytes());
    hex(digest.get(..4).unwrap_or_default())
}

/// Writes bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the 32 bytes of a hash.
pub(crate) fn unhex(text: &str) -> Option<Hashed> {
    let mut bytes = Hashed::default();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_form() {
        let secret = Secret::random(Purpose::Robot).unwrap();
        let text = secret.reveal();
        assert_eq!(text.len(), 76);
        let read = |text: &str, purpose| Secret::parse(text.as_bytes(), purpose).is_some();
        assert!(read(text, Purpose::Robot));
        assert!(!read(text, Purpose::Refresh));
        assert!(!read(&text.to_uppercase(), Purpose::Robot));
        let (most, _) = text.split_at(75);
        assert!(!read(most, Purpose::Robot));
        let slip = if text.ends_with('0') { "1" } else { "0" };
        assert!(!read(&format!("{most}{slip}"), Purpose::Robot));
        assert!(!read("correct horse", Purpose::Robot));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn a_hash_survives_the_way_through_text() {
        let hash = Secret::random(Purpose::Refresh).unwrap().hashed();
        assert_eq!(unhex(&hex(&hash)), Some(hash));
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex(&"é".repeat(32)), None);
    }
}
