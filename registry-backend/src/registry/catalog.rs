//! The list of repositories.

use std::ops::ControlFlow;

use oci::RepositoryName;

use super::{Error, Listing, Page, Registry};
use crate::storage::error::if_found;
use crate::storage::{Key, layout};

impl Registry {
    /// Returns a page of the repositories that have, or had, a manifest, in the order of their
    /// bytes.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn catalog(&self, page: &Page) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        self.visit_repositories(page.last.as_deref(), &mut |repository| {
            let manifests = layout::manifests(repository);
            let has_manifests = match if_found(self.driver.stat(&manifests)) {
                Ok(found) => found.is_some(),
                Err(error) => {
                    self.report_skipped(&manifests, &error);
                    false
                }
            };
            Ok(
                if !has_manifests || listing.offer(page, repository.as_str()) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                },
            )
        })?;
        Ok(listing)
    }

    /// Visits each folder that may be a repository's and comes after `last`, in the order of the
    /// bytes of their names, until `visit` has seen enough. What is below a folder that cannot be
    /// read is passed over.
    pub(super) fn visit_repositories(
        &self,
        last: Option<&str>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        self.visit_below(&layout::repositories(), None, last, visit)
            .map(drop)
    }

    fn visit_below(
        &self,
        folder: &Key,
        parent: Option<&RepositoryName>,
        last: Option<&str>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let children = match if_found(self.driver.list(folder)) {
            Ok(children) => children.unwrap_or_default(),
            Err(error) if parent.is_some() => {
                self.report_skipped(folder, &error);
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        // `a-b` comes after `a` and before `a/b`: a repository and those below it are two steps.
        let mut steps: Vec<Step> = Vec::with_capacity(children.len() * 2);
        for child in children.into_iter().filter(|child| child.is_folder) {
            let name = match parent {
                Some(parent) => format!("{parent}/{}", child.name).parse(),
                None => child.name.parse(),
            };
            // What is no name is `_layers` and the like, or not of this tree.
            let Ok(name): Result<RepositoryName, _> = name else {
                continue;
            };
            let folder = folder.child(&child.name);
            steps.push(Step::below(&name, folder));
            steps.push(Step::itself(name));
        }
        steps.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix));
        for step in steps.iter().filter(|step| step.reaches_past(last)) {
            let flow = match &step.folder {
                Some(folder) => self.visit_below(folder, Some(&step.name), last, visit)?,
                None => visit(&step.name)?,
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// What is called with each repository.
pub(super) type Visit<'a> = dyn FnMut(&RepositoryName) -> Result<ControlFlow<()>, Error> + 'a;

/// A repository, or all those below it.
#[derive(Debug)]
struct Step {
    name: RepositoryName,
    /// With what every name of this step starts.
    prefix: String,
    /// The folder, if this step is about those below it.
    folder: Option<Key>,
}

impl Step {
    fn itself(name: RepositoryName) -> Self {
        Self {
            prefix: name.to_string(),
            name,
            folder: None,
        }
    }

    fn below(name: &RepositoryName, folder: Key) -> Self {
        Self {
            prefix: format!("{name}/"),
            name: name.clone(),
            folder: Some(folder),
        }
    }

    /// Returns whether a name of this step can come after `last`.
    fn reaches_past(&self, last: Option<&str>) -> bool {
        last.is_none_or(|last| {
            self.prefix.as_str() > last || (self.folder.is_some() && last.starts_with(&self.prefix))
        })
    }
}

#[cfg(test)]
mod tests {
    use oci::{Digest, Reference};

    use super::*;
    use crate::storage::{Driver as _, Durability, Filesystem};

    fn registry_with(root: &tempfile::TempDir, names: &[&str]) -> Registry {
        let driver = Filesystem::open(root.path()).unwrap();
        for name in names {
            driver
                .make_folder(&layout::manifests(&name.parse().unwrap()))
                .unwrap();
        }
        Registry::new(Box::new(driver))
    }

    fn pages(registry: &Registry, size_max: usize) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut page = Page {
            size_max: Some(size_max),
            last: None,
        };
        loop {
            let listing = registry.catalog(&page).unwrap();
            page.last = listing.names.last().cloned();
            pages.push(listing.names);
            if !listing.more {
                return pages;
            }
        }
    }

    #[test]
    fn names_come_in_the_order_of_their_bytes_and_pages_partition_them() {
        let root = tempfile::tempdir().unwrap();
        let names = ["a", "a-b", "a-b/c", "a/b", "a/b/c", "a/c", "a0", "b/d"];
        let registry = registry_with(&root, &names);
        let all = registry.catalog(&Page::default()).unwrap();
        assert_eq!(all.names, names);
        assert!(!all.more);
        for size_max in 1..=names.len() {
            assert_eq!(
                pages(&registry, size_max).concat(),
                names,
                "{size_max} a page"
            );
        }
    }

    #[test]
    fn a_page_starts_after_a_name_that_need_not_exist() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry_with(&root, &["a", "a/b", "c"]);
        for (last, expected) in [
            ("a/a", vec!["a/b", "c"]),
            ("a/b", vec!["c"]),
            ("a/zz", vec!["c"]),
            ("b", vec!["c"]),
            ("z", vec![]),
            ("", vec!["a", "a/b", "c"]),
        ] {
            let page = Page {
                size_max: None,
                last: Some(last.to_owned()),
            };
            assert_eq!(registry.catalog(&page).unwrap().names, expected, "{last}");
        }
    }

    #[test]
    fn only_what_has_had_a_manifest_is_listed() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry_with(&root, &["a"]);
        let driver = &registry.driver;
        let name: RepositoryName = "blobs-only".parse().unwrap();
        driver.make_folder(&layout::layers(&name)).unwrap();
        let foreign = layout::repositories().child("Not A Name");
        driver.make_folder(&foreign.child("_manifests")).unwrap();
        let file = layout::repositories().child("file");
        driver.write(&file, b"", Durability::Process).unwrap();
        assert_eq!(registry.catalog(&Page::default()).unwrap().names, ["a"]);
        let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let unknown = registry.manifest(&name, &Reference::Digest(digest));
        assert!(matches!(unknown, Err(Error::ManifestUnknown { .. })));
    }
}
