//! What all reads of files have in common: the memory that they fill, and the threads that wait for the
//! disk.

use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// How far into its memory a piece begins, to lie elsewhere in its pages than the record that OpenSSL
/// copies it to lies in its own. With older versions of glibc (Debian 12 has one) AMD's Zen 4 copies
/// many times slower to what lies 1 to 15 bytes further on in a page, and a record's content begins 8
/// bytes behind its memory. It is a multiple of 512 bytes, so that the piece may be read by direct I/O.
const SKEW_BYTES: usize = 2 << 10;
const PAGE_BYTES: usize = 4 << 10;

/// How many reads may wait for a disk: half of the threads that there are for what blocks, so that a
/// disk that does not answer, or a registry that hands over a file of such a one, leaves the rest to others.
const WAITING_MAX: usize = 256;

static WAITING: Semaphore = Semaphore::const_new(WAITING_MAX);

/// Makes `spare` as long, in memory of its own where it has too little, or that lies otherwise.
pub(super) fn sized(mut spare: BytesMut, len: usize) -> BytesMut {
    if spare.capacity() < len || spare.as_ptr().addr() % PAGE_BYTES != SKEW_BYTES {
        spare = BytesMut::zeroed(PAGE_BYTES + len);
        let behind = spare.as_ptr().addr() % PAGE_BYTES;
        spare.advance((PAGE_BYTES + SKEW_BYTES - behind) % PAGE_BYTES);
    }
    spare.resize(len, 0);
    spare
}

/// Runs a read that waits for the disk, on a thread that may block.
pub(super) async fn wait<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let place = WAITING.acquire().await.map_err(io::Error::other)?;
    let reading = spawn_blocking(move || {
        let done = read();
        drop(place);
        done
    });
    reading.await?
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE_BYTES: usize = 256 << 10;

    #[test]
    fn a_piece_lies_askew_also_in_memory_that_is_used_again() {
        let mut spare = sized(BytesMut::new(), PIECE_BYTES);
        let begin = spare.as_ptr();
        for len in [PIECE_BYTES, PIECE_BYTES, 100] {
            spare = sized(spare, len);
            assert_eq!((spare.as_ptr(), spare.len()), (begin, len));
            spare = spare.freeze().try_into_mut().unwrap();
        }
        assert_eq!(sized(spare, PIECE_BYTES).len(), PIECE_BYTES);
    }
}
