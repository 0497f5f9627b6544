//! Reading past the page cache, from a file that the registry has opened for that: its first reader gets
//! it from the disk, into memory that is used again, and leaves the cache to what is read again.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustix::io::Errno;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::disk::{self, sized};
use super::handed::Handed;

/// How much is read at once by those who send all of it: while they send it, the next is read.
pub(super) const READ_BYTES: usize = 512 << 10;

/// What is read at less than this at once is better read through the cache, which reads ahead.
pub(super) const READ_MIN_BYTES: usize = 64 << 10;

/// What reads have to be aligned to.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// How many bodies may be sent this way at once: each has two reads in memory.
const AT_ONCE_MAX: usize = 64;

static PLACES: Semaphore = Semaphore::const_new(AT_ONCE_MAX);

/// Returns a place among those who read past the cache, if `file` is to be read so; if there is none
/// left, the cache does.
pub(super) fn place(file: &Handed) -> io::Result<Option<SemaphorePermit<'static>>> {
    if !file.is_direct() {
        return Ok(None);
    }
    let place = PLACES.try_acquire().ok();
    if place.is_none() {
        file.read_through_cache()?;
    }
    Ok(place)
}

/// Reads `len` bytes from `offset`, into `spare` where that has room for them.
pub(super) async fn read(
    file: &Arc<Handed>,
    offset: u64,
    len: usize,
    spare: BytesMut,
) -> io::Result<BytesMut> {
    // The blocks that they lie in.
    let begin = offset - offset % BLOCK_BYTES;
    let skipped = usize::try_from(offset - begin).map_err(io::Error::other)?;
    let needed = skipped + len;
    let whole = needed.next_multiple_of(usize::try_from(BLOCK_BYTES).map_err(io::Error::other)?);
    let file = Arc::clone(file);
    let reading = disk::wait(move || {
        let mut buffer = sized(spare, whole);
        fill(&file, begin, &mut buffer, needed)?;
        Ok(buffer)
    });
    let mut buffer = reading.await?;
    buffer.truncate(needed);
    buffer.advance(skipped);
    Ok(buffer)
}

/// Reads from `offset` until `needed` bytes of `buffer` are filled.
fn fill(file: &Handed, offset: u64, buffer: &mut [u8], needed: usize) -> io::Result<()> {
    let mut filled = 0;
    while filled < needed {
        let rest = buffer.get_mut(filled..).unwrap_or_default();
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The file system wants another alignment, or has read only a part.
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::INVAL | Errno::OPNOTSUPP)
                ) && file.is_direct() =>
            {
                file.read_through_cache()?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    use oci::range::ByteRange;
    use rustix::fs::{OFlags, fcntl_getfl};

    use super::*;

    const SIZE: usize = 3 * READ_BYTES + 1234;

    fn content() -> Vec<u8> {
        (0..=250).cycle().step_by(7).take(SIZE).collect()
    }

    fn direct(content: &[u8]) -> Arc<Handed> {
        let mut file = tempfile::Builder::new().tempfile_in("/var/tmp").unwrap();
        file.write_all(content).unwrap();
        let mut options = OpenOptions::new();
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap();
        let file = options.read(true).custom_flags(flags).open(file.path());
        let part = ByteRange {
            first: 0,
            last: content.len() as u64 - 1,
        };
        let handed = Handed::open(file.unwrap().into(), part).unwrap();
        assert!(handed.is_direct());
        Arc::new(handed)
    }

    #[tokio::test]
    async fn any_part_of_a_file_is_read() {
        let content = content();
        let file = direct(&content);
        let mut spare = BytesMut::new();
        for (offset, len) in [
            (0, READ_BYTES),
            (READ_BYTES, READ_BYTES),
            (1, 1),
            (4095, 2),
            (READ_MIN_BYTES + 17, READ_MIN_BYTES),
            (SIZE - 5000, 5000),
            (SIZE - 1, 1),
        ] {
            let piece = read(&file, offset as u64, len, spare).await.unwrap();
            assert!(piece[..] == content[offset..offset + len], "{offset} {len}");
            spare = piece;
        }
        assert!(file.is_direct(), "no read was refused");
        let end = read(&file, SIZE as u64 - 1, 2, spare).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_cannot_be_read_directly_is_read_through_the_cache() {
        let content = content();
        let file = direct(&content);
        let mut buffer = vec![0; 5000];
        fill(&file, 1, &mut buffer, 5000).unwrap();
        assert!(buffer[..] == content[1..5001]);
        assert!(!file.is_direct());
        let file: &File = &file;
        assert!(!fcntl_getfl(file).unwrap().contains(OFlags::DIRECT));
    }

    #[test]
    fn only_so_many_read_past_the_cache() {
        let content = content();
        let files: Vec<_> = (0..=AT_ONCE_MAX).map(|_| direct(&content)).collect();
        let places: Vec<_> = files.iter().map(|file| place(file).unwrap()).collect();
        let (last, others) = places.split_last().unwrap();
        assert!(others.iter().all(Option::is_some));
        assert!(last.is_none() && !files[AT_ONCE_MAX].is_direct());
        assert!(place(&files[AT_ONCE_MAX]).unwrap().is_none());
    }
}
