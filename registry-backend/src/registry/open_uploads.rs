//! How many uploads are open, in all, in each repository and of each principal.
//!
//! Known are those that this process has begun or gone on with, and those that its looks through the
//! tree have found: so a start need not look first, and what `registry:2` has left counts in the end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oci::{RepositoryName, UploadId};

use super::{Error, Principal, UploadCounts};

/// An upload that has rested for so long makes room for another of the same principal's: builds that
/// fail leave some behind, and nobody comes back for them.
pub(super) const RESTS_FOR: Duration = Duration::from_secs(60 * 60);

/// How many uploads may be open; 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UploadLimits {
    /// In all.
    pub(crate) all: usize,
    /// In one repository.
    pub(crate) repository: usize,
    /// Of one principal.
    pub(crate) principal: usize,
}

/// Of what there are too many uploads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UploadScope {
    /// Of the whole registry.
    All,
    /// Of one repository.
    Repository,
    /// Of one principal.
    Principal,
}

/// Which upload is meant.
type Name = (RepositoryName, UploadId);

/// The uploads that are open, as far as is known.
#[derive(Debug, Default)]
pub(super) struct OpenUploads(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    uploads: HashMap<Name, Open>,
    repositories: HashMap<RepositoryName, usize>,
    principals: HashMap<Principal, usize>,
    /// How many looks through the tree have begun.
    looks: u64,
}

#[derive(Debug)]
struct Open {
    /// Who has begun it, if this process knows.
    principal: Option<Principal>,
    /// When it was last gone on with.
    used: Instant,
    /// In the course of which look it was last there.
    seen: u64,
}

/// A look through the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look(u64);

impl OpenUploads {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an upload that is about to begin.
    ///
    /// # Errors
    /// [`Error::TooManyUploads`].
    pub(super) fn begin(
        &self,
        name: Name,
        principal: &Principal,
        limits: UploadLimits,
    ) -> Result<(), Error> {
        let mut known = self.known();
        let of = |count: Option<&usize>| count.copied().unwrap_or(0);
        for (scope, open, max) in [
            (
                UploadScope::Principal,
                of(known.principals.get(principal)),
                limits.principal,
            ),
            (
                UploadScope::Repository,
                of(known.repositories.get(&name.0)),
                limits.repository,
            ),
            (UploadScope::All, known.uploads.len(), limits.all),
        ] {
            if max > 0 && open >= max {
                return Err(Error::TooManyUploads { scope, max });
            }
        }
        known.add(name, Some(principal.clone()));
        Ok(())
    }

    /// Takes down that an upload is there and gone on with.
    pub(super) fn went_on(&self, repository: &RepositoryName, id: &UploadId) {
        let mut known = self.known();
        let name = (repository.clone(), id.clone());
        match known.uploads.get_mut(&name) {
            Some(open) => open.used = Instant::now(),
            None => known.add(name, None),
        }
    }

    /// Takes down that an upload is no longer there.
    pub(super) fn ended(&self, repository: &RepositoryName, id: &UploadId) {
        self.known().remove(&(repository.clone(), id.clone()));
    }

    /// Returns those of a principal's that have rested for long, the longest first.
    pub(super) fn resting(&self, principal: &Principal) -> Vec<Name> {
        let known = self.known();
        let rests = |open: &Open| {
            open.principal.as_ref() == Some(principal) && open.used.elapsed() >= RESTS_FOR
        };
        let uploads = known.uploads.iter();
        let mut resting: Vec<_> = uploads.filter(|(_, open)| rests(open)).collect();
        resting.sort_unstable_by_key(|(_, open)| open.used);
        resting.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// Counts the uploads, and those of them that have rested for long.
    pub(super) fn counts(&self) -> UploadCounts {
        let known = self.known();
        let rests = |open: &&Open| open.used.elapsed() >= RESTS_FOR;
        UploadCounts {
            open: known.uploads.len(),
            abandoned: known.uploads.values().filter(rests).count(),
        }
    }

    /// Begins a look through the tree.
    pub(super) fn look(&self) -> Look {
        let mut known = self.known();
        known.looks += 1;
        Look(known.looks)
    }

    /// Takes down that a look has found an upload.
    pub(super) fn found(&self, look: Look, repository: &RepositoryName, id: &UploadId) {
        let mut known = self.known();
        let name = (repository.clone(), id.clone());
        match known.uploads.get_mut(&name) {
            Some(open) => open.seen = look.0,
            None => known.add(name, None),
        }
    }

    /// Forgets the uploads that were there before a look, which has seen everything, and that it has
    /// not found.
    pub(super) fn looked(&self, look: Look) {
        let mut known = self.known();
        let gone: Vec<Name> = known
            .uploads
            .iter()
            .filter(|(_, open)| open.seen < look.0)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            known.remove(&name);
        }
    }
}

