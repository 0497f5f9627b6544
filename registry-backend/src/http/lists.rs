//! Lists of names as bodies: made page by page while they are sent.
//!
//! A page is made when the client has taken the last one, on a thread that may block, with one of the
//! permits for that, which is given back before the page is sent. So any number of lists can be under
//! way, each holds one page at most while its client takes nothing, and they take few threads from
//! those who push.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{Response, StatusCode};
use oci::{RepositoryName, Visibility};
use permits::Permit;

use super::body::Body;
use super::bounds::{Bounds, PIECE_MIN_BYTES};
use super::error::Error;
use super::gate::Gate;
use super::pages::link;
use super::principal::principal;
use super::reply;
use super::router::Call;
use super::shelf::Ticket;
use crate::registry::{self, Listing, Page, Principal, Registry, TagRun};

/// What is listed.
#[derive(Debug)]
pub(super) enum Names {
    /// The tags of a repository.
    Tags {
        repository: RepositoryName,
        /// For what was read on the way to a page, for those that follow.
        ticket: Option<Ticket>,
    },
    /// The repositories that can be seen.
    Repositories { visible: Option<Visibility> },
}

/// A list, and what of it is still to come.
#[derive(Debug)]
struct List {
    names: Names,
    rest: Page,
    registry: Arc<Registry>,
    bounds: Arc<Bounds>,
    principal: Principal,
    /// From when on what it names is as it was.
    begun: Instant,
}

/// Some of a list, as JSON.
struct Made {
    text: String,
    room: Option<Permit>,
    /// The name after which another request would go on.
    end: Option<String>,
    /// What is still to come.
    list: Option<Box<List>>,
}

/// Lists `names` as JSON that begins with `opening`. Where they are found by another request, too,
/// that goes to `path`.
pub(super) async fn list(
    call: &Call<'_>,
    names: Names,
    page: Page,
    opening: String,
    path: &str,
) -> Result<Response<Body>, Error> {
    let size_max = page.size_max;
    let list = Box::new(List {
        names,
        rest: page,
        registry: Arc::clone(call.registry),
        bounds: Arc::clone(call.bounds),
        principal: principal(&call.parts.headers),
        begun: Instant::now(),
    });
    // While it waits for its turn, a list that nobody waits for any more is given up.
    let made = call.client.unless_gone(list.make(Some(opening))).await??;
    let link = link(path, size_max, made.end.as_deref());
    let body = match made.list {
        None => Body::from(made.text),
        Some(_) => Pages::new(made, path).into(),
    };
    Ok(reply::json(StatusCode::OK, link, body))
}

impl List {
    /// Makes the next page; the JSON of the first one begins with `opening`.
    async fn make(self: Box<Self>, opening: Option<String>) -> Result<Made, Error> {
        let turn = self.bounds.lists.acquire(self.principal.clone(), 1).await;
        let bounds = Arc::clone(&self.bounds);
        let work = move || {
            let made = self.make_now(opening);
            drop(turn);
            made
        };
        bounds.large_reads.run(work).await
    }

