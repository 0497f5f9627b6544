//! What goes between the edge and the registry beside HTTP, on one connection ([`oci::handover`]).

use std::sync::OnceLock;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use oci::handover::{ACCEPT, FILE, OFFERED, SLOTS, Slots, write};

use super::body::Body;
use super::payload::Payload;
use super::stream::{Enclosure, Outbox};

/// What a connection has been given, and what goes with its next reply.
#[derive(Debug, Default)]
pub(super) struct Handover {
    outbox: Outbox,
    /// The memory that bodies of requests may come in.
    slots: OnceLock<slots::Receiver>,
}

/// What a request would like to have with its reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    file: bool,
    slots: bool,
}

impl Handover {
    pub(super) fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// Takes a request apart into its head, as the client meant it, and its body, wherever that is;
    /// returns also what it would like to have.
    pub(super) fn open(&self, request: Request<Incoming>) -> (Parts, Payload, Wishes) {
        let (mut parts, incoming) = request.into_parts();
        let slots = said(&parts.headers, SLOTS).and_then(Slots::read);
        let wishes = Wishes {
            file: said(&parts.headers, FILE) == Some(ACCEPT),
            slots: slots == Some(Slots::Wanted),
        };
        let Some(Slots::Body(length)) = slots else {
            return (parts, Payload::new(incoming), wishes);
        };
        if let Some(length) = length {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        let payload = Payload::in_slots(incoming, self.slots.get().cloned());
        (parts, payload, wishes)
    }

    /// Encloses with a reply what was wished for.
    pub(super) fn enclose(&self, wishes: Wishes, mut response: Response<Body>) -> Response<Body> {
        if wishes.file
            && let Some((blob, part)) = response.body_mut().take_file()
            && let Ok(part) = write(part).try_into()
        {
            let file = HeaderName::from_static(FILE);
            response.headers_mut().insert(file, part);
            self.outbox.put(Enclosure::Blob(blob));
        } else if wishes.slots && self.slots.get().is_none() {
            self.offer(&mut response);
        }
        response
    }

    fn offer(&self, response: &mut Response<Body>) {
        match slots::Receiver::offer() {
            Ok((receiver, offer)) => {
                self.slots.get_or_init(|| receiver);
                let offered = HeaderValue::from_static(OFFERED);
                let slots = HeaderName::from_static(SLOTS);
                response.headers_mut().insert(slots, offered);
                self.outbox.put(Enclosure::Slots(offer));
            }
            // Bodies then come over the socket, as they do for everyone else.
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "no memory to share with the edge"
            ),
        }
    }
}

fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
