//! The walk through all repositories.

use std::ops::ControlFlow;

use oci::repository::is_component;
use oci::{RepositoryName, Visibility};

use super::{Error, Registry};
use crate::storage::error::if_found;
use crate::storage::{Entry, Key, Wait, layout};

/// Into how many folders a visit looks at first, and how many more each time, up to so many: what it
/// looks into and does not get to is work for nothing.
const LOOKS_FIRST: usize = 4;
const LOOKS_MORE: usize = 4;
const LOOKS_MAX: usize = 64;

impl Registry {
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
        let folder = layout::repositories();
        let children = if_found(self.driver.list(&folder))?.unwrap_or_default();
        let level = Level {
            children: folders(children),
            folder,
            parent: None,
        };
        self.visit_level(level, &mut { LOOKS_FIRST }, &wanted, visit)
            .map(drop)
    }

    /// Visits those of a level that are wanted, and all below them. It looks into so many at once as
    /// `looks` says, which grows, and the next level of the same depth goes on with it.
    fn visit_level(
        &self,
        level: Level,
        looks: &mut usize,
        wanted: &Wanted<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let folder = &level.folder;
        let (children, steps) = steps(level.children, level.parent.as_ref(), wanted);
        let mut looked: Vec<Found> = Vec::with_capacity(children.len());
        let mut looks_below = LOOKS_FIRST;
        for step in steps {
            if looked.len() <= step.child {
                let next = children.get(looked.len()..).unwrap_or_default();
                let next = next
                    .get(..(*looks).max(step.child + 1 - looked.len()))
                    .unwrap_or(next);
                looked.extend(self.look_into(folder, next));
                *looks = (*looks * LOOKS_MORE).min(LOOKS_MAX);
            }
            let Some(found) = looked.get_mut(step.child) else {
                continue;
            };
            let flow = if !step.is_below {
                visit(found)?
            } else if found.below.is_empty() {
                continue;
            } else {
                let level = Level {
                    folder: folder.child(found.name.components().last().unwrap_or_default()),
                    children: std::mem::take(&mut found.below),
                    parent: Some(found.name.clone()),
                };
                self.visit_level(level, &mut looks_below, wanted, visit)?
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Looks into some of the folders in `folder`.
    fn look_into(&self, folder: &Key, children: &[(String, RepositoryName)]) -> Vec<Found> {
        let names: Vec<&str> = children.iter().map(|(name, _)| name.as_str()).collect();
        let lists = self.driver.list_each(folder, &names);
        let found = lists
            .into_iter()
            .zip(children)
            .map(|(list, (child, name))| {
                let (has_manifests, below) = match if_found(list) {
                    Ok(list) => {
                        let list = list.unwrap_or_default();
                        let is_manifests = |entry: &Entry| entry.name == layout::MANIFESTS;
                        (list.iter().any(is_manifests), folders(list))
                    }
                    Err(error) => {
                        self.report_skipped(&folder.child(child), &error);
                        (self.may_have_manifests(name), Vec::new())
                    }
                };
                Found {
                    name: name.clone(),
                    has_manifests,
                    below,
                }
            });
        found.collect()
    }

    /// Returns whether a repository has, or had, a manifest, as far as can be said.
    fn may_have_manifests(&self, repository: &RepositoryName) -> bool {
        let manifests = layout::manifests(repository);
        match if_found(self.driver.stat(&manifests, Wait::AsNeeded)) {
            Ok(found) => found.is_some(),
            Err(error) => {
                self.report_skipped(&manifests, &error);
                false
            }
        }
    }
}

/// What is called with each repository.
pub(super) type Visit<'a> = dyn FnMut(&Found) -> Result<ControlFlow<()>, Error> + 'a;

/// The folders in one.
struct Level {
    folder: Key,
    /// The names of those in it that may be repositories, or lead to some.
    children: Vec<String>,
    /// What the repository is called whose folder it is.
    parent: Option<RepositoryName>,
}

/// A folder that may be a repository's.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: RepositoryName,
    /// Whether it has, or had, a manifest.
    pub(super) has_manifests: bool,
    /// The folders in it that may be repositories, or lead to some.
    below: Vec<String>,
}

/// Returns those of the children of a folder that may be repositories, or lead to some.
fn folders(children: Vec<Entry>) -> Vec<String> {
    children
        .into_iter()
        // What is no name is `_layers` and the like, or not of this tree.
        .filter(|child| child.is_folder && is_component(&child.name))
        .map(|child| child.name)
        .collect()
}

/// Returns those of `children` that are wanted, themselves or what is below them, and the steps to
/// take, in their order: `a-b` comes after `a` and before `a/b`, so a repository and those below it
/// are two steps.
fn steps(
    children: Vec<String>,
    parent: Option<&RepositoryName>,
    wanted: &Wanted<'_>,
) -> (Vec<(String, RepositoryName)>, Vec<Step>) {
    let mut kept = Vec::with_capacity(children.len());
    let mut steps = Vec::with_capacity(children.len() * 2);
    for child in children {
        let name = match parent {
            Some(parent) => format!("{parent}/{child}").parse(),
            None => child.parse(),
        };
        let Ok(name): Result<RepositoryName, _> = name else {
            continue; // too long
        };
        let before = steps.len();
        for is_below in [false, true] {
            let step = Step::new(kept.len(), &name, is_below);
            steps.extend(wanted.has(&name, &step).then_some(step));
        }
        if steps.len() > before {
            kept.push((child, name));
        }
    }
    steps.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix));
    (kept, steps)
}

/// Which repositories are visited.
struct Wanted<'a> {
    /// Only those that come after this.
    last: Option<&'a str>,
    /// Only those that this shows; without it, all.
    visible: Option<&'a Visibility>,
}

impl Wanted<'_> {
    fn has(&self, name: &RepositoryName, step: &Step) -> bool {
        let shows = |visible: &Visibility| match step.is_below {
            true => visible.may_show_below(name),
            false => visible.shows(name),
        };
        step.reaches_past(self.last) && self.visible.is_none_or(shows)
    }
}

/// A repository, or all those below it.
#[derive(Debug)]
struct Step {
    /// Which of the children it is.
    child: usize,
    /// With what every name of this step starts.
    prefix: String,
    /// Whether it is about those below.
    is_below: bool,
}

impl Step {
    fn new(child: usize, name: &RepositoryName, is_below: bool) -> Self {
        let prefix = match is_below {
            true => format!("{name}/"),
            false => name.to_string(),
        };
        Self {
            child,
            prefix,
            is_below,
        }
    }

    /// Returns whether a name of this step can come after `last`.
    fn reaches_past(&self, last: Option<&str>) -> bool {
        last.is_none_or(|last| {
            self.prefix.as_str() > last || (self.is_below && last.starts_with(&self.prefix))
        })
    }
}
