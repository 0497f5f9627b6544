//! A body that goes through memory the registry has, too; over the socket goes that it has ended.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use slots::{Filling, Sender};
use tokio::time::timeout;

use super::upload::Flush;
use super::wire::Wire;

/// What has come and was not told the registry yet.
pub(super) struct InSlots {
    sender: Sender,
    filling: Option<Filling>,
    /// What did not fit into the slot.
    rest: Bytes,
    /// Since when the registry has seen nothing of what is here.
    since: Option<Instant>,
}

impl InSlots {
    pub(super) fn new(sender: Sender) -> Self {
        Self {
            sender,
            filling: None,
            rest: Bytes::new(),
            since: None,
        }
    }

    pub(super) fn into_sender(self) -> Sender {
        self.sender
    }

    /// Takes in a piece; returns since when something waits, and whether a slot is full or wanted.
    pub(super) fn push(&mut self, piece: Option<Bytes>, now: Instant) -> (Option<Instant>, bool) {
        if let Some(piece) = piece {
            self.since.get_or_insert(now);
            self.rest = piece;
            self.fill();
        }
        let full = self.filling.as_ref().is_some_and(Filling::is_full);
        (self.since, full || !self.rest.is_empty())
    }

    /// Hands over the slots that are full, or all.
    pub(super) async fn send(
        &mut self,
        flush: Flush,
        wire: &Wire,
        patience: Duration,
    ) -> io::Result<()> {
        loop {
            let done = self.rest.is_empty();
            let goes = |filling: &mut Filling| filling.is_full() || (done && flush != Flush::Full);
            if let Some(filling) = self.filling.take_if(goes) {
                // What is left has waited for nothing but this.
                self.since = (!done).then(Instant::now);
                self.sender.send(filling)?;
            }
            if done {
                break;
            }
            if self.filling.is_none() {
                self.filling = Some(timeout(patience, self.sender.slot()).await??);
            }
            self.fill();
        }
        if flush == Flush::Last {
            let mut slices = [IoSlice::new(b"0\r\n\r\n")];
            wire.send(&mut slices, patience).await?;
        }
        Ok(())
    }

    /// Puts into the slot, if there is one, what fits.
    fn fill(&mut self) {
        if let Some(filling) = &mut self.filling {
            let left = self.sender.fill(filling, &self.rest).len();
            self.rest.advance(self.rest.len() - left);
        }
    }
}

#[cfg(test)]
mod tests {
    use slots::{Next, Receiver, SLOT_BYTES, SLOTS, Slot};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    /// A registry, and what sends to it.
    struct Rig {
        held: InSlots,
        wire: Wire,
        socket: UnixStream,
        receiver: Receiver,
    }

    fn both() -> (Receiver, Sender) {
        let (offer, files) = Sender::offer().unwrap();
        let (receiver, notes) = Receiver::open(files).unwrap();
        (receiver, offer.taken(notes).unwrap())
    }

    impl Rig {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            let wire = Wire::connect(&path, PATIENCE).await.unwrap();
            let (socket, _) = listener.accept().await.unwrap();
            let (receiver, sender) = both();
            Self {
                held: InSlots::new(sender),
                wire,
                socket,
                receiver,
            }
        }

        fn push(&mut self, piece: &[u8]) -> bool {
            let piece = Some(Bytes::copy_from_slice(piece));
            self.held.push(piece, Instant::now()).1
        }

        async fn send(&mut self, flush: Flush) -> io::Result<()> {
            self.held.send(flush, &self.wire, PATIENCE).await
        }

        fn take(&self) -> Option<Slot> {
            match self.receiver.take().unwrap() {
                Next::Slot(slot) => Some(slot),
                Next::Nothing => None,
                Next::End | Next::Gone => panic!("the sender is there, and tells no end here"),
            }
        }
    }

    #[tokio::test]
    async fn a_slot_is_told_of_when_it_is_full_or_it_is_time() {
        let mut rig = Rig::new().await;
        let content: Vec<u8> = (0..=250).cycle().take(SLOT_BYTES + 5).collect();
        let pieces = SLOT_BYTES / (16 << 10);
        for (number, piece) in content.chunks(16 << 10).enumerate() {
            let goes = rig.push(piece);
            assert_eq!(goes, number == 0 || number >= pieces - 1, "piece {number}");
            if goes {
                rig.send(Flush::Full).await.unwrap();
            }
        }
        assert!(rig.take().unwrap().to_vec() == content[..SLOT_BYTES]);
        rig.send(Flush::Full).await.unwrap();
        assert!(rig.held.push(None, Instant::now()).0.is_some(), "five wait");
        assert!(rig.take().is_none(), "they do not");
        rig.send(Flush::All).await.unwrap();
        assert!(rig.take().unwrap().to_vec() == content[SLOT_BYTES..]);
        assert_eq!(rig.held.push(None, Instant::now()), (None, false));
        rig.push(b"the last");
        rig.send(Flush::Last).await.unwrap();
        assert_eq!(rig.take().unwrap().to_vec(), b"the last");
        drop(rig.wire);
        let mut end = String::new();
        rig.socket.read_to_string(&mut end).await.unwrap();
        assert_eq!(end, "0\r\n\r\n");
        assert!(rig.held.into_sender().rest().unwrap());
    }

    #[tokio::test]
    async fn a_registry_that_gives_no_slot_back_is_waited_for_and_one_that_is_gone_is_not() {
        let mut rig = Rig::new().await;
        let mut taken = Vec::new();
        for _ in 0..SLOTS {
            rig.push(&vec![1; SLOT_BYTES]);
            rig.send(Flush::Full).await.unwrap();
            taken.push(rig.take().unwrap());
        }
        rig.push(b"more");
        let error = rig.send(Flush::Full).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        taken.pop();
        rig.send(Flush::All).await.unwrap();
        assert_eq!(rig.take().unwrap().to_vec(), b"more");
        taken.clear();
        rig.receiver = both().0;
        let error = loop {
            rig.push(b"and more");
            if let Err(error) = rig.send(Flush::All).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
