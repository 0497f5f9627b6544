//! The body of a request.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::error::Error;

/// How long a body that nobody wants is read after the reply.
const DISCARD_TIME: Duration = Duration::from_secs(30);

/// The body of a request, read piece by piece.
#[derive(Debug)]
pub(super) struct Payload {
    incoming: Incoming,
    /// Whether the client was told, by reading, that its body is wanted.
    begun: bool,
}

impl Payload {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            begun: false,
        }
    }

    /// Returns the next bytes, or nothing at the end.
    ///
    /// # Errors
    /// [`Error::BodyCut`] when the connection breaks off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.begun = true;
        while let Some(frame) = self.incoming.frame().await {
            let frame = frame.map_err(|source| Error::BodyCut { source })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            } // else trailers, which nobody reads
        }
        Ok(None)
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
