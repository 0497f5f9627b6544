//! How fast a client sends a body: only the time that it keeps us waiting counts.
//!
//! The client has so much credit as it may pause. To wait for it costs credit, what it sends earns
//! some, and without any left it is too slow. While something of the body is still on its way
//! upstream, it is the upstream that keeps us waiting, and nothing is counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// The shortest time between two looks at the clock.
const TICK: Duration = Duration::from_millis(10);

/// The pace of one body.
pub(crate) struct Pace {
    /// How long the client may pause.
    patience: Duration,
    /// How many bytes buy a second; any byte buys all there is when it is 0.
    rate: u64,
    state: Mutex<State>,
}

struct State {
    credit: Duration,
    /// The bytes that have come.
    seen: usize,
    /// Since when nothing but the client is waited for.
    waiting: Option<Instant>,
    /// How much is on its way upstream, in marks.
    under_way: usize,
    /// The body has begun and not ended.
    moving: bool,
    /// What to do when the client is cut off from outside.
    farewell: Option<Farewell>,
}

/// Is told how many bytes have come.
type Farewell = Box<dyn FnOnce(usize) + Send>;

/// Says that a client sends too slowly.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TooSlow;

impl Pace {
    /// A body of which nothing is awaited yet.
    pub(crate) fn new(patience: Duration, rate: u64) -> Arc<Self> {
        Arc::new(Self {
            patience,
            rate,
            state: Mutex::new(State {
                credit: patience,
                seen: 0,
                waiting: None,
                under_way: 0,
                moving: false,
                farewell: None,
            }),
        })
    }

    /// From now on the client is waited for.
    pub(crate) fn begin(&self, now: Instant) {
        let mut state = self.lock();
        state.moving = true;
        state.waiting = Some(now);
    }

    /// Counts nothing of the wait so far: the client was told only now that it may send.
    pub(crate) fn forgive(&self, now: Instant) {
        let mut state = self.lock();
        if state.waiting.is_some() {
            state.waiting = Some(now);
        }
    }

    /// Takes down that a piece has come, or the end.
    pub(crate) fn arrived(&self, now: Instant, bytes: usize, last: bool) -> Result<(), TooSlow> {
        let mut state = self.lock();
        state.seen += bytes;
        let since = state.waiting.take().unwrap_or(now);
        let waited = now.saturating_duration_since(since);
        let credit = state.credit.saturating_add(self.worth(bytes));
        state.credit = credit.saturating_sub(waited).min(self.patience);
        if last {
            state.moving = false;
            return Ok(());
        }
        if state.credit.is_zero() {
            return Err(TooSlow);
        }
        state.rest(now);
        Ok(())
    }

    /// Marks that something of the body is on its way upstream, until the mark is dropped.
    pub(crate) fn under_way(self: &Arc<Self>) -> Option<UnderWay> {
        let mut state = self.lock();
        if !state.moving {
            return None;
        }
        state.under_way += 1;
        state.waiting = None;
        Some(UnderWay(Arc::clone(self)))
    }

    /// Marks a piece as on its way upstream, until it has been written and dropped there.
    pub(crate) fn passed_on(self: &Arc<Self>, piece: Bytes) -> Bytes {
        if piece.is_empty() {
            return piece;
        }
        match self.under_way() {
            Some(mark) => Bytes::from_owner(Marked { piece, _mark: mark }),
            None => piece,
        }
    }

    fn worth(&self, bytes: usize) -> Duration {
        match (bytes as u64).checked_mul(1000) {
            Some(0) => Duration::ZERO,
            Some(thousandths) if self.rate > 0 => Duration::from_millis(thousandths / self.rate),
            Some(_) | None => self.patience,
        }
    }

    /// Returns how long the client may go on to send nothing, while it is waited for.
    fn left(&self, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let since = state.waiting?;
        let waited = now.saturating_duration_since(since);
        Some(state.credit.saturating_sub(waited))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets the wait for the client begin, if nothing else is waited for.
    fn rest(&mut self, now: Instant) {
        if self.moving && self.under_way == 0 {
            self.waiting = Some(now);
        }
    }
}

/// Something of a body is on its way upstream.
#[must_use]
pub(crate) struct UnderWay(Arc<Pace>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        state.rest(Instant::now());
    }
}

/// A piece that carries its mark.
struct Marked {
    piece: Bytes,
    _mark: UnderWay,
}

impl AsRef<[u8]> for Marked {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

tokio::task_local! {
    static WATCHED: Arc<Pace>;
}

impl Pace {
    /// Does `work`, to its end or until the client of the body in it has been too slow: for where
    /// nothing within `work` would notice a client that sends nothing more.
    pub(crate) async fn watch<T>(self: Arc<Self>, work: impl Future<Output = T>) -> Option<T> {
        let mut work = Box::pin(WATCHED.scope(Arc::clone(&self), work));
        loop {
            let left = self.left(Instant::now()).unwrap_or(self.patience);
            if let Ok(done) = tokio::time::timeout(left.max(TICK), &mut work).await {
                return Some(done);
            }
            if self.left(Instant::now()).is_some_and(|left| left.is_zero()) {
                break;
            }
        }
        let mut state = self.lock();
        let (farewell, seen) = (state.farewell.take(), state.seen);
        drop(state);
        if let Some(farewell) = farewell {
            farewell(seen);
        }
        None
    }

