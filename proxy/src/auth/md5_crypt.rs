//! MD5-crypt, in the two spellings it is written with: Apache's `$apr1$` and the original `$1$`.
//!
//! The algorithm is fixed for all time and nobody should make new hashes with it, so it is written
//! down here: what crates there are for it drag abandoned ciphers into the tree.

use openssl::error::ErrorStack;
use openssl::hash::{Hasher, MessageDigest};

/// How many characters of the salt count.
const SALT_BYTES_MAX: usize = 8;

/// The rounds that were slow in 1994.
const ROUNDS: usize = 1000;

/// The alphabet of `crypt`, in its own order.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Which bytes of the digest make up each group of letters, most significant first.
const GROUPS: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];

/// Returns the 22 letters that follow `magic`, the salt and a `$`.
pub(super) fn md5_crypt(password: &[u8], salt: &[u8], magic: &str) -> Result<String, ErrorStack> {
    let salt = salt.get(..SALT_BYTES_MAX).unwrap_or(salt);
    let mut hasher = Hasher::new(MessageDigest::md5())?;
    let mut hash = |parts: &[&[u8]]| -> Result<[u8; 16], ErrorStack> {
        for part in parts {
            hasher.update(part)?;
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finish()?);
        Ok(digest)
    };

    let inner = hash(&[password, salt, password])?;
    let mut start: Vec<u8> = [password, magic.as_bytes(), salt].concat();
    start.extend(inner.iter().cycle().take(password.len()));
    let mut bits = password.len();
    while bits > 0 {
        // The first letter of the password, or a zero: a slip of 1994 that became the format.
        let letter = password.first().copied().unwrap_or_default();
        start.push(if bits & 1 == 1 { 0 } else { letter });
        bits >>= 1;
    }

    let mut digest = hash(&[&start])?;
    for round in 0..ROUNDS {
        let previous = digest;
        let (first, last): (&[u8], &[u8]) = if round % 2 == 1 {
            (password, &previous)
        } else {
            (&previous, password)
        };
        let salt: &[u8] = if round % 3 == 0 { &[] } else { salt };
        let middle: &[u8] = if round % 7 == 0 { &[] } else { password };
        digest = hash(&[first, salt, middle, last])?;
    }
    Ok(encode(&digest))
}

/// Writes the digest in `crypt`'s letters, least significant six bits first.
fn encode(digest: &[u8; 16]) -> String {
    let byte = |index: usize| u32::from(digest.get(index).copied().unwrap_or_default());
    let mut text = String::with_capacity(22);
    let mut push = |mut bits: u32, letters: usize| {
        for _ in 0..letters {
            let letter = ALPHABET.get((bits & 63) as usize).copied();
            text.push(char::from(letter.unwrap_or_default()));
            bits >>= 6;
        }
    };
    for [high, middle, low] in GROUPS {
        push(byte(high) << 16 | byte(middle) << 8 | byte(low), 4);
    }
    push(byte(11), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_openssl_and_with_htpasswd() {
        for (password, salt, magic, expected) in [
            ("a", "12345678", "$apr1$", "68ZQVfPkWX/wcXr/41VxQ."),
            (
                "correct horse",
                "drWXX7jd",
                "$apr1$",
                "ug/q7Cna1/C4Q6js2qXAM1",
            ),
            ("correct horse", "abcdefgh", "$1$", "y6iHhJNbuC0xpbk0w9pm80"),
            ("", "ldm8/N.x", "$apr1$", "BsIlDnMFlmcq26XutMgK5/"),
            ("pässwörd", "Nqsrz.zV", "$apr1$", "d9Lu0icD0lzSO2UReuKrj."),
            (
                &"x".repeat(100),
                "ioDipzV6",
                "$apr1$",
                "5IVaQxoSHBB4K9e1EClRT0",
            ),
        ] {
            let letters = md5_crypt(password.as_bytes(), salt.as_bytes(), magic).unwrap();
            assert_eq!(letters, expected, "{password}");
        }
    }
}
