//! Tags: names for manifests, each with a history.

use std::sync::Arc;

use oci::{Digest, Reference, RepositoryName, Tag};

use super::names::Names;
use super::pages::json_bytes;
use super::{Error, Listing, Page, Registry, RepositoryLock};
use crate::storage::error::if_found;
use crate::storage::{Durability, Wait, layout};

/// Of how many tags it is read at once what they name.
const TAGS_AT_ONCE: usize = 1024;

/// How much memory the names take that are read ahead in one go: about 100,000 of usual length. While
/// they are sorted it is three times as much.
const AHEAD_BYTES: usize = 2 << 20;

/// Names of a repository's tags that were read in one go: as they were then, for a page and those that
/// follow. Whoever drops them between two pages gives up time and nothing else.
#[derive(Debug)]
pub(crate) struct TagRun {
    /// All come after this.
    after: Option<Box<str>>,
    names: Names,
    /// How many names there were, with those that had no room.
    following: usize,
}

/// What each run takes beside its names: itself, and its place among others.
const BESIDE_BYTES: usize = 256;

impl TagRun {
    /// Returns one name of so many bytes.
    #[cfg(test)]
    pub(crate) fn of_size(size_bytes: usize) -> Self {
        let mut names = Names::new(AHEAD_BYTES);
        names.add(&"x".repeat(size_bytes - 8 - BESIDE_BYTES));
        Self {
            after: None,
            names,
            following: 1,
        }
    }

    /// Returns how much memory the names take, with what is kept beside them.
    pub(crate) fn size_bytes(&self) -> usize {
        let after = self.after.as_ref().map_or(0, |after| after.len());
        self.names.size_bytes() + after + BESIDE_BYTES
    }

    /// Returns whether these begin where those do.
    pub(crate) fn begins_like(&self, other: &Self) -> bool {
        self.after == other.after
    }

    /// Returns whether the names tell which is the first one after `last`, if there is one.
    pub(crate) fn covers(&self, last: Option<&str>) -> bool {
        let is_past = last >= self.names.last();
        self.after.as_deref() <= last && !(is_past && self.names.is_cut())
    }

    /// Returns the names from the place `next` on that may be in a page of which there is `listing`:
    /// one more than fits tells whether there is another page.
    fn some(&self, next: usize, page: &Page, listing: &Listing) -> Vec<&str> {
        let count = page.size_max.map_or(TAGS_AT_ONCE, |max| {
            max.saturating_sub(listing.names.len()).saturating_add(1)
        });
        let mut room = page.bytes_max.saturating_sub(listing.bytes);
        let mut some = Vec::new();
        while some.len() < count.min(TAGS_AT_ONCE)
            && let Some(name) = self.names.get(next + some.len())
        {
            some.push(name);
            match room.checked_sub(json_bytes(name)) {
                Some(left) => room = left,
                None => break,
            }
        }
        some
    }
}

impl Registry {
    /// Returns a page of a repository's tags, in the order of their bytes, and the names that were read
    /// last, for the pages that follow. Those of a page before serve as `run`, if they
    /// [cover](TagRun::covers) the beginning of this one.
    ///
    /// A page of a number of tags may have fewer when they do not fit in it and there are more: then
    /// `end` is the last of those that did.
    ///
    /// # Errors
    /// [`Error::RepositoryUnknown`], where names had to be read.
    pub(crate) fn tags(
        &self,
        repository: &RepositoryName,
        page: &Page,
        mut run: Option<Arc<TagRun>>,
    ) -> Result<(Listing, Arc<TagRun>), Error> {
        let mut listing = Listing::default();
        let mut last = page.last.clone();
        // Of those that follow the beginning of the page, not the end of what was read.
        let mut following = 0;
        let run = loop {
            let current = match run.take() {
                Some(run) => run,
                None => Arc::new(self.tags_after(repository, last.as_deref())?),
            };
            following = following.max(current.following);
            self.list_run(repository, page, &current, last.as_deref(), &mut listing)?;
            if listing.more || !current.names.is_cut() {
                break current;
            }
            last = current.names.last().map(str::to_owned);
        };
        let are_more = |max: usize| listing.names.len() >= max || following > max;
        if listing.more && page.size_max.is_some_and(are_more) {
            listing.end = listing.names.last().cloned();
        }
        Ok((listing, run))
    }