    /// Returns the pace that this task's work is watched with.
    pub(crate) fn watched() -> Option<Arc<Self>> {
        WATCHED.try_with(Arc::clone).ok()
    }

    /// Says what to do when the client is cut off from outside.
    pub(crate) fn on_cut(&self, farewell: impl FnOnce(usize) + Send + 'static) {
        self.lock().farewell = Some(Box::new(farewell));
    }
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pace").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A body whose client sends `bytes` every `every` seconds, as often as `times`.
    fn drip(rate: u64, bytes: usize, every: f64, times: u32) -> Result<(), TooSlow> {
        let pace = Pace::new(PATIENCE, rate);
        let begin = Instant::now();
        pace.begin(begin);
        (1..=times).try_for_each(|turn| {
            let now = begin + Duration::from_secs_f64(every) * turn;
            pace.arrived(now, bytes, false)
        })
    }

    #[test]
    fn slow_and_moving_is_fine_and_slower_than_that_is_not() {
        for (rate, bytes, every, fine) in [
            (1000, 1000, 1.0, true),
            (1000, 1100, 1.1, true),
            (1000, 9000, 9.0, true),
            (1000, 800, 1.0, false),
            (1000, 1, 0.1, false),
            (1000, 5000, 9.0, false),
            (0, 1, 9.0, true),
            (0, 1, 9.9, true),
        ] {
            let outcome = drip(rate, bytes, every, 1000);
            assert_eq!(outcome.is_ok(), fine, "{rate} {bytes} {every}");
        }
    }

    #[test]
    fn what_was_sent_fast_buys_no_longer_pause() {
        let pace = Pace::new(PATIENCE, 1000);
        let begin = Instant::now();
        pace.begin(begin);
        pace.arrived(begin, 1 << 30, false).unwrap();
        assert_eq!(pace.left(begin), Some(PATIENCE));
        let end = begin + PATIENCE;
        assert_eq!(pace.left(end), Some(Duration::ZERO));
    }

    #[test]
    fn while_the_upstream_is_slow_the_client_is_not() {
        let pace = Pace::new(PATIENCE, 1000);
        let begin = Instant::now();
        pace.begin(begin);
        pace.arrived(begin, 100, false).unwrap();
        let first = pace.passed_on(Bytes::from_static(b"piece"));
        pace.arrived(begin, 100, false).unwrap();
        let second = pace.passed_on(Bytes::from_static(b"another"));
        assert_eq!(&first[..], b"piece");
        let hour = begin + Duration::from_secs(3600);
        assert_eq!(pace.left(hour), None);
        drop(first);
        assert_eq!(pace.left(hour), None);
        let late = pace.arrived(hour, 100, false);
        assert_eq!(late, Ok(()));
        // When all is written, the client is waited for again.
        drop(second);
        assert_eq!(
            pace.left(Instant::now()).map(|left| left.as_secs()),
            Some(9)
        );
    }

    #[test]
    fn after_the_end_nothing_is_waited_for() {
        let pace = Pace::new(PATIENCE, 1000);
        let begin = Instant::now();
        assert_eq!(pace.left(begin), None);
        pace.begin(begin);
        assert_eq!(pace.left(begin), Some(PATIENCE));
        let later = begin + Duration::from_secs(9);
        pace.forgive(later);
        assert_eq!(pace.left(later), Some(PATIENCE));
        assert_eq!(pace.arrived(later, 0, true), Ok(()));
        assert_eq!(pace.left(later), None);
        drop(pace.passed_on(Bytes::from_static(b"last")));
        assert_eq!(pace.left(later), None);
    }

    #[tokio::test]
    async fn work_is_cut_off_when_its_client_stops() {
        let pace = Pace::new(Duration::from_millis(50), 1000);
        let told = Arc::new(Mutex::new(0));
        let tell = Arc::clone(&told);
        let cut = Arc::clone(&pace).watch(async {
            let pace = Pace::watched().unwrap();
            pace.on_cut(move |bytes| *tell.lock().unwrap() = bytes);
            pace.begin(Instant::now());
            pace.arrived(Instant::now(), 7, false).unwrap();
            std::future::pending::<()>().await;
        });
        assert_eq!(cut.await, None);
        assert_eq!(*told.lock().unwrap(), 7);
        let done = Pace::new(PATIENCE, 0).watch(async { 7 }).await;
        assert_eq!(done, Some(7));
        assert!(Pace::watched().is_none());
    }
}
