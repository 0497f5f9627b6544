//! A body in slots, as the thread that hashes takes it.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::Duration;

use slots::{Next, Receiver};

use super::hash::Part;
use crate::http::error::Error;
use crate::http::half::Source;
use crate::registry::Piece;

/// What is left of a body.
#[derive(Debug)]
pub(super) struct InSlots {
    /// What comes before the slots.
    gathered: VecDeque<Piece>,
    receiver: Receiver,
    /// How many bytes may come in them.
    left: u64,
    /// Whether that was all, or more than may come.
    over: bool,
}

impl InSlots {
    pub(super) fn new(gathered: VecDeque<Piece>, receiver: Receiver, left: u64) -> Self {
        Self {
            gathered,
            receiver,
            left,
            over: false,
        }
    }
}

impl Source for InSlots {
    type Piece = Part;

    async fn next(&mut self) -> Result<Option<Part>, Error> {
        loop {
            if let Poll::Ready(next) = self.try_next()? {
                return Ok(next);
            }
            self.receiver.ready().await.map_err(Error::Slots)?;
        }
    }

    fn try_next(&mut self) -> Result<Poll<Option<Part>>, Error> {
        if let Some(piece) = self.gathered.pop_front() {
            return Ok(Poll::Ready(Some(Part::Piece(piece))));
        }
        if self.over {
            return Ok(Poll::Ready(None));
        }
        match self.receiver.take().map_err(Error::Slots)? {
            Next::Slot(slot) => {
                match self.left.checked_sub(slot.len() as u64) {
                    Some(left) => self.left = left,
                    None => self.over = true,
                }
                Ok(Poll::Ready(Some(Part::Slot(slot))))
            }
            Next::Nothing => Ok(Poll::Pending),
            Next::End | Next::Gone => {
                self.over = true;
                Ok(Poll::Ready(None))
            }
        }
    }

    fn wait(&mut self, time: Duration) -> Result<(), Error> {
        self.receiver.ready_within(time).map_err(Error::Slots)
    }
}
