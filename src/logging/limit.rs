//! How many lines of one kind are written in a while.
//!
//! Many events can be caused by a client as often as it likes: a frame that nobody asked for is a
//! warning of the HTTP/2 library each time. So each call site has a token bucket; what goes beyond it
//! is counted, and the count is a line of its own every few seconds. This holds for `info`, `warn` and
//! `error` of every crate. It does not hold for
//!
//! - the access log, which the edge itself bounds by the client's address;
//! - this program's own crate, which speaks of signals and config files and of no client;
//! - `debug` and `trace`, which an operator switches on to see everything.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};
use std::{io, thread};

use instruments::{Log, count_suppressed};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::layer::{Context, Filter};

use super::levels::ACCESS;

/// How many lines of one kind may come at once, and how often one more after that.
const BURST: u64 = 20;
const ONE_MORE_MS: u64 = 500;

/// How often it is told what was left out.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// How many kinds are told apart. The program has some hundreds of call sites; what goes beyond this,
/// if anything ever does, shares one bucket for each level.
const KINDS_MAX: usize = 2048;

/// How much of a message stands for its kind.
const LIKE_CHARS_MAX: usize = 100;

/// The target of the lines that tell what was left out.
pub(super) const LEFT_OUT: &str = "tidegate::left_out";

/// The limits of a process's log.
pub(super) struct Limit {
    start: Instant,
    /// By a hash of the call site.
    kinds: RwLock<HashMap<u64, Arc<Kind>>>,
    hasher: RandomState,
    /// Something was left out and has not been told.
    owes: AtomicBool,
    /// Wakes the thread that tells.
    wake: SyncSender<()>,
}

/// All lines of one call site.
struct Kind {
    level: Level,
    target: String,
    /// The first message of this kind.
    like: String,
    /// When the bucket will be full again, in milliseconds: the only state that a token bucket needs
    /// (known as the generic cell rate algorithm).
    full_at: AtomicU64,
    left_out: AtomicU64,
}

impl Limit {
    /// Makes the limits, and starts the thread that tells what was left out; it ends with them.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let (limit, wakes) = Self::new();
        let limit = Arc::new(limit);
        let told = Arc::downgrade(&limit);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || report_in_time(&told, &wakes))?;
        Ok(limit)
    }

    fn new() -> (Self, Receiver<()>) {
        let (wake, wakes) = sync_channel(1);
        let limit = Self {
            start: Instant::now(),
            kinds: RwLock::default(),
            hasher: RandomState::new(),
            owes: AtomicBool::new(false),
            wake,
        };
        (limit, wakes)
    }

    /// Returns whether this event may be written, and counts it.
    fn admits(&self, event: &Event<'_>) -> bool {
        let now = self.start.elapsed().as_millis();
        self.admits_at(event, u64::try_from(now).unwrap_or(u64::MAX))
    }

    fn admits_at(&self, event: &Event<'_>, now: u64) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let record = event.normalized_metadata();
        let metadata = record.as_ref().unwrap_or(metadata);
        if is_boundless(metadata.target()) {
            return true;
        }
        let id = if record.is_some() {
            // All records of the `log` crate come from one call site for each level.
            let place = (metadata.target(), metadata.file(), metadata.line());
            self.hasher.hash_one((metadata.level(), place))
        } else {
            self.hasher.hash_one(metadata.callsite())
        };
        let kind = self.kind(id, metadata, event);
        if kind.take(now) {
            return true;
        }
        kind.left_out.fetch_add(1, Ordering::Relaxed);
        count_suppressed(Log::Main);
        if !self.owes.load(Ordering::Relaxed) && !self.owes.swap(true, Ordering::AcqRel) {
            // A full channel is one whose reader is awake.
            self.wake.try_send(()).ok();
        }
        false
    }

    fn kind(&self, id: u64, metadata: &Metadata<'_>, event: &Event<'_>) -> Arc<Kind> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(kind) = kinds.get(&id) {
            return Arc::clone(kind);
        }
        let is_full = kinds.len() >= KINDS_MAX;
        drop(kinds);
        let (id, kind) = if is_full {
            let id = self.hasher.hash_one(metadata.level());
            (id, Kind::new(*metadata.level(), "any", String::new()))
        } else {
            let like = Message::of(event);
            (id, Kind::new(*metadata.level(), metadata.target(), like))
        };
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(kinds.entry(id).or_insert_with(|| Arc::new(kind)))
    }

    /// Tells what was left out since it was told last.
    pub(super) fn report(&self) {
        self.owes.store(false, Ordering::Release);
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        // Writing may take its time, and others want to log meanwhile.
        let kinds: Vec<Arc<Kind>> = kinds.values().map(Arc::clone).collect();
        for kind in kinds {
            let left_out = kind.left_out.swap(0, Ordering::Relaxed);
            if left_out > 0 {
                kind.tell(left_out);
            }
        }
    }
}

