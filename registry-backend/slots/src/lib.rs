//! Memory that two processes share, in which one hands the other bytes: cheaper than through a socket.
//!
//! The memory has [`SLOTS`] slots. A [`Sender`] fills one and tells the [`Receiver`], through a pipe,
//! which and how far; whoever is to read the bytes waits for that itself, and nobody else is woken. The
//! receiver reads where the bytes are. Once its [`Slot`] is dropped the sender hears of it, through
//! another pipe, and may fill it again. A receiver that is slow so stops the sender, and memory is
//! bounded.
//!
//! The receiver makes all three and offers them ([`Receiver::offer`]), for the sender to open
//! ([`Sender::open`]). When no more will come is for the caller to find out; whoever takes the slots
//! can then be told, behind those that have come ([`Receiver::tell_end`]).
//!
//! **Invariant:** a slot belongs to one side at a time. Nothing but agreement keeps a sender from
//! writing to what is not its own, so a receiver that has to rely on the bytes copies them first. That
//! the memory does not shrink under a reader is sealed.

mod copy;
mod memory;
mod note;
mod receiver;
mod sender;

pub use receiver::{Next, Offer, Receiver, Slot};
pub use sender::{Filling, Sender};

/// How many slots there are: enough for one side to go on while the other's core does something else
/// for a millisecond or two.
pub const SLOTS: usize = 6;

/// How many bytes a slot holds: large enough that telling of it costs nothing beside copying it.
pub const SLOT_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::*;

    fn opened(offer: &Offer) -> [OwnedFd; 3] {
        offer
            .descriptors()
            .map(|descriptor| descriptor.try_clone_to_owned().unwrap())
    }

    fn both() -> (Sender, Receiver) {
        let (receiver, offer) = Receiver::offer().unwrap();
        (Sender::open(opened(&offer)).unwrap(), receiver)
    }

    /// Sends what fits into a slot.
    async fn send(sender: &mut Sender, bytes: &[u8]) {
        let mut filling = sender.slot().await.unwrap();
        assert!(sender.fill(&mut filling, bytes).is_empty());
        sender.send(filling).unwrap();
    }

    fn take(receiver: &Receiver) -> Slot {
        match receiver.take().unwrap() {
            Next::Slot(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn bytes_go_through_slots_that_are_used_again() {
        let (mut sender, receiver) = both();
        for number in 0..50_u8 {
            let bytes = vec![number; usize::from(number) * 10_000 + 1];
            send(&mut sender, &bytes).await;
            assert!(*take(&receiver) == bytes[..]);
        }
    }

    #[tokio::test]
    async fn a_slot_takes_what_fits() {
        let (mut sender, receiver) = both();
        let bytes: Vec<u8> = (0..=250).cycle().take(SLOT_BYTES + 77).collect();
        let mut filling = sender.slot().await.unwrap();
        assert!(sender.fill(&mut filling, &bytes[..5]).is_empty());
        assert!(!filling.is_full());
        assert_eq!(sender.fill(&mut filling, &bytes[5..]).len(), 77);
        assert!(filling.is_full());
        sender.send(filling).unwrap();
        assert!(*take(&receiver) == bytes[..SLOT_BYTES]);
    }

    #[tokio::test]
    async fn who_fills_waits_for_who_reads() {
        let (mut sender, receiver) = both();
        let mut taken = Vec::new();
        for _ in 0..SLOTS {
            send(&mut sender, b"x").await;
            taken.push(take(&receiver));
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
    async fn who_reads_waits_for_who_fills() {
        let (mut sender, receiver) = both();
        assert!(matches!(receiver.take().unwrap(), Next::Nothing));
        let patience = Duration::from_millis(50);
        receiver.ready_within(patience).unwrap();
        let waited = tokio::time::timeout(patience, receiver.ready()).await;
        assert!(waited.is_err(), "there is a note");
        let waiting = receiver.clone();
        let (waited, ()) = tokio::join!(waiting.ready(), send(&mut sender, b"in the runtime"));
        waited.unwrap();
        assert_eq!(*take(&receiver), *b"in the runtime");
        let waiting = receiver.clone();
        let long = Duration::from_secs(60);
        let waited = tokio::task::spawn_blocking(move || waiting.ready_within(long));
        send(&mut sender, b"on a thread").await;
        waited.await.unwrap().unwrap();
        assert_eq!(*take(&receiver), *b"on a thread");
    }

    #[tokio::test]
    async fn an_end_comes_after_what_was_sent_before() {
        let (mut sender, receiver) = both();
        send(&mut sender, b"the last").await;
        receiver.tell_end().unwrap();
        assert_eq!(*take(&receiver), *b"the last");
        assert!(matches!(receiver.take().unwrap(), Next::End));
        assert!(matches!(receiver.take().unwrap(), Next::Nothing));
    }

    #[tokio::test]
    async fn what_rests_takes_no_memory() {
        let (mut sender, receiver) = both();
        for _ in 0..SLOTS {
            send(&mut sender, &vec![7; SLOT_BYTES]).await;
            drop(take(&receiver));
        }
        // One that is free again is filled before one that never was.
        assert_eq!(receiver.memory_bytes(), SLOT_BYTES as u64);
        assert!(sender.rest().unwrap());
        assert_eq!(receiver.memory_bytes(), 0);
        send(&mut sender, b"again").await;
        assert_eq!(*take(&receiver), *b"again");
    }

    #[tokio::test]
    async fn a_note_that_cannot_be_is_refused() {
        let (receiver, offer) = Receiver::offer().unwrap();
        let [_, notes, _] = opened(&offer);
        let tell = |note: &[u8]| {
            rustix::io::write(&notes, note).unwrap();
            receiver.take()
        };
        let slot = tell(&[0, 0, 0, 1]).unwrap();
        assert!(tell(&[0, 0, 0, 1]).is_err(), "it was not given back");
        drop(slot);
        let too_many = u8::try_from(SLOTS).unwrap();
        for note in [&[too_many, 0, 0, 1][..], &[0; 4], &[0, 8, 0, 1], &[0, 0]] {
            assert!(tell(note).is_err(), "{note:?}");
        }
        assert!(matches!(tell(&[0, 8, 0, 0]), Ok(Next::Slot(_))));
    }

    #[tokio::test]
    async fn memory_that_may_shrink_is_not_opened() {
        let (_receiver, offer) = Receiver::offer().unwrap();
        let [_, notes, freed] = opened(&offer);
        let file = tempfile::tempfile().unwrap();
        file.set_len((SLOTS * SLOT_BYTES) as u64).unwrap();
        assert!(Sender::open([file.into(), notes, freed]).is_err());
    }

    #[tokio::test]
    async fn pipes_that_are_none_or_go_the_other_way_are_not_opened() {
        let (_receiver, offer) = Receiver::offer().unwrap();
        let [memory, notes, freed] = opened(&offer);
        assert!(Sender::open([memory, freed, notes]).is_err());
        let [memory, _, freed] = opened(&offer);
        let file = tempfile::tempfile().unwrap();
        assert!(Sender::open([memory, file.into(), freed]).is_err());
    }
}
