//! Digests, computed while bytes pass.

use oci::{Algorithm, Digest};
use sha2::{Digest as _, Sha256, Sha512};

/// What the benchmarks time.
pub fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    Hasher::digest(algorithm, bytes)
}

/// A digest in the making.
#[derive(Clone, Debug)]
pub(crate) enum Hasher {
    /// For `sha256:…`.
    Sha256(Sha256),
    /// For `sha512:…`.
    Sha512(Sha512),
}

impl Hasher {
    /// Starts with no bytes.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Returns the digest of `bytes`.
    pub(crate) fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Self::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Returns what kind of digest this becomes.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes in the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    /// Returns the digest of all bytes taken in.
    pub(crate) fn finish(self) -> Digest {
        let digest = match self {
            Self::Sha256(state) => Digest::new(Algorithm::Sha256, &state.finalize()),
            Self::Sha512(state) => Digest::new(Algorithm::Sha512, &state.finalize()),
        };
        digest.expect("invariant: a hash has the length of its algorithm")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(
            Hasher::digest(Algorithm::Sha256, b"abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            Hasher::digest(Algorithm::Sha512, b"abc").hex().get(..16),
            Some("ddaf35a193617aba")
        );
    }
}
