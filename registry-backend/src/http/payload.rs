//! The body of a request.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use slots::{Next, Receiver, Slot};
use tokio::task::coop::consume_budget;

use super::error::Error;

/// How long a body that nobody wants is read after the reply.
const DISCARD_TIME: Duration = Duration::from_secs(30);

/// The body of a request, read piece by piece.
#[derive(Debug)]
pub(super) struct Payload {
    incoming: Incoming,
    way: Way,
    /// Whether the client was told, by reading, that its body is wanted.
    begun: bool,
}

/// The way a body comes.
#[derive(Debug)]
enum Way {
    /// Over the socket.
    Socket,
    /// In slots; nothing but the end comes over the socket.
    Slots(Slots),
    /// In slots, it is said, on a connection that has none.
    Nowhere,
}

/// How a body that comes in slots stands.
#[derive(Debug)]
enum State {
    /// More of it will be told of.
    Open,
    /// It ended well; there may still be slots to be taken.
    Ended,
    /// All were taken, and it ended well: what is told of from then on is another body's.
    Over,
    /// It ended badly, which is told once; there may still be slots to be taken.
    Failed(Option<Error>),
}

/// Slots that a body comes in.
#[derive(Debug)]
struct Slots {
    receiver: Receiver,
    state: State,
}

/// Some bytes of a body.
#[derive(Debug)]
pub(super) enum Data {
    /// As they came over the socket.
    Bytes(Bytes),
    /// In memory that the edge has filled, and fills again when this is dropped.
    Slot(Slot),
}

impl Data {
    /// Returns how many bytes there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Slot(slot) => slot.len(),
        }
    }

    /// Copies the bytes from the first `at` on, as many as `to` takes.
    ///
    /// # Panics
    /// When there are not as many.
    pub(super) fn copy_to(&self, at: usize, to: &mut [u8]) {
        match self {
            Self::Bytes(bytes) => {
                let part = bytes.get(at..at + to.len());
                to.copy_from_slice(part.expect("invariant: no more is copied than there is"));
            }
            Self::Slot(slot) => slot.copy_to(at, to),
        }
    }

    /// Appends the bytes to `content`.
    pub(super) fn append_to(&self, content: &mut Vec<u8>) {
        let begin = content.len();
        content.resize(begin + self.len(), 0);
        let (_, to) = content.split_at_mut(begin);
        self.copy_to(0, to);
    }
}

impl Payload {
    /// Returns a body that comes over the socket.
    pub(super) fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            way: Way::Socket,
            begun: false,
        }
    }

    /// Returns a body that comes in the slots of `receiver`.
    pub(super) fn in_slots(incoming: Incoming, receiver: Option<Receiver>) -> Self {
        let way = receiver.map_or(Way::Nowhere, |receiver| {
            Way::Slots(Slots {
                receiver,
                state: State::Open,
            })
        });
        Self {
            way,
            ..Self::new(incoming)
        }
    }

    /// Returns the next bytes, or nothing at the end.
    ///
    /// # Errors
    /// [`Error::BodyCut`] when the connection breaks off, [`Error::Slots`].
    pub(super) async fn next(&mut self) -> Result<Option<Data>, Error> {
        self.begun = true;
        match &mut self.way {
            Way::Socket => Ok(next_bytes(&mut self.incoming).await?.map(Data::Bytes)),
            Way::Slots(slots) => {
                let slot = slots.next(end(&mut self.incoming)).await?;
                Ok(slot.map(Data::Slot))
            }
            Way::Nowhere => Err(invalid("there are none")),
        }
    }

    /// Lends the slots that are still to come, if the body comes in some, for another to take them.
    pub(super) fn lend(&mut self) -> Option<Lent<'_>> {
        match &mut self.way {
            Way::Slots(slots) => Some(Lent {
                slots,
                incoming: &mut self.incoming,
            }),
            Way::Socket | Way::Nowhere => None,
        }
    }

    /// Returns whether another body can come on the same connection: not while somebody could take
    /// its slots for those of this one.
    pub(super) fn leaves_room(&self) -> bool {
        match &self.way {
            Way::Socket => true,
            Way::Slots(slots) => slots.is_over(),
            Way::Nowhere => false,
        }
    }

    /// Reads and drops what is left, for a while: a client that is busy sending may not look for the
    /// reply before it is done. One that `asked_first` and was not answered sends nothing.
    pub(super) fn discard(mut self, asked_first: bool) {
        let is_over = match &self.way {
            Way::Slots(slots) => slots.is_over(),
            Way::Socket | Way::Nowhere => self.incoming.is_end_stream(),
        };
        if is_over || (asked_first && !self.begun) {
            return;
        }
        let rest = async move { while let Ok(Some(_)) = self.next().await {} };
        tokio::spawn(tokio::time::timeout(DISCARD_TIME, rest));
    }
}

/// Slots that another takes than who reads the body.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    slots: &'a mut Slots,
    incoming: &'a mut Incoming,
}

impl Lent<'_> {
    /// Returns what gives the slots.
    pub(super) fn receiver(&self) -> Receiver {
        self.slots.receiver.clone()
    }

    /// Waits for the body's end; all slots were told of by then.
    ///
    /// # Errors
    /// As [`Payload::next`].
    pub(super) async fn end(&mut self) -> Result<(), Error> {
        self.slots.end(end(self.incoming)).await
    }

    /// Takes them back: all were taken, up to the end, which was a good one.
    pub(super) fn all_taken(self) {
        self.slots.state = State::Over;
    }
}

