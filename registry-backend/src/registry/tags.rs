//! Tags: names for manifests, each with a history.

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

/// Names that were read ahead of a page, for those that follow. Whoever drops it between two pages
/// gives up time and nothing else.
#[derive(Debug)]
pub(crate) struct TagsAhead {
    names: Names,
    /// Which of them comes next.
    next: usize,
    /// How many names there were, with those that had no room.
    following: usize,
    /// Whether a page was made.
    begun: bool,
}

impl Default for TagsAhead {
    fn default() -> Self {
        Self {
            names: Names::new(AHEAD_BYTES),
            next: 0,
            following: 0,
            begun: false,
        }
    }
}

impl TagsAhead {
    /// Stands for names that someone else has no room for: they will be read again.
    pub(crate) fn forgotten() -> Self {
        Self {
            begun: true,
            ..Self::default()
        }
    }

    /// Returns one name of so many bytes.
    #[cfg(test)]
    pub(crate) fn of_size(size_bytes: usize) -> Self {
        let mut ahead = Self::default();
        ahead.names.add(&"x".repeat(size_bytes - 8));
        ahead
    }

    /// Returns how much memory the names take.
    pub(crate) fn size_bytes(&self) -> usize {
        self.names.size_bytes()
    }

    /// Returns the next names that may be in a page of which there is `listing`: one more than fits
    /// tells whether there is another page.
    fn some(&self, page: &Page, listing: &Listing) -> Vec<&str> {
        let count = page.size_max.map_or(TAGS_AT_ONCE, |max| {
            max.saturating_sub(listing.names.len()).saturating_add(1)
        });
        let mut room = page.bytes_max.saturating_sub(listing.bytes);
        let mut some = Vec::new();
        while some.len() < count.min(TAGS_AT_ONCE)
            && let Some(name) = self.names.get(self.next + some.len())
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
    /// Returns a page of a repository's tags, in the order of their bytes. What is read on the way
    /// for the pages that follow stays in `ahead`, which is that of the page before.
    ///
    /// A page of a number of tags may have fewer when they do not fit in it and there are more: then
    /// `end` is the last of those that did.
    ///
    /// # Errors
    /// [`Error::RepositoryUnknown`], for the first page.
    pub(crate) fn tags(
        &self,
        repository: &RepositoryName,
        page: &Page,
        ahead: &mut TagsAhead,
    ) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        let mut last = page.last.clone();
        let mut is_read = ahead.size_bytes() > 0;
        while !listing.more {
            if !is_read {
                let (begun, following) = (ahead.begun, ahead.following);
                *ahead = self.tags_after(repository, last.as_deref())?;
                if ahead.following == 0 && !begun && !self.has_repository(repository)? {
                    return Err(Error::RepositoryUnknown {
                        repository: repository.clone(),
                    });
                }
                // Of those that follow the beginning of the page, not the end of what was read.
                ahead.following = ahead.following.max(following);
                is_read = true;
            }
            let some = ahead.some(page, &listing);
            let mut looked_at = some.len();
            for (index, target) in self.tag_targets(repository, &some)?.iter().enumerate() {
                let Some(tag) = some.get(index) else { break };
                // A folder alone is no tag: a crash, or `registry:2` in the middle of its work, can
                // leave one.
                if target.is_some() && !listing.offer(page, tag) {
                    looked_at = index;
                    break;
                }
            }
            if some.is_empty() {
                if !ahead.names.is_cut() {
                    break;
                }
                last = ahead.names.last().map(str::to_owned);
                is_read = false;
            }
            ahead.next += looked_at;
        }
        let are_more = |max: usize| listing.names.len() >= max || ahead.following > max;
        if listing.more && page.size_max.is_some_and(are_more) {
            listing.end = listing.names.last().cloned();
        }
        Ok(listing)
    }

    /// Reads the names of a repository's tags that come after `last`, as many as are read in one go.
    fn tags_after(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
    ) -> Result<TagsAhead, Error> {
        let mut ahead = TagsAhead {
            begun: true,
            ..TagsAhead::default()
        };
        let visited = self.driver.visit(&layout::tags(repository), &mut |name| {
            let follows = last.is_none_or(|last| name > last);
            if follows && name.parse::<Tag>().is_ok() {
                ahead.following += 1;
                ahead.names.add(name);
            }
        });
        if_found(visited)?;
        ahead.names.sort();
        Ok(ahead)
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