    fn make_now(mut self: Box<Self>, opening: Option<String>) -> Result<Made, registry::Error> {
        let (bytes_max, mut room) = self.bounds.pieces.room();
        self.rest.bytes_max = bytes_max;
        let mut read = None;
        let mut listing = match &mut self.names {
            Names::Tags { repository, .. } => {
                // What others have read since this list began does as well.
                let shelf = &self.bounds.names;
                let known = shelf.find(repository, self.rest.last.as_deref(), self.begun);
                let (known, read_at) = (known.filter(|_| opening.is_none()), Instant::now());
                let tags = self.registry.tags(repository, &self.rest, known.clone());
                let (listing, run) = match tags {
                    // They were all removed, which is no reason to break off.
                    Err(registry::Error::RepositoryUnknown { .. }) if opening.is_none() => {
                        (Listing::default(), None)
                    }
                    tags => tags.map(|(listing, run)| (listing, Some(run)))?,
                };
                let is_new = |run: &Arc<TagRun>| known.is_none_or(|it| !Arc::ptr_eq(&it, run));
                read = run.filter(is_new).map(|run| (run, read_at));
                listing
            }
            Names::Repositories { visible } => {
                self.registry.catalog(&self.rest, visible.as_ref())?
            }
        };
        let mut end = listing.end.take();
        if opening.is_none() && matches!(self.names, Names::Tags { .. }) {
            // Whether there are more than were asked for was decided, and said in the head, at the
            // beginning: all that are left belong to this answer.
            end = None;
        }
        let goes_on = self.goes_on(&listing, end.as_deref());
        if let Some((run, read_at)) = read.filter(|_| goes_on) {
            self.share(run, read_at);
        }
        let mut is_first = opening.is_some();
        let mut text = opening.unwrap_or_default();
        text.reserve_exact(listing.bytes + CLOSING.len());
        for name in &listing.names {
            // No name has a character that JSON would escape.
            text.push_str(if is_first { "\"" } else { ",\"" });
            text.push_str(name);
            text.push('"');
            is_first = false;
        }
        if !goes_on {
            text.push_str(CLOSING);
        }
        if text.len() <= PIECE_MIN_BYTES {
            room = None;
        }
        let list = goes_on.then(|| {
            self.advance(listing, end.clone());
            self
        });
        Ok(Made {
            text,
            room,
            end,
            list,
        })
    }

    /// Puts names that were read where the pages that follow, and other lists, find them.
    fn share(&mut self, run: Arc<TagRun>, read_at: Instant) {
        let principal = self.principal.clone();
        if let Names::Tags { repository, ticket } = &mut self.names {
            let shelf = &self.bounds.names;
            *ticket = Some(shelf.put(principal, repository, run, read_at));
        }
    }

    /// Returns whether names that belong to this answer come after those of `listing`.
    fn goes_on(&self, listing: &Listing, end: Option<&str>) -> bool {
        let last = listing.names.last().map(String::as_str);
        let is_enough = self
            .rest
            .size_max
            .is_some_and(|max| listing.names.len() >= max);
        listing.more && !is_enough && last != end
    }

    /// Sets out what is to come after `listing`.
    fn advance(&mut self, mut listing: Listing, end: Option<String>) {
        let count = listing.names.len();
        self.rest.last = listing.names.pop();
        match self.names {
            Names::Tags { .. } => {
                self.rest.size_max = self.rest.size_max.map(|max| max.saturating_sub(count));
            }
            Names::Repositories { .. } => {
                // Those that were counted.
                self.rest.size_max = None;
                self.rest.until = self.rest.until.take().or(end);
            }
        }
    }
}

const CLOSING: &str = "]}";

/// The body of a list that has more than one page.
pub(super) struct Pages {
    state: State,
    gate: Gate,
    path: Box<str>,
    registry: Option<Box<str>>,
}

enum State {
    /// A page waits to be sent.
    Made(Made),
    /// The next page is being made.
    Making(Pin<Box<dyn Future<Output = Result<Made, Error>> + Send>>),
    /// The last page was sent.
    Over,
}

impl Pages {
    fn new(first: Made, path: &str) -> Self {
        let name = first.list.as_ref().and_then(|list| list.registry.name());
        Self {
            registry: name.map(Box::from),
            state: State::Made(first),
            gate: Gate::default(),
            path: path.into(),
        }
    }

    /// Returns whether all was sent.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Returns the next page, once the client has taken the last one.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        ready!(self.gate.poll_open(cx));
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Made(made) => {
                    if let Some(list) = made.list {
                        self.state = State::Making(Box::pin(list.make(None)));
                    }
                    let piece = self.gate.let_go(made.text.into_bytes(), made.room);
                    return Poll::Ready(Some(Ok(piece)));
                }
                State::Making(mut making) => match making.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = State::Making(making);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(made)) => self.state = State::Made(made),
                    Poll::Ready(Err(error)) => {
                        tracing::error!(
                            registry = self.registry,
                            path = %self.path,
                            error = &error as &dyn std::error::Error,
                            "list broken off"
                        );
                        return Poll::Ready(Some(Err(error)));
                    }
                },
            }
        }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
