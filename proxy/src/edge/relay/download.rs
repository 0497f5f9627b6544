//! A blob on its way to the client: read from the registry's open file, once, and encrypted.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use oci::range::ByteRange;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::sync::Semaphore;
use tokio::task::{spawn_blocking, yield_now};

use super::handed::Handed;

/// How much is read at once: sixteen TLS records, as many as the connection's buffer takes, so that
/// they go out with one system call.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// How far into its memory a piece begins, to lie elsewhere in its pages than the record that OpenSSL
/// copies it to lies in its own. With older versions of glibc (Debian 12 has one) AMD's Zen 4 copies
/// many times slower to what lies 1 to 15 bytes further on in a page, and a record's content begins 8
/// bytes behind its memory.
const SKEW_BYTES: usize = 2 << 10;

/// How many reads may wait for a disk: half of the threads that there are for what blocks, so that a
/// disk that does not answer, or a registry that hands over a file of such a one, leaves the rest to others.
const WAITING_MAX: usize = 256;

static WAITING: Semaphore = Semaphore::const_new(WAITING_MAX);

/// Sends `part` of `file` as the body of the reply that has begun.
pub(super) async fn send(session: &mut Session, file: Handed, part: ByteRange) -> Result<()> {
    // Only a wish; whatever becomes of it, the bytes are the same.
    fadvise(&*file, part.first, None, Advice::Sequential).ok();
    let file = Arc::new(file);
    let mut offset = part.first;
    let mut left = part.size_bytes();
    let mut spare = BytesMut::new();
    while left > 0 {
        let len = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let read = read(&file, offset, sized(spare, len)).await;
        let piece = read.map_err(|error| broken(error).into_up())?.freeze();
        offset += piece.len() as u64;
        left -= piece.len() as u64;
        let downstream = session.as_downstream_mut();
        let sent = downstream.write_response_body(piece.clone(), left == 0);
        sent.await.map_err(|error| error.into_down())?;
        // HTTP/2 may hold on to it for a while; then there has to be another.
        spare = piece.try_into_mut().unwrap_or_default();
        // A client that takes everything at once would leave the others no turn for a hundred pieces.
        yield_now().await;
    }
    Ok(())
}

/// Makes `spare` as long, in memory of its own where it has too little.
pub(super) fn sized(mut spare: BytesMut, len: usize) -> BytesMut {
    if spare.capacity() < len {
        spare = BytesMut::zeroed(SKEW_BYTES + len);
        spare.advance(SKEW_BYTES);
    }
    spare.resize(len, 0);
    spare
}

pub(super) fn broken(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::FileReadError, "a blob's file", error)
}

/// Fills `buffer` from `offset`, as far as that can be done at once, and at least in part.
pub(super) async fn read(
    file: &Arc<Handed>,
    offset: u64,
    mut buffer: BytesMut,
) -> io::Result<BytesMut> {
    let at_hand = read_cached(file, offset, &mut buffer);
    if matches!(at_hand, Ok(_) | Err(Errno::AGAIN)) {
        file.is_local();
    }
    let len = match at_hand {
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => {
            // It has to come from the disk, which no other connection shall wait for.
            let place = WAITING.acquire().await.map_err(io::Error::other)?;
            let file = Arc::clone(file);
            let reading = spawn_blocking(move || {
                let len = file.read_at(&mut buffer, offset);
                drop(place);
                (buffer, len)
            });
            let (filled, len) = reading.await?;
            buffer = filled;
            len?
        }
        read => read?,
    };
    if len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.truncate(len);
    Ok(buffer)
}

/// Reads what is in the page cache.
fn read_cached(file: &File, offset: u64, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let buffers = &mut [IoSliceMut::new(buffer)];
    rustix::io::retry_on_intr(|| preadv2(file, buffers, offset, ReadWriteFlags::NOWAIT))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_file_is_read_from_anywhere_and_its_end_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let file = Arc::new(Handed::unchecked(file));
        let piece = read(&file, 2, BytesMut::zeroed(4)).await.unwrap();
        assert_eq!(&piece[..], b"2345");
        let piece = read(&file, 8, BytesMut::zeroed(4)).await.unwrap();
        assert_eq!(&piece[..], b"89");
        let end = read(&file, 10, BytesMut::zeroed(4)).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

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

    #[tokio::test]
    async fn what_only_the_disk_has_is_read_as_well() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let file = Arc::new(Handed::unchecked(file));
        let piece = read(&file, 2, BytesMut::zeroed(4)).await;
        assert_eq!(&piece.unwrap()[..], b"2345");
    }

    #[tokio::test]
    async fn a_file_system_that_cannot_say_what_is_cached_is_read_as_well() {
        let file = File::open("/proc/version").unwrap();
        let asked = read_cached(&file, 0, &mut [0; 4]);
        assert_eq!(asked, Err(Errno::OPNOTSUPP));
        let file = Arc::new(Handed::unchecked(file));
        let piece = read(&file, 0, BytesMut::zeroed(4)).await;
        assert_eq!(piece.unwrap(), fs::read("/proc/version").unwrap()[..4]);
    }
}
