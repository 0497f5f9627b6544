//! What goes between the edge and the registry beside HTTP, on one connection ([`oci::handover`]).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use oci::handover::{ACCEPT, FILE, SLOTS, Slots, TAKEN, write};
use slots::descriptors;

use super::body::Body;
use super::payload::Payload;
use super::stream::{Enclosure, Inbox, Outbox};

/// What a connection has been given, what has come with its last request and what goes with its next
/// reply.
#[derive(Debug, Default)]
pub(super) struct Handover {
    inbox: Inbox,
    outbox: Outbox,
    /// The memory that bodies of requests may come in.
    slots: OnceLock<slots::Receiver>,
}

/// What a request would like to have with its reply.
#[derive(Debug)]
pub(super) struct Wishes {
    file: bool,
    slots: Option<Taken>,
}

/// Memory that the edge has offered, and what takes its notes.
type Taken = (slots::Receiver, OwnedFd);

impl Handover {
    /// Returns what the connection puts in what comes with a request, and takes from what goes with a
    /// reply.
    pub(super) fn boxes(&self) -> (Inbox, Outbox) {
        (self.inbox.clone(), self.outbox.clone())
    }

    /// Takes a request apart into its head, as the client meant it, and its body, wherever that is;
    /// returns also what it would like to have.
    pub(super) fn open(&self, request: Request<Incoming>) -> (Parts, Payload, Wishes) {
        let (mut parts, incoming) = request.into_parts();
        let slots = said(&parts.headers, SLOTS).and_then(Slots::read);
        let files = self.inbox.take();
        let wishes = Wishes {
            file: said(&parts.headers, FILE) == Some(ACCEPT),
            slots: match slots {
                Some(Slots::Offered) if self.slots.get().is_none() => taken(files),
                _ => {
                    descriptors::discard(files);
                    None
                }
            },
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
            && let Ok(written) = write(part).try_into()
        {
            blob.prepare_file(part);
            let file = HeaderName::from_static(FILE);
            response.headers_mut().insert(file, written);
            self.outbox.put(Enclosure::Blob(blob));
        } else if let Some((receiver, notes)) = wishes.slots
            && self.slots.set(receiver).is_ok()
        {
            let taken = HeaderValue::from_static(TAKEN);
            let slots = HeaderName::from_static(SLOTS);
            response.headers_mut().insert(slots, taken);
            self.outbox.put(Enclosure::Notes(notes));
        }
        response
    }
}

/// Opens the memory that the edge offers.
fn taken(files: Vec<OwnedFd>) -> Option<Taken> {
    let opened = match files.try_into() {
        Ok(files) => slots::Receiver::open(files),
        Err(files) => {
            descriptors::discard(files);
            Err(io::Error::other("another number of descriptors"))
        }
    };
    // Without it, bodies come over the socket, as they do for everyone else.
    opened
        .inspect_err(|error| {
            tracing::debug!(
                error = error as &dyn std::error::Error,
                "no memory is shared with the edge"
            );
        })
        .ok()
}

fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