/// Reports some time after something was left out, as long as there is anyone to be limited.
fn report_in_time(limit: &Weak<Limit>, wakes: &Receiver<()>) {
    while wakes.recv().is_ok() {
        // Until the report nobody wakes this thread again.
        if wakes.recv_timeout(REPORT_EVERY) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        if let Some(limit) = limit.upgrade() {
            limit.report();
        }
    }
}

/// Returns whether the events of a target are none that a client can cause, or bounded elsewhere.
fn is_boundless(target: &str) -> bool {
    let own = target.strip_prefix(env!("CARGO_CRATE_NAME"));
    target == ACCESS || own.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl Kind {
    fn new(level: Level, target: &str, like: String) -> Self {
        Self {
            level,
            target: target.to_owned(),
            like,
            full_at: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Takes one from the bucket, if one is there.
    fn take(&self, now: u64) -> bool {
        let spend = |full_at: u64| {
            let full_at = full_at.max(now).saturating_add(ONE_MORE_MS);
            (full_at <= now.saturating_add(BURST * ONE_MORE_MS)).then_some(full_at)
        };
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_ok()
    }

    fn tell(&self, left_out: u64) {
        let (of, like) = (self.target.as_str(), self.like.as_str());
        macro_rules! tell {
            ($level:expr) => {
                tracing::event!(target: LEFT_OUT, $level, left_out, of, like, "lines were left out")
            };
        }
        match self.level {
            Level::ERROR => tell!(Level::ERROR),
            Level::WARN => tell!(Level::WARN),
            _ => tell!(Level::INFO),
        }
    }
}

/// The text of an event, as far as it is kept.
struct Message(String);

impl Message {
    fn of(event: &Event<'_>) -> String {
        let mut message = Self(String::new());
        event.record(&mut message);
        message.0
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let mut text = String::new();
            // To write to memory does not fail.
            write!(text, "{value:?}").ok();
            self.0 = text.chars().take(LIKE_CHARS_MAX).collect();
        }
    }
}

/// The limits as a filter of a layer, to be asked after the one of levels.
pub(super) struct Limited(pub(super) Arc<Limit>);

impl<S> Filter<S> for Limited {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _metadata: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        self.0.admits(event)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Without a hint, nothing would be known of the whole, and every event be looked at.
        Some(LevelFilter::TRACE)
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::{Layer, SubscriberExt as _};

    use super::*;

    /// Counts the events that may be written at a moment that the test sets.
    #[derive(Clone)]
    struct Reader {
        limit: Arc<Limit>,
        now: Arc<AtomicU64>,
        written: Arc<AtomicU64>,
    }

    impl<S: tracing::Subscriber> Layer<S> for Reader {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let now = self.now.load(Ordering::Relaxed);
            let written = u64::from(self.limit.admits_at(event, now));
            self.written.fetch_add(written, Ordering::Relaxed);
        }
    }

    impl Reader {
        fn new() -> Self {
            let (limit, _) = Limit::new();
            Self {
                limit: Arc::new(limit),
                now: Arc::default(),
                written: Arc::default(),
            }
        }

        /// Returns how many of the events of `act` are written at `now`.
        fn written(&self, now: u64, act: impl FnOnce()) -> u64 {
            self.now.store(now, Ordering::Relaxed);
            let before = self.written.load(Ordering::Relaxed);
            let subscriber = tracing_subscriber::registry().with(self.clone());
            tracing::subscriber::with_default(subscriber, act);
            self.written.load(Ordering::Relaxed) - before
        }

        /// Returns what was left out, by the text of the first line of each kind.
        fn left_out(&self) -> HashMap<String, u64> {
            let kinds = self.limit.kinds.read().unwrap();
            let kinds = kinds.values().map(|kind| {
                let left_out = kind.left_out.load(Ordering::Relaxed);
                (kind.like.clone(), left_out)
            });
            kinds.filter(|(_, left_out)| *left_out > 0).collect()
        }
    }

    fn record(level: log::Level, line: u32) {
        let mut record = log::Record::builder();
        record
            .level(level)
            .target("pingora")
            .file(Some("a.rs"))
            .line(Some(line));
        tracing_log::format_trace(&record.args(format_args!("line {line}")).build()).unwrap();
    }

    #[test]
    fn a_flood_from_one_place_is_a_few_lines_and_hides_no_other() {
        let reader = Reader::new();
        let flood = || {
            for number in 0..1000 {
                tracing::warn!(target: "h2", number, "flood");
            }
        };
        assert_eq!(reader.written(0, flood), BURST);
        let other = || tracing::warn!(target: "h2", "something else");
        assert_eq!(reader.written(0, other), 1);
        assert_eq!(reader.written(1_000, flood), 1_000 / ONE_MORE_MS);
        // However long the silence was, no more than the burst.
        assert_eq!(reader.written(1_000_000, flood), BURST);
        let expected = 3_000 - 2 * BURST - 1_000 / ONE_MORE_MS;
        assert_eq!(reader.left_out(), [("flood".to_owned(), expected)].into());
    }

    #[test]
    fn records_of_the_log_crate_are_told_apart_by_their_place() {
        let reader = Reader::new();
        let flood = || (0..300).for_each(|number| record(log::Level::Error, number % 3));
        assert_eq!(reader.written(0, flood), 3 * BURST);
        let left_out = reader.left_out();
        assert_eq!(left_out.len(), 3);
        assert_eq!(left_out.get("line 2"), Some(&(100 - BURST)));
    }

    #[test]
    fn kinds_without_end_take_bounded_memory_and_few_lines() {
        let reader = Reader::new();
        let lines = 10 * u32::try_from(KINDS_MAX).unwrap();
        let flood = || (0..lines).for_each(|number| record(log::Level::Warn, number));
        let kinds = u64::try_from(KINDS_MAX).unwrap();
        assert_eq!(reader.written(0, flood), kinds + BURST);
        assert_eq!(reader.limit.kinds.read().unwrap().len(), KINDS_MAX + 1);
    }

    #[test]
    fn what_an_operator_asks_for_is_whole() {
        let reader = Reader::new();
        let asked = || {
            for number in 0..100 {
                tracing::info!(target: "access", number);
                tracing::error!(target: "tidegate::role", number, "a problem of the config");
                tracing::debug!(target: "h2", number);
            }
        };
        assert_eq!(reader.written(0, asked), 300);
        // Names that only begin like ours are not ours.
        let others = || (0..100).for_each(|_| tracing::info!(target: "tidegate_not", "x"));
        assert_eq!(reader.written(0, others), BURST);
    }

    #[test]
    fn the_thread_that_tells_ends_with_the_limits() {
        let (limit, wakes) = Limit::new();
        let limit = Arc::new(limit);
        let told = Arc::downgrade(&limit);
        let thread = thread::spawn(move || report_in_time(&told, &wakes));
        drop(limit);
        thread.join().unwrap();
    }
}
