//! Tags: names for manifests, each with a history.

use oci::{Digest, Reference, RepositoryName, Tag};

use super::{Error, Listing, Page, Registry, RepositoryLock};
use crate::storage::error::if_found;
use crate::storage::{Durability, Wait, layout};

/// Of how many tags it is read at once what they name.
const TAGS_AT_ONCE: usize = 1024;

impl Registry {
    /// Returns a page of a repository's tags, in the order of their bytes.
    ///
    /// # Errors
    /// [`Error::RepositoryUnknown`].
    pub(crate) fn tags(&self, repository: &RepositoryName, page: &Page) -> Result<Listing, Error> {
        let tags = self.tag_names(repository)?;
        if tags.is_empty() && !self.has_repository(repository)? {
            return Err(Error::RepositoryUnknown {
                repository: repository.clone(),
            });
        }
        let start = page
            .last
            .as_deref()
            .map_or(0, |last| tags.partition_point(|tag| tag.as_str() <= last));
        let mut listing = Listing::default();
        let mut rest = tags.get(start..).unwrap_or_default();
        while !rest.is_empty() && !listing.more {
            // One more than fits tells whether there is another page.
            let room = page.size_max.map_or(TAGS_AT_ONCE, |max| {
                max.saturating_sub(listing.names.len()).saturating_add(1)
            });
            let (some, after) = rest.split_at(room.min(TAGS_AT_ONCE).min(rest.len()));
            for (tag, target) in some.iter().zip(self.tag_targets(repository, some)?) {
                // A folder alone is no tag: a crash, or `registry:2` in the middle of its work, can
                // leave one.
                if target.is_some() && !listing.offer(page, tag.as_str()) {
                    break;
                }
            }
            rest = after;
        }
        Ok(listing)
    }

    /// Returns what each of some tags names.
    fn tag_targets(
        &self,
        repository: &RepositoryName,
        tags: &[Tag],
    ) -> Result<Vec<Option<Digest>>, Error> {
        let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        self.links(&layout::tags(repository), &names, layout::TAG_CURRENT)
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
            let targets = some.iter().zip(self.tag_targets(repository, some)?);
            let names: Vec<&str> = targets
                .filter(|(_, target)| target.as_ref() == Some(digest))
                .map(|(tag, _)| tag.as_str())
                .collect();
            self.driver.delete_each(&layout::tags(repository), &names)?;
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
