//! Reply bodies: bytes at hand, or parts of a blob that are read while they are sent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use oci::range::ByteRange;
use tokio::task::JoinHandle;

use super::UnderWay;
use crate::registry::{self, Blob};

/// How much is read at once. One such piece is being sent while the next is being read, so a
/// download holds two of them, whatever the size of the blob.
const PIECE_BYTES: u64 = 512 << 10;

/// The body of a reply.
#[derive(Debug)]
pub(super) struct Body {
    content: Content,
    _under_way: Option<UnderWay>,
}

#[derive(Debug)]
enum Content {
    /// Bytes at hand.
    Whole(Option<Bytes>),
    /// Parts of a blob.
    Parts(Box<Parts>),
}

/// What a body is made of, in order.
#[derive(Debug)]
pub(super) enum Part {
    /// Bytes at hand.
    Text(Bytes),
    /// A part of the blob.
    Range(ByteRange),
}

/// Parts of a blob, and where the reading of them stands.
#[derive(Debug)]
pub(super) struct Parts {
    blob: Blob,
    rest: VecDeque<Part>,
    reading: Option<JoinHandle<Result<Bytes, registry::Error>>>,
    size_bytes: u64,
}

impl Body {
    /// Returns a body of `parts`, read from `blob` on the way.
    pub(super) fn parts(blob: Blob, parts: impl IntoIterator<Item = Part>) -> Self {
        let rest: VecDeque<Part> = parts.into_iter().collect();
        let size_bytes = rest.iter().map(Part::size_bytes).sum();
        Content::Parts(Box::new(Parts {
            blob,
            rest,
            reading: None,
            size_bytes,
        }))
        .into()
    }

    /// Keeps `under_way` until the body is sent, or given up.
    pub(super) fn keeping(mut self, under_way: UnderWay) -> Self {
        self._under_way = Some(under_way);
        self
    }

    /// Takes out the one part of an open file that the body is, where it is that and nothing else.
    pub(super) fn take_file(&mut self) -> Option<(Blob, ByteRange)> {
        let Content::Parts(parts) = &self.content else {
            return None;
        };
        let [Part::Range(range)] = *parts.rest.as_slices().0 else {
            return None;
        };
        if parts.reading.is_some() {
            return None;
        }
        let blob = parts.blob.clone();
        blob.as_file()?;
        self.content = Content::Whole(None);
        Some((blob, range))
    }

    /// Returns the number of bytes that are yet to be sent.
    fn size_bytes(&self) -> u64 {
        match &self.content {
            Content::Whole(content) => content.as_ref().map_or(0, |content| content.len() as u64),
            Content::Parts(parts) => parts.size_bytes,
        }
    }
}

impl From<Content> for Body {
    fn from(content: Content) -> Self {
        Self {
            content,
            _under_way: None,
        }
    }
}

impl From<&'static str> for Body {
    fn from(content: &'static str) -> Self {
        Bytes::from_static(content.as_bytes()).into()
    }
}

impl From<Bytes> for Body {
    fn from(content: Bytes) -> Self {
        Content::Whole(Some(content).filter(|content| !content.is_empty())).into()
    }
}

impl From<String> for Body {
    fn from(content: String) -> Self {
        Bytes::from(content).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(content: Vec<u8>) -> Self {
        Bytes::from(content).into()
    }
}

impl Part {
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Range(range) => range.size_bytes(),
        }
    }
}

impl Parts {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, registry::Error>>> {
        if let Some(Part::Text(_)) = self.rest.front()
            && self.reading.is_none()
            && let Some(Part::Text(text)) = self.rest.pop_front()
        {
            return Poll::Ready(Some(Ok(text)));
        }
        if self.reading.is_none() {
            self.read_ahead();
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let result = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        self.read_ahead();
        Poll::Ready(result.ok())
    }

    /// Starts to read the next piece, if one of the blob is next.
    fn read_ahead(&mut self) {
        let Some(Part::Range(range)) = self.rest.front_mut() else {
            return;
        };
        let offset = range.first;
        let len = range.size_bytes().min(PIECE_BYTES);
        if len == range.size_bytes() {
            self.rest.pop_front();
        } else {
            range.first += len;
        }
        let blob = self.blob.clone();
        self.reading = Some(tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(len).unwrap_or(0)];
            blob.read_at(offset, &mut piece)?;
            Ok(piece.into())
        }));
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = registry::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, registry::Error>>> {
        match &mut self.get_mut().content {
            Content::Whole(content) => Poll::Ready(content.take().map(|all| Ok(Frame::data(all)))),
            Content::Parts(parts) => {
                let next = ready!(parts.poll_next(cx));
                match &next {
                    Some(Ok(piece)) => parts.size_bytes -= piece.len() as u64,
                    Some(Err(error)) => tracing::error!(
                        error = error as &dyn std::error::Error,
                        "blob could not be read to its end"
                    ),
                    None => {}
                }
                Poll::Ready(next.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.size_bytes() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size_bytes())
    }
}
