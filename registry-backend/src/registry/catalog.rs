//! The list of repositories.

use std::ops::ControlFlow;

use oci::{RepositoryName, Visibility};

use super::{Error, Listing, Page, Registry};
use crate::storage::error::if_found;
use crate::storage::{Key, Wait, layout};

impl Registry {
    /// Returns a page of the repositories that have, or had, a manifest, in the order of their
    /// bytes: of those that `visible` shows, as if there were no others.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn catalog(
        &self,
        page: &Page,
        visible: Option<&Visibility>,
    ) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        self.visit_visible(page.last.as_deref(), visible, &mut |repository| {
            let manifests = layout::manifests(repository);
            let has_manifests = match if_found(self.driver.stat(&manifests, Wait::AsNeeded)) {
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
        self.visit_visible(last, None, visit)
    }

    /// Visits those that `visible` shows, and does not look into folders where it shows nothing.
    pub(super) fn visit_visible(
        &self,
        last: Option<&str>,
        visible: Option<&Visibility>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let wanted = Wanted { last, visible };
        self.visit_below(&layout::repositories(), None, &wanted, visit)
            .map(drop)
    }

    fn visit_below(
        &self,
        folder: &Key,
        parent: Option<&RepositoryName>,
        wanted: &Wanted<'_>,
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
        for step in steps.iter().filter(|step| wanted.has(step)) {
            let flow = match &step.folder {
                Some(folder) => self.visit_below(folder, Some(&step.name), wanted, visit)?,
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

/// Which repositories are visited.
struct Wanted<'a> {
    /// Only those that come after this.
    last: Option<&'a str>,
    /// Only those that this shows; without it, all.
    visible: Option<&'a Visibility>,
}

impl Wanted<'_> {
    fn has(&self, step: &Step) -> bool {
        let shows = |visible: &Visibility| match step.folder {
            Some(_) => visible.may_show_below(&step.name),
            None => visible.shows(&step.name),
        };
        step.reaches_past(self.last) && self.visible.is_none_or(shows)
    }
}

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
    use std::sync::Arc;

    use oci::{Digest, Reference};

    use super::*;
    use crate::storage::faulty::{Faults, Faulty};
    use crate::storage::{Driver as _, Durability, Filesystem};

    fn registry_with(root: &tempfile::TempDir, names: &[&str]) -> Registry {
        let driver = Filesystem::open(root.path(), true).unwrap();
        for name in names {
            driver
                .make_folder(&layout::manifests(&name.parse().unwrap()))
                .unwrap();
        }
        Registry::new(Box::new(driver))
    }

    fn pages(
        registry: &Registry,
        size_max: usize,
        visible: Option<&Visibility>,
    ) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut page = Page {
            size_max: Some(size_max),
            last: None,
        };
        loop {
            let listing = registry.catalog(&page, visible).unwrap();
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
        let all = registry.catalog(&Page::default(), None).unwrap();
        assert_eq!(all.names, names);
        assert!(!all.more);
        for size_max in 1..=names.len() {
            assert_eq!(
                pages(&registry, size_max, None).concat(),
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
            let listing = registry.catalog(&page, None).unwrap();
            assert_eq!(listing.names, expected, "{last}");
        }
    }

    #[test]
    fn pages_of_what_is_visible_are_full_and_name_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let names = ["a", "a/b", "a/b/c", "b", "b/a", "c/d", "c/e", "d"];
        let registry = registry_with(&root, &names);
        for (visible, expected) in [
            ("+**", names.to_vec()),
            ("-**", vec![]),
            ("-a/**,+**", vec!["a", "b", "b/a", "c/d", "c/e", "d"]),
            ("+*/b,+c/**", vec!["a/b", "c/d", "c/e"]),
            ("-c/d,+c/*", vec!["c/e"]),
            ("+**/a", vec!["a", "b/a"]),
            ("+z/**", vec![]),
        ] {
            let visible: Visibility = visible.parse().unwrap();
            for size_max in 1..=names.len() {
                let pages = pages(&registry, size_max, Some(&visible));
                assert_eq!(pages.concat(), expected, "{visible}");
                // A page that is not full is the last, and says so.
                let full = pages.iter().filter(|page| page.len() == size_max).count();
                assert!(full >= pages.len() - 1, "{visible}: {pages:?}");
                assert!(
                    pages.len() == 1 || !pages.last().unwrap().is_empty(),
                    "{visible}"
                );
            }
        }
    }

    #[test]
    fn a_folder_in_which_nothing_is_visible_is_not_looked_into() {
        let root = tempfile::tempdir().unwrap();
        drop(registry_with(&root, &["open/a", "shut/a/b"]));
        let faults = Arc::new(Faults::default());
        let driver = Filesystem::open(root.path(), true).unwrap();
        let driver = Faulty::new(driver, Arc::clone(&faults));
        let registry = Registry::new(Box::new(driver));
        faults.break_reads(Some("shut"));
        let visible: Visibility = "+open/*".parse().unwrap();
        for (visible, looked_into) in [(Some(&visible), false), (None, true)] {
            let listing = registry.catalog(&Page::default(), visible).unwrap();
            assert_eq!(listing.names, ["open/a"]);
            let reported = !registry.reported.lock().unwrap().is_empty();
            assert_eq!(reported, looked_into);
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
        assert_eq!(
            registry.catalog(&Page::default(), None).unwrap().names,
            ["a"]
        );
        let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let unknown = registry.manifest(&name, &Reference::Digest(digest), Wait::AsNeeded);
        assert!(matches!(unknown, Err(Error::ManifestUnknown { .. })));
    }
}
