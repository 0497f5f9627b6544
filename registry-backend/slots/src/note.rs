//! What goes through the pipe from the sender to the receiver.

/// How many bytes a note has: few enough for the system to write and read them at once.
pub(crate) const NOTE_BYTES: usize = 4;

/// The number that is no slot's.
const END: u8 = u8::MAX;

/// What a note says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Note {
    /// A slot was filled, so far.
    Slot { number: u8, len: usize },
    /// No more slots will be.
    End,
}

impl Note {
    pub(crate) fn write(self) -> [u8; NOTE_BYTES] {
        let (number, len) = match self {
            Self::Slot { number, len } => (number, len),
            Self::End => (END, 0),
        };
        let [.., high, middle, low] = len.to_be_bytes();
        [number, high, middle, low]
    }

    pub(crate) fn read([number, high, middle, low]: [u8; NOTE_BYTES]) -> Self {
        if number == END {
            return Self::End;
        }
        let len = [high, middle, low].into_iter();
        let len = len.fold(0, |len, byte| len << 8 | usize::from(byte));
        Self::Slot { number, len }
    }
}
