//! Memory that two processes share, in which one hands the other bytes: cheaper than through a socket.
//!
//! The memory has [`SLOTS`] slots. A [`Sender`] fills one and tells the [`Receiver`], in a [note] of
//! four bytes, which and how far; by what way the note goes is for the caller to see to. The receiver
//! reads where the bytes are. Once its [`Slot`] is dropped the sender hears of it, through a pipe, and
//! may fill it again. A receiver that is slow so stops the sender, and memory is bounded.
//!
//! The receiver makes the memory and offers it ([`Receiver::offer`]): two descriptors, which the
//! sender opens ([`Sender::open`]).
//!
//! **Invariant:** a slot belongs to one side at a time. Nothing but agreement keeps a sender from
//! writing to what is not its own, so a receiver that has to rely on the bytes copies them first. That
//! the memory does not shrink under a reader is sealed.
//!
//! [note]: Filling::into_note

mod memory;
mod receiver;
mod sender;

pub use receiver::{Offer, Receiver, Slot};
pub use sender::{Filling, Sender};

/// How many slots there are: enough for one to be filled while another is read.
pub const SLOTS: usize = 3;

/// How many bytes a slot holds: large enough that telling of it costs nothing beside copying it.
pub const SLOT_BYTES: usize = 512 << 10;

/// How many bytes a note has.
pub const NOTE_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn both() -> (Sender, Receiver) {
        let (receiver, offer) = Receiver::offer().unwrap();
        let [memory, freed] = offer.descriptors();
        let (memory, freed) = (memory.try_clone_to_owned(), freed.try_clone_to_owned());
        (
            Sender::open(memory.unwrap(), freed.unwrap()).unwrap(),
            receiver,
        )
    }

    #[tokio::test]
    async fn bytes_go_through_slots_that_are_used_again() {
        let (mut sender, receiver) = both();
        for number in 0..50_u8 {
            let bytes = vec![number; usize::from(number) * 10_000 + 1];
            let mut filling = sender.slot().await.unwrap();
            let rest = sender.fill(&mut filling, &bytes);
            assert!(rest.is_empty() && filling.is_full() == (bytes.len() == SLOT_BYTES));
            let slot = receiver.take(filling.into_note()).unwrap();
            assert!(*slot == bytes[..]);
        }
    }

    #[tokio::test]
    async fn a_slot_takes_what_fits() {
        let (mut sender, receiver) = both();
        let bytes: Vec<u8> = (0..=250).cycle().take(SLOT_BYTES + 77).collect();
        let mut filling = sender.slot().await.unwrap();
        assert!(sender.fill(&mut filling, &bytes[..5]).is_empty());
        assert_eq!(sender.fill(&mut filling, &bytes[5..]).len(), 77);
        assert!(filling.is_full());
        let slot = receiver.take(filling.into_note()).unwrap();
        assert!(*slot == bytes[..SLOT_BYTES]);
    }

    #[tokio::test]
    async fn who_fills_waits_for_who_reads() {
        let (mut sender, receiver) = both();
        let mut taken = Vec::new();
        for _ in 0..SLOTS {
            let mut filling = sender.slot().await.unwrap();
            sender.fill(&mut filling, b"x");
            taken.push(receiver.take(filling.into_note()).unwrap());
        }
        let patience = Duration::from_millis(50);
        let waited = tokio::time::timeout(patience, sender.slot()).await;
        assert!(waited.is_err(), "there is one slot more");
        assert!(!sender.rest().unwrap(), "all is said to be free");
        taken.remove(2);
        drop(sender.slot().await.unwrap());
        drop((receiver, taken));
        while sender.slot().await.is_ok() {}
    }

    #[tokio::test]
    async fn what_rests_takes_no_memory() {
        let (mut sender, receiver) = both();
        for _ in 0..SLOTS {
            let mut filling = sender.slot().await.unwrap();
            sender.fill(&mut filling, &vec![7; SLOT_BYTES]);
            drop(receiver.take(filling.into_note()).unwrap());
        }
        // One that is free again is filled before one that never was.
        assert_eq!(receiver.memory_bytes(), SLOT_BYTES as u64);
        assert!(sender.rest().unwrap());
        assert_eq!(receiver.memory_bytes(), 0);
        let mut filling = sender.slot().await.unwrap();
        assert!(sender.fill(&mut filling, b"again").is_empty());
        assert_eq!(*receiver.take(filling.into_note()).unwrap(), *b"again");
    }

    #[tokio::test]
    async fn a_note_that_cannot_be_is_refused() {
        let (mut sender, receiver) = both();
        let mut filling = sender.slot().await.unwrap();
        sender.fill(&mut filling, b"x");
        let note = filling.into_note();
        let slot = receiver.take(note);
        assert!(receiver.take(note).is_none(), "it was not given back");
        drop(slot);
        let too_many = u8::try_from(SLOTS).unwrap();
        for note in [[too_many, 0, 0, 1], [255; 4], [0; 4], [0, 8, 0, 1]] {
            assert!(receiver.take(note).is_none(), "{note:?}");
        }
        assert!(receiver.take([0, 8, 0, 0]).is_some());
    }

    #[tokio::test]
    async fn memory_that_may_shrink_is_not_opened() {
        let (_receiver, offer) = Receiver::offer().unwrap();
        let [_, freed] = offer.descriptors();
        let file = tempfile::tempfile().unwrap();
        file.set_len((SLOTS * SLOT_BYTES) as u64).unwrap();
        let freed = freed.try_clone_to_owned().unwrap();
        assert!(Sender::open(file.into(), freed).is_err());
    }
}
