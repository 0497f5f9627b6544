//! The body of a request.

use std::ops::Deref;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use slots::{NOTE_BYTES, Receiver, Slot};

use super::error::Error;

/// How long a body that nobody wants is read after the reply.
const DISCARD_TIME: Duration = Duration::from_secs(30);

/// The body of a request, read piece by piece.
#[derive(Debug)]
pub(super) struct Payload {
    incoming: Incoming,
    /// Where the bytes are, when what comes in are notes.
    slots: Option<Notes>,
    /// Whether the client was told, by reading, that its body is wanted.
    begun: bool,
}

/// Some bytes of a body.
#[derive(Debug)]
pub(super) enum Data {
    /// As they came over the socket.
    Bytes(Bytes),
    /// In memory that the edge has filled, and fills again when this is dropped.
    Slot(Slot),
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Slot(slot) => slot,
        }
    }
}

impl Payload {
    /// Returns a body that comes over the socket.
    pub(super) fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            slots: None,
            begun: false,
        }
    }

    /// Returns a body of which notes come over the socket; of a connection without `receiver` there
    /// cannot be any.
    pub(super) fn in_slots(incoming: Incoming, receiver: Option<Receiver>) -> Self {
        Self {
            slots: Some(Notes::new(receiver)),
            ..Self::new(incoming)
        }
    }

    /// Returns the next bytes, or nothing at the end.
    ///
    /// # Errors
    /// [`Error::BodyCut`] when the connection breaks off, [`Error::SlotInvalid`].
    pub(super) async fn next(&mut self) -> Result<Option<Data>, Error> {
        self.begun = true;
        loop {
            if let Some(notes) = &mut self.slots
                && let Some(slot) = notes.next()?
            {
                return Ok(Some(Data::Slot(slot)));
            }
            let Some(frame) = self.incoming.frame().await else {
                return self.end().map(|()| None);
            };
            let frame = frame.map_err(|source| Error::BodyCut { source })?;
            let Ok(data) = frame.into_data() else {
                continue; // trailers, which nobody reads
            };
            match &mut self.slots {
                Some(notes) => notes.came.extend_from_slice(&data),
                None => return Ok(Some(Data::Bytes(data))),
            }
        }
    }

    fn end(&self) -> Result<(), Error> {
        match &self.slots {
            Some(notes) if !notes.came.is_empty() => Err(Error::SlotInvalid),
            _ => Ok(()),
        }
    }

    /// Reads and drops what is left, for a while: a client that is busy sending may not look for the
    /// reply before it is done. One that `asked_first` and was not answered sends nothing.
    pub(super) fn discard(mut self, asked_first: bool) {
        if self.incoming.is_end_stream() || (asked_first && !self.begun) {
            return;
        }
        let rest = async move { while let Ok(Some(_)) = self.next().await {} };
        tokio::spawn(tokio::time::timeout(DISCARD_TIME, rest));
    }
}

/// Notes of where the bytes are.
#[derive(Debug)]
struct Notes {
    receiver: Option<Receiver>,
    /// Those that have come, the last one perhaps in part.
    came: BytesMut,
}

impl Notes {
    fn new(receiver: Option<Receiver>) -> Self {
        Self {
            receiver,
            came: BytesMut::new(),
        }
    }

    /// Takes what the next note is about, if one has come.
    fn next(&mut self) -> Result<Option<Slot>, Error> {
        let Some(note) = self.came.first_chunk::<NOTE_BYTES>() else {
            return Ok(None);
        };
        let slot = self.receiver.as_ref().and_then(|it| it.take(*note));
        self.came.advance(NOTE_BYTES);
        slot.ok_or(Error::SlotInvalid).map(Some)
    }
}
