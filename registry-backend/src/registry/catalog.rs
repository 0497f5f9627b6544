//! The list of repositories.
//!
//! Ordered component by component, which is the order of a walk through the tree: `a/b` comes
//! before `a-b`. A page can thus start in the middle without looking at what comes before.

use std::ops::ControlFlow;

use oci::RepositoryName;

use super::{Error, Listing, Page, Registry};
use crate::storage::error::if_found;
use crate::storage::{Entry, Key, layout};

/// What is called with each repository and the children of its folder.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&RepositoryName, &[Entry]) -> ControlFlow<()>;

impl Registry {
    /// Returns a page of the repositories that have, or had, a manifest.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn catalog(&self, page: &Page) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        self.visit_repositories(page.last.as_deref(), &mut |repository, children| {
            let has_manifests = children
                .iter()
                .any(|child| child.name == layout::MANIFESTS && child.is_folder);
            if !has_manifests || listing.offer(page, repository.as_str()) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(listing)
    }

    /// Visits each folder that a repository could be in and that comes after `last`.
    pub(super) fn visit_repositories(
        &self,
        last: Option<&str>,
        visit: Visit<'_>,
    ) -> Result<(), Error> {
        let last: Option<Vec<&str>> = last.map(|last| last.split('/').collect());
        // Whether the visitor has had enough is its own affair.
        let _flow = self.visit_below(&layout::repositories(), None, last.as_deref(), visit)?;
        Ok(())
    }

    /// Visits the repository `name` in `folder` and those below it; where `after` is given, only
    /// those below, and only those that come after it.
    fn visit_below(
        &self,
        folder: &Key,
        name: Option<&RepositoryName>,
        after: Option<&[&str]>,
        visit: Visit<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let Some(children) = if_found(self.driver.list(folder))? else {
            return Ok(ControlFlow::Continue(())); // deleted meanwhile
        };
        if let Some(name) = name
            && after.is_none()
            && visit(name, &children).is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        for child in children.iter().filter(|child| child.is_folder) {
            let after = match after.and_then(<[&str]>::split_first) {
                Some((first, _)) if child.name.as_str() < *first => continue,
                Some((first, rest)) if child.name == *first => Some(rest),
                _ => None,
            };
            let name = match name {
                Some(parent) => format!("{parent}/{}", child.name).parse(),
                None => child.name.parse(),
            };
            let Ok(name) = name else {
                continue; // `_layers` and the like, or not of this tree
            };
            let folder = folder.child(&child.name);
            if self
                .visit_below(&folder, Some(&name), after, visit)?
                .is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
