//! A blob on its way to the client: read from the registry's open file, once, and encrypted.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use oci::range::ByteRange;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::yield_now;

use super::direct;
use super::disk::{self, sized};
use super::handed::Handed;

/// How much is read at once: sixteen TLS records, as many as the connection's buffer takes, so that
/// they go out with one system call.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// Sends `part` of `file` as the body of the reply that has begun.
pub(super) async fn send(session: &mut Session, file: Handed, part: ByteRange) -> Result<()> {
    let place = direct::place(&file).map_err(|error| broken(error).into_up())?;
    if place.is_some() {
        return send_directly(session, &Arc::new(file), part).await;
    }
    // Only a wish; whatever becomes of it, the bytes are the same.
    fadvise(&*file, part.first, None, Advice::Sequential).ok();
    let file = Arc::new(file);
    let mut offset = part.first;
    let mut left = part.size_bytes();
    let mut spare = BytesMut::new();
    while left > 0 {
        let len = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let read = read(&file, offset, len, spare).await;
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

/// Sends `part` of a file past the page cache: while a piece is sent, the next is read.
async fn send_directly(session: &mut Session, file: &Arc<Handed>, part: ByteRange) -> Result<()> {
    let end = part.first + part.size_bytes();
    let read = async |offset: u64, spare: BytesMut| -> Result<BytesMut> {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(BytesMut::new());
        }
        // One that begins within a block ends with one, so that those that follow fit it.
        let within = usize::try_from(offset % direct::BLOCK_BYTES).unwrap_or(0);
        let len = left.min(direct::READ_BYTES - within);
        let piece = direct::read(file, offset, len, spare).await;
        piece.map_err(|error| broken(error).into_up())
    };
    let mut offset = part.first;
    let mut next = read(offset, BytesMut::new()).await?;
    let mut spare = BytesMut::new();
    while !next.is_empty() {
        let piece = next.freeze();
        offset += piece.len() as u64;
        let (sent, following) = tokio::join!(
            send_piece(session, &piece, offset == end),
            read(offset, spare)
        );
        sent?;
        next = following?;
        spare = piece.try_into_mut().unwrap_or_default();
        yield_now().await;
    }
    Ok(())
}

/// Sends as much at a time as [`send`] does.
async fn send_piece(session: &mut Session, piece: &Bytes, is_last: bool) -> Result<()> {
    let downstream = session.as_downstream_mut();
    let mut rest = piece.clone();
    while !rest.is_empty() {
        let slice = rest.split_to(rest.len().min(PIECE_BYTES));
        let is_last = is_last && rest.is_empty();
        let sent = downstream.write_response_body(slice, is_last).await;
        sent.map_err(|error| error.into_down())?;
    }
    Ok(())
}

pub(super) fn broken(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::FileReadError, "a blob's file", error)
}

/// Reads up to `len` bytes from `offset`, as many as can be read at once and at least some; into `spare`
/// where that has room for them.
pub(super) async fn read(
    file: &Arc<Handed>,
    offset: u64,
    len: usize,
    spare: BytesMut,
) -> io::Result<BytesMut> {
    if file.is_direct() {
        if len >= direct::READ_MIN_BYTES {
            return direct::read(file, offset, len, spare).await;
        }
        file.read_through_cache()?;
    }
    let mut buffer = sized(spare, len);
    let at_hand = read_cached(file, offset, &mut buffer);
    if matches!(at_hand, Ok(_) | Err(Errno::AGAIN)) {
        file.is_local();
    }
    let len = match at_hand {
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => {
            // It has to come from the disk, which no other connection shall wait for.
            let file = Arc::clone(file);
            let reading = disk::wait(move || {
                let len = file.read_at(&mut buffer, offset)?;
                Ok((buffer, len))
            });
            let (filled, len) = reading.await?;
            buffer = filled;
            len
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
        let piece = read(&file, 2, 4, BytesMut::new()).await.unwrap();
        assert_eq!(&piece[..], b"2345");
        let piece = read(&file, 8, 4, BytesMut::new()).await.unwrap();
        assert_eq!(&piece[..], b"89");
        let end = read(&file, 10, 4, BytesMut::new()).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_only_the_disk_has_is_read_as_well() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let file = Arc::new(Handed::unchecked(file));
        let piece = read(&file, 2, 4, BytesMut::new()).await;
        assert_eq!(&piece.unwrap()[..], b"2345");
    }

    #[tokio::test]
    async fn a_file_system_that_cannot_say_what_is_cached_is_read_as_well() {
        let file = File::open("/proc/version").unwrap();
        let asked = read_cached(&file, 0, &mut [0; 4]);
        assert_eq!(asked, Err(Errno::OPNOTSUPP));
        let file = Arc::new(Handed::unchecked(file));
        let piece = read(&file, 0, 4, BytesMut::new()).await;
        assert_eq!(piece.unwrap(), fs::read("/proc/version").unwrap()[..4]);
    }
}
