//! Copying to what another core reads.

/// How much a core's caches take in at once.
const LINE_BYTES: usize = 64;

/// Copies all of `from`, past the caches where the processor can. The core that reads has the bytes from
/// before in its own, and to take each line from there only to write over it costs several times as
/// much as to copy.
///
/// # Safety
/// `to` must be valid for writes of as many bytes, which overlap nothing of `from`.
#[expect(unsafe_code, reason = "only the processor's own instructions do that")]
pub(crate) unsafe fn past_caches(from: &[u8], to: *mut u8) {
    // SAFETY: The parts are behind each other and as long together as `from`, so all that the caller
    // has promised for it is true for each; the lines' part is aligned.
    unsafe {
        let (head, rest) = from.split_at(to.align_offset(LINE_BYTES).min(from.len()));
        plain(head, to);
        let (lines, tail) = rest.as_chunks::<LINE_BYTES>();
        let to = to.add(head.len());
        stream(lines, to);
        plain(tail, to.add(lines.as_flattened().len()));
    }
}

/// Copies bytes that fill no line.
#[expect(unsafe_code, reason = "the memory belongs to another process, too")]
unsafe fn plain(from: &[u8], to: *mut u8) {
    // SAFETY: As the caller promises.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
}

/// Copies whole lines to where lines begin.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "only the processor's own instructions do that")]
unsafe fn stream(lines: &[[u8; LINE_BYTES]], to: *mut u8) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    let mut to = to.cast::<__m128i>();
    // SAFETY: The parts are one behind another and each as large as what is written. `to` is where a
    // line begins, and so aligned for all of them. Every processor of the kind has the instructions.
    unsafe {
        for part in lines.as_flattened().chunks_exact(size_of::<__m128i>()) {
            _mm_stream_si128(to, _mm_loadu_si128(part.as_ptr().cast()));
            to = to.add(1);
        }
        // What is told of them must not be seen before them.
        _mm_sfence();
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "the memory belongs to another process, too")]
unsafe fn stream(lines: &[[u8; LINE_BYTES]], to: *mut u8) {
    // SAFETY: As the caller promises.
    unsafe { plain(lines.as_flattened(), to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "it is told of by a pointer")]
    fn all_is_copied_and_nothing_else_touched() {
        let source: Vec<u8> = (1..=251).cycle().take(1 << 10).collect();
        for begin in 0..LINE_BYTES {
            for len in (0..300).chain([source.len() - begin]) {
                let from = &source[begin..begin + len];
                for at in [0, 1, 15, 16, 63, begin] {
                    let mut to = vec![0; 2 * source.len()];
                    // SAFETY: It has room for all of the source behind that.
                    unsafe { past_caches(from, to[at..].as_mut_ptr()) };
                    assert_eq!(to[at..at + len], *from);
                    assert!(
                        to[..at]
                            .iter()
                            .chain(&to[at + len..])
                            .all(|byte| *byte == 0)
                    );
                }
            }
        }
    }
}
