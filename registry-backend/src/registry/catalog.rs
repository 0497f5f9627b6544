//! The list of repositories.

use std::ops::ControlFlow;

use oci::Visibility;

use super::{Error, Listing, Page, Registry};

impl Registry {
    /// Returns a page of the repositories that have, or had, a manifest, in the order of their
    /// bytes: of those that `visible` shows, as if there were no others.
    ///
    /// Where a number of them is asked for and they do not fit in the page, the rest is counted to
    /// find the `end`; it takes no memory.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn catalog(
        &self,
        page: &Page,
        visible: Option<&Visibility>,
    ) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        let mut is_full = false;
        let mut count = 0;
        let mut last = None;
        self.visit_visible(page.last.as_deref(), visible, &mut |found| {
            let name = found.name.as_str();
            if !found.has_manifests {
                return Ok(ControlFlow::Continue(()));
            }
            if page.until.as_deref().is_some_and(|until| name > until) {
                return Ok(ControlFlow::Break(()));
            }
            is_full = is_full || !listing.offer(page, name);
            match page.size_max {
                Some(max) if count >= max => {
                    listing.end = last.take();
                    return Ok(ControlFlow::Break(()));
                }
                None if is_full => return Ok(ControlFlow::Break(())),
                _ => {}
            }
            count += 1;
            last = page.size_max.map(|_| name.to_owned());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use oci::{Digest, Reference, RepositoryName};

    use super::super::pages::json_bytes;
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
            ..Page::default()
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
    fn what_does_not_fit_in_a_page_is_counted_to_find_the_end() {
        let root = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c", "d", "e"];
        let registry = registry_with(&root, &names);
        let list = |size_max, fit: usize, last: Option<&str>, until: Option<&str>| {
            let page = Page {
                size_max,
                bytes_max: fit * json_bytes("a"),
                last: last.map(str::to_owned),
                until: until.map(str::to_owned),
            };
            let listing = registry.catalog(&page, None).unwrap();
            (listing.names.concat(), listing.more, listing.end)
        };
        let end = |name: &str| Some(name.to_owned());
        for (listed, expected) in [
            (list(Some(3), 9, None, None), ("abc", true, end("c"))),
            (list(Some(3), 2, None, None), ("ab", true, end("c"))),
            (list(Some(3), 0, None, None), ("a", true, end("c"))),
            (list(Some(5), 2, None, None), ("ab", true, None)),
            (list(Some(9), 9, None, None), ("abcde", false, None)),
            (list(Some(0), 9, None, None), ("", true, None)),
            (list(None, 2, Some("b"), None), ("cd", true, None)),
            (list(None, 9, Some("b"), Some("c")), ("c", false, None)),
            (list(None, 9, Some("b"), Some("cc")), ("c", false, None)),
            (list(None, 1, Some("b"), Some("d")), ("c", true, None)),
        ] {
            let (names, more, end) = listed;
            assert_eq!((names.as_str(), more, end), expected);
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
                last: Some(last.to_owned()),
                ..Page::default()
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
        let reference = Reference::Digest(digest);
        let unknown = registry.manifest(&name, &reference, u64::MAX, Wait::AsNeeded);
        assert!(matches!(unknown, Err(Error::ManifestUnknown { .. })));
    }
}