    /// Adds to `listing` those names of `run` after `last` that are tags.
    fn list_run(
        &self,
        repository: &RepositoryName,
        page: &Page,
        run: &TagRun,
        last: Option<&str>,
        listing: &mut Listing,
    ) -> Result<(), Error> {
        let mut next = last.map_or(0, |last| run.names.count_to(last));
        loop {
            let some = run.some(next, page, listing);
            if some.is_empty() {
                return Ok(());
            }
            for (tag, target) in some.iter().zip(self.tag_targets(repository, &some)?) {
                // A folder alone is no tag: a crash, or `registry:2` in the middle of its work, can
                // leave one.
                if target.is_some() && !listing.offer(page, tag) {
                    return Ok(());
                }
            }
            next += some.len();
        }
    }

    /// Reads the names of a repository's tags that come after `last`, as many as are read in one go.
    fn tags_after(&self, repository: &RepositoryName, last: Option<&str>) -> Result<TagRun, Error> {
        let mut run = TagRun {
            after: last.map(Box::from),
            names: Names::new(AHEAD_BYTES),
            following: 0,
        };
        let visited = self.driver.visit(&layout::tags(repository), &mut |name| {
            let follows = last.is_none_or(|last| name > last);
            if follows && name.parse::<Tag>().is_ok() {
                run.following += 1;
                run.names.add(name);
            }
        });
        if_found(visited)?;
        if run.following == 0 && !self.has_repository(repository)? {
            return Err(Error::RepositoryUnknown {
                repository: repository.clone(),
            });
        }
        run.names.sort();
        Ok(run)
    }

    /// Returns what each of some tags names.
    fn tag_targets(
        &self,
        repository: &RepositoryName,
        tags: &[&str],
    ) -> Result<Vec<Option<Digest>>, Error> {
        self.links(&layout::tags(repository), tags, layout::TAG_CURRENT)
    }

    /// Returns what a tag names.
    pub(super) fn tag_target(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        wait: Wait,
    ) -> Result<Option<Digest>, Error> {
        self.link(&layout::tag_current(repository, tag), wait)
    }

    /// Removes a tag and its history. The manifest stays.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`].
    pub(crate) fn delete_tag(&self, lock: &RepositoryLock, tag: &Tag) -> Result<(), Error> {
        let repository = lock.repository();
        if self.tag_target(repository, tag, Wait::AsNeeded)?.is_none() {
            return Err(Error::ManifestUnknown {
                reference: Reference::Tag(tag.clone()),
            });
        }
        Ok(self
            .driver
            .delete(&layout::tag(repository, tag), Durability::Power)?)
    }

    /// Removes each tag that names a manifest.
    pub(super) fn untag(&self, lock: &RepositoryLock, digest: &Digest) -> Result<(), Error> {
        let repository = lock.repository();
        for some in self.tag_names(repository)?.chunks(TAGS_AT_ONCE) {
            let names: Vec<&str> = some.iter().map(Tag::as_str).collect();
            let targets = names.iter().zip(self.tag_targets(repository, &names)?);
            let named: Vec<&str> = targets
                .filter(|(_, target)| target.as_ref() == Some(digest))
                .map(|(tag, _)| *tag)
                .collect();
            self.driver.delete_each(&layout::tags(repository), &named)?;
        }
        Ok(())
    }

    fn tag_names(&self, repository: &RepositoryName) -> Result<Vec<Tag>, Error> {
        let children = if_found(self.driver.list(&layout::tags(repository)))?.unwrap_or_default();
        Ok(children
            .iter()
            .filter_map(|child| child.name.parse().ok())
            .collect())
    }

    fn has_repository(&self, repository: &RepositoryName) -> Result<bool, Error> {
        for folder in [layout::manifests(repository), layout::layers(repository)] {
            if if_found(self.driver.stat(&folder, Wait::AsNeeded))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