impl Slots {
    fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Takes the next one, until the body has `ended`.
    async fn next(&mut self, ended: impl Future<Output = End>) -> Result<Option<Slot>, Error> {
        let mut ended = pin!(ended);
        while !self.is_over() {
            // An edge that sends faster than it is read must not have this thread for itself.
            consume_budget().await;
            let is_gone = match self.receiver.take().map_err(Error::Slots)? {
                Next::Slot(slot) => return Ok(Some(slot)),
                Next::End => return Err(invalid("an end that nobody told")),
                Next::Nothing => false,
                Next::Gone => true,
            };
            // All were told of before the end: if that was known before this look, there are no more.
            match &mut self.state {
                State::Open if is_gone => self.state = (&mut ended).await.into(),
                State::Open => tokio::select! {
                    ready = self.receiver.ready() => ready.map_err(Error::Slots)?,
                    end = &mut ended => self.state = end.into(),
                },
                State::Ended => self.state = State::Over,
                State::Failed(error) => return Err(told(error)),
                State::Over => {}
            }
        }
        Ok(None)
    }

    /// Waits until the body has `ended`.
    async fn end(&mut self, ended: impl Future<Output = End>) -> End {
        if matches!(self.state, State::Open) {
            self.state = ended.await.into();
        }
        match &mut self.state {
            State::Failed(error) => Err(told(error)),
            State::Open | State::Ended | State::Over => Ok(()),
        }
    }
}

/// How a body ended.
type End = Result<(), Error>;

impl From<End> for State {
    fn from(end: End) -> Self {
        match end {
            Ok(()) => Self::Ended,
            Err(error) => Self::Failed(Some(error)),
        }
    }
}

fn told(error: &mut Option<Error>) -> Error {
    error.take().unwrap_or_else(|| invalid("they have failed"))
}

/// Reads the next bytes, past trailers, which nobody wants.
async fn next_bytes(incoming: &mut Incoming) -> Result<Option<Bytes>, Error> {
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|source| Error::BodyCut { source })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Waits for the end of a body that comes in slots.
async fn end(incoming: &mut Incoming) -> End {
    match next_bytes(incoming).await? {
        Some(_bytes) => Err(invalid("bytes beside them")),
        None => Ok(()),
    }
}

fn invalid(reason: &'static str) -> Error {
    Error::Slots(io::Error::other(reason))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use slots::Sender;

    use super::*;

    fn both() -> (Sender, Receiver) {
        let (offer, files) = Sender::offer().unwrap();
        let (receiver, notes) = Receiver::open(files).unwrap();
        (offer.taken(notes).unwrap(), receiver)
    }

    async fn send(sender: &mut Sender, bytes: &[u8]) {
        let mut filling = sender.slot().await.unwrap();
        assert!(sender.fill(&mut filling, bytes).is_empty());
        sender.send(filling).unwrap();
    }

    /// Whoever has answered may be scheduled so late that the next body is there.
    #[tokio::test]
    async fn what_is_told_of_after_the_end_is_another_bodys() {
        let (mut sender, receiver) = both();
        let mut slots = Slots {
            receiver,
            state: State::Open,
        };
        send(&mut sender, b"one").await;
        let slot = slots.next(pending()).await.unwrap();
        assert_eq!(slot.as_ref().unwrap().to_vec(), b"one");
        send(&mut sender, b"two").await;
        slots.end(ready(Ok(()))).await.unwrap();
        assert!(!slots.is_over(), "one is left");
        let slot = slots.next(pending()).await.unwrap();
        assert_eq!(slot.as_ref().unwrap().to_vec(), b"two");
        assert!(slots.next(pending()).await.unwrap().is_none());
        assert!(slots.is_over());
        send(&mut sender, b"of another").await;
        assert!(slots.next(pending()).await.unwrap().is_none());
        assert!(matches!(slots.receiver.take().unwrap(), Next::Slot(_)));
    }

    #[tokio::test]
    async fn a_body_that_did_not_end_well_is_never_over() {
        let (_sender, receiver) = both();
        let mut slots = Slots {
            receiver,
            state: State::Open,
        };
        for _ in 0..2 {
            let ended = slots.next(ready(Err(invalid("for a test")))).await;
            ended.unwrap_err();
            assert!(!slots.is_over());
        }
    }

    #[tokio::test]
    async fn a_flood_of_slots_leaves_a_turn_to_others() {
        let (_offer, files) = Sender::offer().unwrap();
        let (receiver, notes) = Receiver::open(files).unwrap();
        let mut slots = Slots {
            receiver,
            state: State::Open,
        };
        let mut sent = 0;
        while rustix::io::write(&notes, &[0, 0, 0, 1]).is_ok() {
            sent += 1;
        }
        let mut taken = 0;
        let drained = async {
            while let Ok(Some(_)) = slots.next(pending()).await {
                taken += 1;
            }
        };
        tokio::select! {
            biased;
            () = drained => panic!("it is over"),
            () = ready(()) => {}
        }
        assert!(taken < sent, "all {sent} were taken at once");
    }
}
