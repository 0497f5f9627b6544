//! The promises of [`Append`](super::super::Append).

use super::*;

pub(super) fn an_append_goes_on_where_the_last_one_ended(driver: &dyn Driver) {
    let key = folder("appended").child("data");
    for (part, size_before) in [("one ", 0), ("two ", 4), ("", 8), ("three", 8)] {
        let mut append = driver.append(&key).unwrap();
        assert_eq!(append.size_bytes(), size_before);
        append.write(part.as_bytes()).unwrap();
        assert_eq!(append.size_bytes(), size_before + part.len() as u64);
    }
    assert_eq!(read(driver, &key, 100).unwrap(), b"one two three");
}

pub(super) fn an_append_is_cut_back(driver: &dyn Driver) {
    let key = folder("truncated").child("data");
    let mut append = driver.append(&key).unwrap();
    append.write(b"keep, drop").unwrap();
    append.truncate(4).unwrap();
    assert_eq!(append.size_bytes(), 4);
    append.write(b"!").unwrap();
    assert_eq!(read(driver, &key, 100).unwrap(), b"keep!");
}

/// Small parts and large ones, laid out as in the file and not, so that each of the ways to the disk
/// is taken beside each other.
pub(super) fn an_append_takes_parts_of_any_size(driver: &dyn Driver) {
    let key = folder("parts").child("data");
    let bytes: Vec<u8> = (0..=250).cycle().take(9 << 20).collect();
    let mut append = driver.append(&key).unwrap();
    let mut rest = bytes.as_slice();
    for part in [
        0, 1, 4095, 10_000, 2_000_000, 700_000, 12_288, 3_000_000, 5, 1_500_000,
    ] {
        let (mut part, after) = rest.split_at(part);
        append.write(part.get(..part.len() / 2).unwrap()).unwrap();
        part = part.get(part.len() / 2..).unwrap();
        while !part.is_empty() {
            let mut piece = Piece::at(append.size_bytes());
            part = piece.fill(part);
            append.write(&piece).unwrap();
        }
        rest = after;
        if rest.len().is_multiple_of(2) {
            append = driver.append(&key).unwrap();
        }
    }
    let wanted = &bytes[..bytes.len() - rest.len()];
    assert_eq!(append.size_bytes(), wanted.len() as u64);
    assert!(read(driver, &key, 16 << 20).unwrap() == wanted);

    append.truncate(1_234_567).unwrap();
    let mut piece = Piece::at(1_234_567);
    let rest = piece.fill(&wanted[1_234_567..]);
    append.write(&piece).unwrap();
    append.write(rest).unwrap();
    assert!(read(driver, &key, 16 << 20).unwrap() == wanted);
}

pub(super) fn an_append_outruns_the_disk_no_further_than_it_may(driver: &dyn Driver) {
    let key = folder("large").child("data");
    let mut append = driver.append(&key).unwrap();
    append.write(b"unaligned").unwrap();
    let large = vec![7; 1 << 20];
    for _ in 0..80 {
        append.write(&large).unwrap();
    }
    assert_eq!(append.size_bytes(), 9 + (80 << 20));
    let mut end = [0; 2];
    driver
        .open(&key, Wait::AsNeeded)
        .unwrap()
        .read_at(7 + (80 << 20), &mut end)
        .unwrap();
    assert_eq!(end, [7; 2]);
}
