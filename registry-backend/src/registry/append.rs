//! How bytes become a blob: written at an upload's end, hashed beside, and published under their
//! digest.

use oci::{Algorithm, Digest};
use tokio::sync::OwnedMutexGuard;

use super::Error;
use super::uploads::Upload;
use crate::storage::{self, Hasher, Wait, layout};

/// How much is read at once to compute a hash again.
const REHASH_BYTES: usize = 1 << 20;

/// The hash of the first bytes of an upload.
#[derive(Clone, Debug)]
pub(super) struct Hashed {
    hasher: Hasher,
    /// How many bytes `hasher` has seen.
    size_bytes: u64,
}

impl Hashed {
    /// That of no bytes.
    pub(super) fn nothing(algorithm: Algorithm) -> Self {
        Self {
            hasher: Hasher::new(algorithm),
            size_bytes: 0,
        }
    }

    /// Returns the algorithm it is by.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.hasher.algorithm()
    }
}

/// An upload that one request writes to.
///
/// **Invariant:** the hash is that of the bytes in the file.
#[derive(Debug)]
pub(crate) struct Append {
    hashing: Hashing,
    writing: Writing,
}

/// That half of an [`Append`] which hashes, for a thread of its own.
#[derive(Debug)]
pub(crate) struct Hashing {
    hashed: OwnedMutexGuard<Hashed>,
}

/// That half of an [`Append`] which writes.
#[derive(Debug)]
pub(crate) struct Writing {
    upload: Upload,
    file: Box<dyn storage::Append>,
}

/// Where an upload stood, to go back to.
#[derive(Clone, Debug)]
pub(crate) struct Mark(Hashed);

impl Hashing {
    /// Returns how many bytes were hashed.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.hashed.size_bytes
    }

    /// Takes in the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hashed.hasher.update(bytes);
        self.hashed.size_bytes += bytes.len() as u64;
    }
}

impl Writing {
    /// Adds `bytes` at the end. On a full disk the upload is removed: no client could go on with it,
    /// and its bytes may be the very ones that are needed.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write(bytes);
        if written.is_err() {
            self.upload.discard();
        }
        self.upload.leave(self.file.size_bytes());
        Ok(written?)
    }
}

impl Append {
    /// Opens `upload` at its end, to be hashed by `algorithm` from here on where that is known.
    pub(super) fn open(
        upload: Upload,
        hashed: OwnedMutexGuard<Hashed>,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, Error> {
        let file = upload.registry.driver.append(&upload.data())?;
        let algorithm = algorithm.unwrap_or_else(|| hashed.algorithm());
        let size_bytes = file.size_bytes();
        let mut hashing = Hashing { hashed };
        if !upload.is_as_left(size_bytes) {
            *hashing.hashed = Hashed::nothing(algorithm);
        }
        upload.leave(size_bytes);
        let mut append = Self::joined(hashing, Writing { upload, file });
        append.hash_up_to_date(algorithm)?;
        Ok(append)
    }

    /// Puts together what [`apart`](Self::apart) took apart, once both have the same bytes.
    pub(crate) fn joined(hashing: Hashing, writing: Writing) -> Self {
        Self { hashing, writing }
    }

    /// Takes the two halves apart; both are to be given the same bytes.
    pub(crate) fn apart(self) -> (Hashing, Writing) {
        (self.hashing, self.writing)
    }

    /// Returns how many bytes the upload has received.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.writing.file.size_bytes()
    }

    /// Notes where the upload stands.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.hashing.hashed.clone())
    }

    /// Takes back all that was written since `mark`.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn go_back(&mut self, mark: Mark) -> Result<(), Error> {
        self.writing.file.truncate(mark.0.size_bytes)?;
        self.writing.upload.leave(mark.0.size_bytes);
        *self.hashing.hashed = mark.0;
        Ok(())
    }

    /// Adds `bytes` at the end, as both halves would.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.writing.write(bytes)?;
        self.hashing.update(bytes);
        Ok(())
    }

    /// Makes the upload a blob of its repository. Whatever the outcome, it then is no longer there.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`].
    pub(crate) fn finish(mut self, digest: &Digest) -> Result<(), Error> {
        let result = self.hash_up_to_date(digest.algorithm());
        let Self { hashing, writing } = self;
        let Writing { upload, file } = writing;
        let actual = hashing.hashed.hasher.clone().finish();
        let result = result.and_then(|()| {
            if actual != *digest {
                return Err(Error::DigestMismatch {
                    expected: digest.clone(),
                    actual,
                });
            }
            file.publish(&layout::blob(digest))?;
            upload.registry.tally.wrote_blob();
            let link = layout::layer(&upload.repository, digest);
            upload.registry.write_link(&link, digest)
        });
        upload.discard();
        result
    }

    /// Computes the hash of the bytes in the file, as far as it is not known.
    fn hash_up_to_date(&mut self, algorithm: Algorithm) -> Result<(), Error> {
        let hashed = &mut *self.hashing.hashed;
        let size_bytes = self.writing.file.size_bytes();
        if hashed.algorithm() != algorithm || hashed.size_bytes > size_bytes {
            *hashed = Hashed::nothing(algorithm);
        }
        if hashed.size_bytes == size_bytes {
            return Ok(());
        }
        let upload = &self.writing.upload;
        let written = upload
            .registry
            .driver
            .open(&upload.data(), Wait::AsNeeded)?;
        let mut buffer = vec![0; REHASH_BYTES];
        while hashed.size_bytes < size_bytes {
            let rest = usize::try_from(size_bytes - hashed.size_bytes).unwrap_or(usize::MAX);
            let len = rest.min(buffer.len());
            let part = buffer.split_at_mut(len).0;
            written.read_at(hashed.size_bytes, part)?;
            hashed.hasher.update(part);
            hashed.size_bytes += len as u64;
        }
        Ok(())
    }
}
