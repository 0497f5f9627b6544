//! What the sender tells the receiver: that a slot was filled, and how far.

/// How many bytes a note has.
pub(crate) const NOTE_BYTES: usize = 4;

/// A slot that was filled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Note {
    pub(crate) number: u8,
    pub(crate) len: usize,
}

impl Note {
    pub(crate) fn write(self) -> [u8; NOTE_BYTES] {
        let [.., high, middle, low] = self.len.to_be_bytes();
        [self.number, high, middle, low]
    }

    pub(crate) fn read([number, high, middle, low]: [u8; NOTE_BYTES]) -> Self {
        let len = [high, middle, low].into_iter();
        let len = len.fold(0, |len, byte| len << 8 | usize::from(byte));
        Self { number, len }
    }
}
