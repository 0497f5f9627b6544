//! What was read ahead of a page, kept for the next one, as long as there is room.
//!
//! A list whose client takes nothing keeps its place only until others need it: what is looked for
//! least recently goes first. Whoever finds theirs gone reads it again, so nobody waits and nobody is
//! refused.

use std::sync::{Arc, Mutex, PoisonError};

use crate::registry::Principal;
use crate::registry::TagsAhead;

/// How much is kept, and how much of it for the same principal.
const BYTES_MAX: usize = 8 << 20;
const BYTES_MAX_OF_ONE: usize = BYTES_MAX / 2;

/// Names that were read ahead, those put in last at the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    ticket: Arc<()>,
    principal: Principal,
    ahead: TagsAhead,
}

/// The right to what was put in; it is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    shelf: Shelf,
    ticket: Arc<()>,
}

impl Shelf {
    /// Puts in what was read ahead.
    pub(super) fn put(&self, principal: Principal, ahead: TagsAhead) -> Ticket {
        let ticket = Arc::new(());
        let entry = Entry {
            ticket: Arc::clone(&ticket),
            principal,
            ahead,
        };
        self.entries(|entries| {
            // First what the same principal has too much of, then what anyone has.
            make_room(entries, &entry, BYTES_MAX_OF_ONE, |it| {
                it.principal == entry.principal
            });
            make_room(entries, &entry, BYTES_MAX, |_| true);
            entries.push(entry);
        });
        Ticket {
            shelf: self.clone(),
            ticket,
        }
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
    let size = |entry: &Entry| entry.ahead.size_bytes();
    let counted = entries.iter().filter(|entry| count(entry));
    let mut sum = size(new) + counted.map(size).sum::<usize>();
    entries.retain(|entry| {
        let goes = sum > bytes_max && count(entry);
        sum -= if goes { size(entry) } else { 0 };
        !goes
    });
}

impl Ticket {
    /// Takes out what was put in, if it is still there.
    pub(super) fn take(self) -> Option<TagsAhead> {
        self.remove()
    }

    fn remove(&self) -> Option<TagsAhead> {
        self.shelf.entries(|entries| {
            let is_it = |entry: &Entry| Arc::ptr_eq(&entry.ticket, &self.ticket);
            let index = entries.iter().position(is_it)?;
            Some(entries.remove(index).ahead)
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 2 << 20;

    fn put(shelf: &Shelf, user: &str) -> Ticket {
        shelf.put(
            Principal::User(user.as_bytes().into()),
            TagsAhead::of_size(SIZE),
        )
    }

    fn sum(shelf: &Shelf) -> usize {
        shelf.entries(|entries| entries.iter().map(|it| it.ahead.size_bytes()).sum())
    }

    #[test]
    fn what_was_put_in_first_makes_room_and_one_takes_no_more_than_half() {
        let shelf = Shelf::default();
        let others = put(&shelf, "b");
        let mut mine: Vec<Ticket> = (0..20).map(|_| put(&shelf, "a")).collect();
        assert!(sum(&shelf) <= BYTES_MAX_OF_ONE + SIZE);
        assert_eq!(others.take().map(|it| it.size_bytes()), Some(SIZE));
        assert!(mine.remove(0).take().is_none(), "it has made room");
        assert!(mine.pop().unwrap().take().is_some());
        let many: Vec<Ticket> = (0..40).map(|user| put(&shelf, &user.to_string())).collect();
        assert!(sum(&shelf) <= BYTES_MAX);
        assert!(
            mine.pop().unwrap().take().is_none(),
            "others were here since"
        );
        drop((many, mine));
        assert_eq!(sum(&shelf), 0, "what nobody can take is not kept");
    }
}
