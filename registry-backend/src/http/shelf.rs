//! Names of tags that were read for a page, kept for the pages that follow, as long as there is room.
//!
//! Lists of the same repository share them: a list may go on with names that were read after it began,
//! whoever read them. So any number of lists whose clients take little reads a folder no oftener than
//! lists begin. What is used least recently makes room, and whoever misses it reads it again: nobody
//! waits and nobody is refused.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use oci::RepositoryName;

use crate::registry::{Principal, TagRun};

/// How much is kept, and how much of it for the same principal.
const BYTES_MAX: usize = 8 << 20;
const BYTES_MAX_OF_ONE: usize = BYTES_MAX / 2;

/// Names that were read, those used last at the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    repository: RepositoryName,
    run: Arc<TagRun>,
    /// When their reading began.
    read_at: Instant,
    /// Who read them.
    principal: Principal,
    /// Shared with all lists that may use them.
    interest: Arc<()>,
}

/// A list's interest in the names of its repository, which are kept no longer than somebody has one.
#[derive(Debug)]
pub(super) struct Ticket {
    shelf: Shelf,
    /// There until it is dropped.
    interest: Option<Arc<()>>,
}

impl Shelf {
    /// Puts in names that `principal` began to read at `read_at`, in the place of older ones that begin
    /// like them.
    pub(super) fn put(
        &self,
        principal: Principal,
        repository: &RepositoryName,
        run: Arc<TagRun>,
        read_at: Instant,
    ) -> Ticket {
        self.entries(|entries| {
            let of_same = entries.iter().find(|it| it.repository == *repository);
            let interest = of_same
                .map(|it| Arc::clone(&it.interest))
                .unwrap_or_default();
            let ticket = Ticket {
                shelf: self.clone(),
                interest: Some(Arc::clone(&interest)),
            };
            let like = |it: &Entry| it.repository == *repository && it.run.begins_like(&run);
            if entries.iter().any(|it| like(it) && it.read_at > read_at) {
                return ticket;
            }
            entries.retain(|it| !like(it));
            let entry = Entry {
                repository: repository.clone(),
                run,
                read_at,
                principal,
                interest,
            };
            // First what the same principal has too much of, then what anyone has.
            make_room(entries, &entry, BYTES_MAX_OF_ONE, |it| {
                it.principal == entry.principal
            });
            make_room(entries, &entry, BYTES_MAX, |_| true);
            entries.push(entry);
            ticket
        })
    }

    /// Finds names for a list that began at `begun` and goes on after `last`.
    pub(super) fn find(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        begun: Instant,
    ) -> Option<Arc<TagRun>> {
        self.entries(|entries| {
            let does = |it: &Entry| {
                it.repository == *repository && it.read_at >= begun && it.run.covers(last)
            };
            let index = entries.iter().position(does)?;
            let entry = entries.remove(index);
            let run = Arc::clone(&entry.run);
            entries.push(entry);
            Some(run)
        })
    }

    fn entries<T>(&self, work: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Removes the oldest of those entries that `count` until `new` fits in `bytes_max` with the rest.
fn make_room(
    entries: &mut Vec<Entry>,
    new: &Entry,
    bytes_max: usize,
    count: impl Fn(&Entry) -> bool,
) {
    let size = |entry: &Entry| entry.run.size_bytes();
    let counted = entries.iter().filter(|entry| count(entry));
    let mut sum = size(new) + counted.map(size).sum::<usize>();
    entries.retain(|entry| {
        let goes = sum > bytes_max && count(entry);
        sum -= if goes { size(entry) } else { 0 };
        !goes
    });
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(interest) = self.interest.take() else {
            return;
        };
        self.shelf.entries(|entries| {
            let is_its = |entry: &Entry| Arc::ptr_eq(&entry.interest, &interest);
            let kept = entries.iter().filter(|entry| is_its(entry)).count();
            if Arc::strong_count(&interest) == kept + 1 {
                entries.retain(|entry| !is_its(entry));
            }
            // Within, so that of two that are dropped at once the second is the last.
            drop(interest);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 2 << 20;

    fn put(shelf: &Shelf, user: &str, repository: &str, read_at: Instant) -> Ticket {
        let user = Principal::User(user.as_bytes().into());
        let run = Arc::new(TagRun::of_size(SIZE));
        shelf.put(user, &repository.parse().unwrap(), run, read_at)
    }

    fn has(shelf: &Shelf, repository: &str, begun: Instant) -> bool {
        let found = shelf.find(&repository.parse().unwrap(), None, begun);
        found.is_some()
    }

    fn sum(shelf: &Shelf) -> usize {
        shelf.entries(|entries| entries.iter().map(|it| it.run.size_bytes()).sum())
    }

    #[test]
    fn what_was_used_first_makes_room_and_one_takes_no_more_than_half() {
        let (shelf, now) = (Shelf::default(), Instant::now());
        let others = put(&shelf, "b", "b", now);
        let put_many = |user: &'static str, count: usize| -> Vec<Ticket> {
            (0..count)
                .map(|number| put(&shelf, user, &format!("{user}{number}"), now))
                .collect()
        };
        let mine = put_many("a", 2);
        assert!(has(&shelf, "a0", now) && has(&shelf, "a1", now) && has(&shelf, "a0", now));
        let third = put(&shelf, "a", "third", now);
        assert!(!has(&shelf, "a1", now), "it has made room");
        assert!(has(&shelf, "a0", now) && has(&shelf, "third", now));
        assert_eq!(sum(&shelf), BYTES_MAX_OF_ONE + SIZE);
        assert!(has(&shelf, "b", now));
        let many: Vec<Ticket> = ["c", "d", "e"]
            .into_iter()
            .flat_map(|user| put_many(user, 2))
            .collect();
        assert!(sum(&shelf) <= BYTES_MAX);
        assert!(!has(&shelf, "a0", now), "others were here since");
        drop((many, mine, third, others));
        assert_eq!(sum(&shelf), 0, "what nobody can use is not kept");
    }

    #[test]
    fn a_list_goes_on_with_what_was_read_after_it_began() {
        let shelf = Shelf::default();
        let first = Instant::now();
        let second = first + std::time::Duration::from_nanos(1);
        let older = put(&shelf, "a", "a", first);
        assert!(has(&shelf, "a", first) && !has(&shelf, "a", second));
        let newer = put(&shelf, "b", "a", second);
        assert!(has(&shelf, "a", first) && has(&shelf, "a", second));
        assert_eq!(sum(&shelf), SIZE, "the newer ones serve both");
        let late = put(&shelf, "c", "a", first);
        assert!(has(&shelf, "a", second));
        drop((newer, late));
        assert!(has(&shelf, "a", first));
        drop(older);
        assert_eq!(sum(&shelf), 0);
    }
}
