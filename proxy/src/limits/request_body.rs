//! A request's body counted against the site's limit.

use bytes::Bytes;

/// The body of one request.
#[derive(Debug, Default)]
pub(crate) struct RequestBody {
    max: Option<u64>,
    seen: u64,
}

/// Says that a body is longer than it may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TooLarge {
    /// How long it may be.
    pub(crate) max: u64,
}

impl RequestBody {
    /// Begins a body of `max` bytes at most.
    pub(crate) fn new(max: Option<u64>) -> Self {
        Self { max, seen: 0 }
    }

    /// Refuses a body whose announced length is too much, before any of it is sent.
    pub(crate) fn announce(&self, length: u64) -> Result<(), TooLarge> {
        match self.max {
            Some(max) if length > max => Err(TooLarge { max }),
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a piece.
    pub(crate) fn pass(&mut self, piece: Option<&Bytes>) -> Result<(), TooLarge> {
        self.seen += piece.map_or(0, |piece| piece.len() as u64);
        self.announce(self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_what_is_announced_and_what_comes() {
        let mut body = RequestBody::new(Some(10));
        assert_eq!(body.announce(10), Ok(()));
        assert_eq!(body.announce(11), Err(TooLarge { max: 10 }));
        assert_eq!(body.pass(Some(&Bytes::from_static(b"1234567890"))), Ok(()));
        assert_eq!(body.pass(None), Ok(()));
        let more = Bytes::from_static(b"1");
        assert_eq!(body.pass(Some(&more)), Err(TooLarge { max: 10 }));
        let mut body = RequestBody::new(None);
        assert_eq!(body.announce(u64::MAX), Ok(()));
        assert_eq!(body.pass(Some(&more)), Ok(()));
    }
}
