//! What a credential is limited to: that of a robot, or a bearer token.

use oci::{Action, RepositoryName, RepositoryPattern};

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Actions(u8);

/// What may be done in some repositories.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Grant {
    pub(crate) repositories: RepositoryPattern,
    pub(crate) actions: Actions,
}

/// What may be done with a credential, and nothing else.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Grants {
    pub(crate) repositories: Box<[Grant]>,
    /// Whether the repositories may be listed.
    pub(crate) catalog: bool,
}

impl Actions {
    /// Every action.
    pub(crate) const ALL: Self = Self(0b1111);

    /// Their names, as configs and tokens write them.
    pub(crate) const NAMES: [(&'static str, Action); 4] = [
        ("pull", Action::Pull),
        ("push", Action::Push),
        ("delete", Action::Delete),
        ("catalog", Action::Catalog),
    ];

    /// Reads the name of an action; `*` is all of them.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let known = Self::words();
        let mut known = known.into_iter().filter(|(word, _)| *word == name);
        known.next().map(|(_, actions)| actions)
    }

    /// Returns every word for actions, as configs write them, and what it stands for.
    pub(crate) fn words() -> [(&'static str, Self); 5] {
        let [pull, push, delete, catalog] =
            Self::NAMES.map(|(name, action)| (name, Self::of(action)));
        [pull, push, delete, catalog, ("*", Self::ALL)]
    }

    /// Returns the name of an action.
    pub(crate) fn name(action: Action) -> &'static str {
        match action {
            Action::Catalog => "catalog",
            Action::Delete => "delete",
            Action::Pull => "pull",
            Action::Push => "push",
        }
    }

    /// Returns the set of one.
    pub(crate) fn of(action: Action) -> Self {
        Self(match action {
            Action::Catalog => 1,
            Action::Delete => 2,
            Action::Pull => 4,
            Action::Push => 8,
        })
    }

    /// Adds the actions of `other`.
    pub(crate) fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Returns whether `action` is in it.
    pub(crate) fn contains(self, action: Action) -> bool {
        self.0 & Self::of(action).0 != 0
    }
}

impl Grants {
    /// Returns whether `action` is granted; one that is in no repository is about all of them.
    pub(crate) fn allow(&self, action: Action, repository: Option<&RepositoryName>) -> bool {
        match repository {
            Some(repository) => self.repositories.iter().any(|grant| {
                grant.actions.contains(action) && grant.repositories.matches(repository, None)
            }),
            None => self.catalog && action == Action::Catalog,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_actions_belong_together() {
        for (name, action) in Actions::NAMES {
            let actions = Actions::named(name).unwrap();
            assert_eq!(Actions::name(action), name);
            for (_, other) in Actions::NAMES {
                assert_eq!(actions.contains(other), other == action, "{name}");
            }
            assert!(Actions::named("*").unwrap().contains(action));
        }
        assert_eq!(Actions::named("Pull"), None);
    }

    #[test]
    fn nothing_is_granted_but_what_is_written() {
        let grants = Grants {
            repositories: [Grant {
                repositories: "team/**".parse().unwrap(),
                actions: Actions::of(Action::Pull),
            }]
            .into(),
            catalog: false,
        };
        let [team, other] = ["team/app", "other"].map(|name| name.parse().unwrap());
        assert!(grants.allow(Action::Pull, Some(&team)));
        assert!(!grants.allow(Action::Push, Some(&team)));
        assert!(!grants.allow(Action::Pull, Some(&other)));
        assert!(!grants.allow(Action::Catalog, None));
        let all = Grants {
            catalog: true,
            ..grants
        };
        assert!(all.allow(Action::Catalog, None));
        assert!(!all.allow(Action::Pull, None));
    }
}
