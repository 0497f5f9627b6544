//! The list of repositories.

use std::ops::ControlFlow;

use oci::Visibility;

use super::{Error, Listing, Page, Registry};

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
        self.visit_visible(page.last.as_deref(), visible, &mut |found| {
            Ok(
                if !found.has_manifests || listing.offer(page, found.name.as_str()) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                },
            )
        })?;
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use oci::{Digest, Reference, RepositoryName};

    use super::*;
    use crate::storage::faulty::{Faults, Faulty};
    use crate::storage::{Driver as _, Durability, Filesystem, Wait, layout};

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
