//! Many small questions to the disk.
//!
//! What is in memory is answered at once, one after the other. The rest has to wait for the disk,
//! which does many things at the same time as fast as one: so do we.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::storage::{Error, Wait};

/// How many of one caller's questions wait for the disk at the same time.
const WAITING_MAX: usize = 16;

/// How many threads there are for the questions of all callers, besides their own.
const THREADS_MAX: usize = 64;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Answers to fewer questions are awaited one after the other.
const QUESTIONS_MIN: usize = 4;

/// Asks about each of `names`; returns the answers in their order.
pub(super) fn ask<T: Send>(
    names: &[&str],
    ask: impl Fn(&str, Wait) -> Result<T, Error> + Sync,
) -> Vec<Result<T, Error>> {
    let at_hand = |name: &&str| match ask(name, Wait::Never) {
        Err(Error::WouldWait { .. }) => None,
        answer => Some(answer),
    };
    let mut answers: Vec<Option<Result<T, Error>>> = names.iter().map(at_hand).collect();
    let open = answers.iter().filter(|answer| answer.is_none()).count();
    let rest = answers.iter_mut().zip(names);
    let rest = Mutex::new(rest.filter(|(answer, _)| answer.is_none()));
    let next = || rest.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((answer, name)) = next() {
            *answer = Some(ask(name, Wait::AsNeeded));
        }
    };
    let work = &work;
    thread::scope(|scope| {
        let waiting = if open < QUESTIONS_MIN {
            1
        } else {
            open.min(WAITING_MAX)
        };
        for _ in 1..waiting {
            // Without another thread it takes longer, and that is all.
            let Some(place) = Place::take() else { break };
            let spawned = thread::Builder::new().spawn_scoped(scope, move || {
                work();
                drop(place);
            });
            if spawned.is_err() {
                break;
            }
        }
        work();
    });
    answers
        .into_iter()
        .map(|answer| answer.expect("invariant: each question was asked"))
        .collect()
}

/// The right to one of the threads; ends when dropped.
#[derive(Debug)]
struct Place(());

impl Place {
    fn take() -> Option<Self> {
        let taken = |threads| (threads < THREADS_MAX).then_some(threads + 1);
        let taken = THREADS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        taken.is_ok().then_some(Self(()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}