impl Known {
    fn add(&mut self, name: Name, principal: Option<Principal>) {
        let open = Open {
            principal: principal.clone(),
            used: Instant::now(),
            seen: self.looks,
        };
        let repository = name.0.clone();
        if self.uploads.insert(name, open).is_some() {
            return;
        }
        *self.repositories.entry(repository).or_default() += 1;
        if let Some(principal) = principal {
            *self.principals.entry(principal).or_default() += 1;
        }
    }

    fn remove(&mut self, name: &Name) {
        let Some(open) = self.uploads.remove(name) else {
            return;
        };
        count_down(&mut self.repositories, &name.0);
        if let Some(principal) = &open.principal {
            count_down(&mut self.principals, principal);
        }
    }
}

fn count_down<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
impl OpenUploads {
    /// Makes an upload as old as it takes to make room.
    pub(super) fn rested(&self, repository: &RepositoryName, id: &UploadId) {
        let long_ago = Instant::now().checked_sub(RESTS_FOR).unwrap();
        let mut known = self.known();
        let name = (repository.clone(), id.clone());
        known.uploads.get_mut(&name).unwrap().used = long_ago;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(repository: &str, number: u32) -> Name {
        let id = format!("00000000-0000-4000-8000-{number:012x}");
        (repository.parse().unwrap(), id.parse().unwrap())
    }

    fn user(name: &str) -> Principal {
        Principal::User(name.as_bytes().into())
    }

    const LIMITS: UploadLimits = UploadLimits {
        all: 4,
        repository: 3,
        principal: 2,
    };

    fn begin(open: &OpenUploads, name: &Name, user: &Principal) -> Option<UploadScope> {
        match open.begin(name.clone(), user, LIMITS) {
            Ok(()) => None,
            Err(Error::TooManyUploads { scope, .. }) => Some(scope),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn the_narrowest_limit_that_is_reached_is_told() {
        let open = OpenUploads::default();
        let (ann, bob, eve) = (user("ann"), user("bob"), user("eve"));
        assert_eq!(begin(&open, &name("a", 1), &ann), None);
        assert_eq!(begin(&open, &name("a", 2), &ann), None);
        assert_eq!(
            begin(&open, &name("b", 3), &ann),
            Some(UploadScope::Principal)
        );
        assert_eq!(begin(&open, &name("a", 3), &bob), None);
        assert_eq!(
            begin(&open, &name("a", 4), &bob),
            Some(UploadScope::Repository)
        );
        assert_eq!(begin(&open, &name("b", 4), &bob), None);
        assert_eq!(begin(&open, &name("c", 5), &eve), Some(UploadScope::All));
        let none = UploadLimits::default();
        open.begin(name("c", 5), &ann, none).unwrap();
        for (repository, id) in [name("a", 1), name("a", 2), name("c", 5), name("c", 5)] {
            open.ended(&repository, &id);
        }
        assert_eq!(begin(&open, &name("a", 1), &ann), None);
        assert_eq!(begin(&open, &name("a", 2), &ann), None);
        for (repository, id) in [
            name("a", 1),
            name("a", 2),
            name("a", 3),
            name("b", 4),
            name("x", 9),
        ] {
            open.ended(&repository, &id);
        }
        let known = open.known();
        assert!(known.uploads.is_empty());
        assert!(known.repositories.is_empty() && known.principals.is_empty());
    }

    #[test]
    fn what_a_look_finds_counts_and_what_it_does_not_find_no_longer_does() {
        let open = OpenUploads::default();
        let ann = user("ann");
        assert_eq!(begin(&open, &name("a", 1), &ann), None);
        assert_eq!(begin(&open, &name("a", 2), &ann), None);
        let look = open.look();
        for (repository, id) in [name("a", 2), name("a", 7), name("a", 7)] {
            open.found(look, &repository, &id);
        }
        // It has begun behind the look's back.
        assert_eq!(
            begin(&open, &name("a", 3), &user("bob")),
            Some(UploadScope::Repository)
        );
        assert_eq!(begin(&open, &name("b", 3), &user("bob")), None);
        open.looked(look);
        assert_eq!(open.known().uploads.len(), 3);
        assert_eq!(open.known().principals.get(&ann), Some(&1));
        let (repository, id) = name("b", 8);
        open.went_on(&repository, &id);
        assert_eq!(begin(&open, &name("c", 9), &ann), Some(UploadScope::All));
    }

    #[test]
    fn only_what_has_rested_for_long_makes_room() {
        let open = OpenUploads::default();
        let ann = user("ann");
        for number in 1..3 {
            assert_eq!(begin(&open, &name("a", number), &ann), None);
        }
        assert_eq!(open.resting(&ann), []);
        let (repository, id) = name("a", 2);
        open.rested(&repository, &id);
        assert_eq!(open.resting(&ann), [name("a", 2)]);
        let counts = UploadCounts {
            open: 2,
            abandoned: 1,
        };
        assert_eq!(open.counts(), counts);
        assert_eq!(open.resting(&user("bob")), []);
    }
}
