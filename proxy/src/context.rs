//! What one request carries from step to step.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use instruments::RouteClass;

use crate::auth::Principal;
use crate::certified::Certified;
use crate::filter::forwarded::Origin;
use crate::filter::host::Host;
use crate::in_flight::Guard;
use crate::limits::pace::Pace;
use crate::limits::quota::Place;
use crate::limits::request_body::RequestBody;
use crate::respond::{Audience, Rejection};
use crate::site::{Admission, Site};
use crate::state::State;
use crate::telemetry::access_log::Fault;

/// One request, from its head to its line in the access log.
#[derive(Debug)]
pub(crate) struct Context {
    /// Counts the request as under way.
    _in_flight: Guard,
    /// When its head had been read.
    pub(crate) started: Instant,
    /// What it is served by, to its end, whatever is reloaded meanwhile.
    pub(crate) state: Arc<State>,
    /// The name by which its log line and its reply find each other.
    pub(crate) request_id: HeaderValue,
    /// Where it came from; absent only until its head has been looked at.
    pub(crate) origin: Option<Origin>,
    /// Which host it is for.
    pub(crate) host: Option<Host>,
    /// Which site that is.
    pub(crate) site: Option<Arc<Site>>,
    /// Who reads a refusal.
    pub(crate) audience: Audience,
    /// The client's certificate, where one is asked for and a good one was shown.
    pub(crate) certified: Option<Certified>,
    /// Who is asking.
    pub(crate) principal: Principal,
    /// Whether it was let in.
    pub(crate) admitted: bool,
    /// What may go on of it.
    pub(crate) admission: Admission,
    /// Its places among the requests under way.
    pub(crate) places: Vec<Place>,
    /// Its body.
    pub(crate) body: RequestBody,
    /// How fast that comes; absent where there is none.
    pub(crate) pace: Option<Arc<Pace>>,
    /// How much of the reply's body was sent, where Pingora does not count it.
    pub(crate) body_bytes_sent: usize,
    /// Its way upstream.
    pub(crate) attempt: Attempt,
    /// What refused it, for the log.
    pub(crate) because: Option<Cow<'static, str>>,
    /// The name that was tried in vain, for the log.
    pub(crate) login: Option<Box<str>>,
    /// What a token was asked for and not given, and by which rules, for the log.
    pub(crate) denied: Option<String>,
    /// Why it was refused when it was already on its way.
    pub(crate) rejection: Option<Rejection>,
    /// Whose fault it is that it failed.
    pub(crate) fault: Option<Fault>,
}

/// The tries to reach an upstream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempt {
    /// The address to begin with.
    pub(crate) turn: usize,
    /// How many addresses were tried.
    pub(crate) tries: usize,
    /// When the first one was.
    pub(crate) started: Option<Instant>,
    /// How long it took until the head of the response was there.
    pub(crate) answered_after: Option<Duration>,
}

impl Context {
    /// Begins a request.
    pub(crate) fn new(state: Arc<State>, in_flight: Guard) -> Self {
        Self {
            _in_flight: in_flight,
            started: Instant::now(),
            state,
            request_id: fresh_request_id(),
            origin: None,
            host: None,
            site: None,
            audience: Audience::Anyone,
            certified: None,
            principal: Principal::anonymous(),
            admitted: false,
            admission: Admission::default(),
            places: Vec::new(),
            body: RequestBody::default(),
            pace: None,
            body_bytes_sent: 0,
            attempt: Attempt::default(),
            because: None,
            login: None,
            denied: None,
            rejection: None,
            fault: None,
        }
    }

    /// Returns the client's address.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.origin.map(|origin| origin.client())
    }

    /// Returns what a request for `path` is counted as.
    pub(crate) fn route_class(&self, path: &str) -> RouteClass {
        let site = self.site.as_ref();
        if site.is_none_or(|site| site.upstream.is_registry()) {
            RouteClass::of(path)
        } else {
            RouteClass::Other
        }
    }

    /// Returns whether the reply is one of the registry's API.
    pub(crate) fn is_api(&self) -> bool {
        self.audience == Audience::RegistryClient
    }
}

/// Returns an id that no other request has: the process's own number and a count.
fn fresh_request_id() -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| {
        let mut bytes = [0; 8];
        // Without randomness the ids are unique within the process all the same.
        drop(openssl::rand::rand_bytes(&mut bytes));
        u64::from_be_bytes(bytes)
    });
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:016x}{count:08x}", *PROCESS);
    HeaderValue::try_from(id).unwrap_or_else(|_never| HeaderValue::from_static("0"))
}
