//! Reply bodies: bytes at hand, or what is read or made while it is sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use oci::range::ByteRange;

use super::UnderWay;
use super::bounds::Pieces;
use super::error::Error;
use super::held::Held;
use super::lists::Pages;
use super::parts::{Part, Parts};
use crate::registry::Blob;

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
    /// Parts of an open file.
    Parts(Box<Parts>),
    /// Pages of a list, which are made one after the other.
    Pages(Box<Pages>),
    /// Many bytes in memory.
    Held(Box<Held>),
}

impl Body {
    /// Returns a body of `parts`, read from `blob` on the way.
    pub(super) fn parts(
        blob: Blob,
        parts: impl IntoIterator<Item = Part>,
        pieces: &Pieces,
    ) -> Self {
        Content::Parts(Box::new(Parts::new(blob, parts, pieces))).into()
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
        let file = parts.as_file()?;
        self.content = Content::Whole(None);
        Some(file)
    }

    /// Returns the number of bytes that are yet to be sent, where that is known.
    fn size_bytes(&self) -> Option<u64> {
        match &self.content {
            Content::Whole(content) => Some(content.as_ref().map_or(0, |it| it.len() as u64)),
            Content::Parts(parts) => Some(parts.size_bytes()),
            Content::Pages(pages) => pages.is_over().then_some(0),
            Content::Held(held) => Some(held.size_bytes()),
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

impl From<Pages> for Body {
    fn from(pages: Pages) -> Self {
        Content::Pages(Box::new(pages)).into()
    }
}

impl From<Held> for Body {
    fn from(held: Held) -> Self {
        Content::Held(Box::new(held)).into()
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

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let next = match &mut self.get_mut().content {
            Content::Whole(content) => content.take().map(Ok),
            Content::Parts(parts) => ready!(parts.poll_next(cx)),
            Content::Pages(pages) => ready!(pages.poll_next(cx)),
            Content::Held(held) => ready!(held.poll_next(cx)),
        };
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.size_bytes() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.size_bytes()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
