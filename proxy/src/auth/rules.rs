//! Who may do what in which repository, as the config says: the first rule that fits decides.

use std::net::IpAddr;
use std::str::FromStr;

use oci::{Action, RepositoryName, RepositoryPattern};

use super::groups::Members;
use super::{Actions, Origin, User};
use crate::filter::addresses::{Addresses, Network};

/// The rules of a site, in the order written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(Box<[Rule]>);

/// One rule: whom it is about, what they want, where; and whether they may.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// What the config calls it, such as `site[0].access.rule[2]`.
    pub(crate) key: Box<str>,
    pub(crate) repositories: Box<[RepositoryPattern]>,
    pub(crate) who: Box<[Who]>,
    pub(crate) actions: Actions,
    pub(crate) addresses: Addresses,
    pub(crate) effect: Effect,
}

/// What a rule that fits decides.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Effect {
    #[default]
    Allow,
    Deny,
}

/// Whom a rule is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Who {
    /// `10.0.0.0/8`: whoever comes from there.
    Address(Network),
    /// `anonymous`: everyone, with a name or without.
    Anyone,
    /// `authenticated`: everyone with a name.
    Authenticated,
    /// `cert:ci.example.com`: who has shown a certificate of that name.
    Certificate(Box<str>),
    /// `@team`: a group of the group file, or a certificate's organizational unit.
    Group(Box<str>),
    /// `alice`: who has proven this name with a password.
    User(Box<str>),
}

/// Who asks, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) user: Option<&'a User>,
    /// What `${user}` stands for: a name that nobody else can have here.
    pub(crate) own_name: Option<&'a str>,
    pub(crate) members: &'a Members,
    pub(crate) client: IpAddr,
}

/// What the rules say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decided<'a> {
    /// This rule fits.
    By(&'a Rule),
    /// None does, which is a no.
    ByNone,
}

impl Rules {
    /// Takes the rules in their order.
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self(rules.into())
    }

    /// Visits each rule.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Rule> {
        self.0.iter()
    }

    /// Returns whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what the config calls each rule that denies.
    pub(crate) fn denying_keys(&self) -> impl Iterator<Item = &str> {
        let rules = self.0.iter();
        let denying = rules.filter(|rule| rule.effect == Effect::Deny);
        denying.map(|rule| &*rule.key)
    }

    /// Returns whether somebody without a name may do anything at all.
    pub(crate) fn admit_anonymous(&self) -> bool {
        self.0.iter().any(|rule| {
            let nameless = |who: &Who| matches!(who, Who::Address(_) | Who::Anyone);
            rule.effect == Effect::Allow && rule.who.iter().any(nameless)
        })
    }

    /// Decides whether `asker` may do `action` in `repository`, which the catalog alone has none of.
    pub(crate) fn decide(
        &self,
        asker: &Asker<'_>,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Decided<'_> {
        let user = asker.own_name;
        let concerns = |rule: &&Rule| {
            let mut patterns = rule.repositories.iter();
            rule.is_about(asker, action)
                && match repository {
                    Some(repository) => patterns.any(|pattern| pattern.matches(repository, user)),
                    // What is denied in some repositories is missing from the list: the list
                    // itself is not denied by that.
                    None => rule.effect == Effect::Allow || patterns.any(is_everything),
                }
        };
        self.0
            .iter()
            .find(concerns)
            .map_or(Decided::ByNone, Decided::By)
    }

    /// Lists which repositories `asker` may pull from, each pattern with whether it is a yes, the
    /// first that matches deciding; `None` is all of them.
    pub(crate) fn visible(&self, asker: &Asker<'_>) -> Option<Vec<(bool, RepositoryPattern)>> {
        let user = asker.own_name;
        let mut visible = Vec::new();
        let concerning = |rule: &&Rule| rule.is_about(asker, Action::Pull);
        for rule in self.0.iter().filter(concerning) {
            let allow = rule.effect == Effect::Allow;
            let patterns = rule.repositories.iter();
            for pattern in patterns.filter_map(|pattern| pattern.for_user(user)) {
                let everything = is_everything(&pattern);
                if everything && allow && visible.is_empty() {
                    return None;
                }
                visible.push((allow, pattern));
                if everything {
                    return Some(visible);
                }
            }
        }
        Some(visible)
    }
}

fn is_everything(pattern: &RepositoryPattern) -> bool {
    pattern.as_str() == "**"
}

impl Rule {
    /// Returns whether the rule is about this action and who asks for it, whatever the repository.
    fn is_about(&self, asker: &Asker<'_>, action: Action) -> bool {
        self.actions.contains(action)
            && self.addresses.admit(asker.client).is_ok()
            && self.who.iter().any(|who| who.is(asker))
    }
}

impl Who {
    fn is(&self, asker: &Asker<'_>) -> bool {
        let named = |name: &str, origin| {
            let user = asker.user;
            user.is_some_and(|user| user.origin == origin && *user.name == *name)
        };
        match self {
            Self::Address(network) => network.contains(asker.client),
            Self::Anyone => true,
            Self::Authenticated => asker.user.is_some(),
            Self::Certificate(name) => named(name, Origin::Certificate),
            Self::Group(group) => asker
                .user
                .is_some_and(|user| user.groups.contains(group) || asker.members.has(group, user)),
            Self::User(name) => named(name, Origin::Password),
        }
    }
}

impl FromStr for Who {
    type Err = WhoError;

    fn from_str(text: &str) -> Result<Self, WhoError> {
        if let Ok(network) = text.parse() {
            return Ok(Self::Address(network));
        }
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(WhoError::Empty);
        }
        match (text, text.split_once(':')) {
            ("anonymous", _) => Ok(Self::Anyone),
            ("authenticated", _) => Ok(Self::Authenticated),
            ("@" | "cert:", _) => Err(WhoError::Empty),
            ("*", _) => Err(WhoError::Star),
            (_, Some(("cert", name))) => Ok(Self::Certificate(name.into())),
            // No htpasswd file has a colon in a name.
            (_, Some(_)) => Err(WhoError::Kind),
            (_, None) => Ok(match text.strip_prefix('@') {
                Some(group) => Self::Group(group.into()),
                None if text.contains('/') => return Err(WhoError::Network),
                None => Self::User(text.into()),
            }),
        }
    }
}

/// Why a text names nobody.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum WhoError {
    #[error("names nobody")]
    Empty,
    #[error(
        "before a colon only \"cert\" is known; write a user as \"alice\", a group as \"@team\""
    )]
    Kind,
    #[error("is not a valid network, such as \"10.0.0.0/8\"")]
    Network,
    #[error("write \"anonymous\" for everyone, or \"authenticated\" for everyone with a name")]
    Star,
}

impl Effect {
    /// Every effect, as the config writes it.
    pub(crate) const NAMES: [(&'static str, Self); 2] =
        [("allow", Self::Allow), ("deny", Self::Deny)];
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.0.2.1";

    fn rule(key: &str, repositories: &[&str], who: &[&str], actions: &[&str]) -> Rule {
        let mut set = Actions::default();
        for action in actions {
            set.insert(Actions::named(action).unwrap());
        }
        Rule {
            key: key.into(),
            repositories: repositories
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
            who: who.iter().map(|text| text.parse().unwrap()).collect(),
            actions: set,
            addresses: Addresses::default(),
            effect: Effect::Allow,
        }
    }

    fn denying(rule: Rule) -> Rule {
        Rule {
            effect: Effect::Deny,
            ..rule
        }
    }

    fn user(name: &str, origin: Origin, groups: &[&str]) -> User {
        User {
            groups: groups.iter().map(|&group| group.into()).collect(),
            ..User::new(name, origin)
        }
    }

    /// Returns the key of the rule that allows, the key of the one that denies in brackets, or none.
    fn ask(rules: &Rules, user: Option<&User>, action: Action, repository: &str) -> String {
        let members = Members::parse("ops: alice cert:ci\n").0;
        let asker = Asker {
            user,
            own_name: user.map(|user| &*user.name),
            members: &members,
            client: HERE.parse().unwrap(),
        };
        let repository: RepositoryName = repository.parse().unwrap();
        match rules.decide(&asker, action, Some(&repository)) {
            Decided::By(rule) if rule.effect == Effect::Allow => rule.key.to_string(),
            Decided::By(rule) => format!("({})", rule.key),
            Decided::ByNone => "none".to_owned(),
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_none_is_a_no() {
        let rules = Rules::new(vec![
            denying(rule("0", &["public/secret/**"], &["anonymous"], &["*"])),
            rule("1", &["public/**"], &["anonymous"], &["pull"]),
            rule("2", &["team/**"], &["alice", "@dev"], &["pull", "push"]),
            rule("3", &["home/${user}/**"], &["authenticated"], &["*"]),
            rule("4", &["**"], &["cert:ci"], &["pull"]),
            rule("5", &["**"], &["@ops"], &["delete"]),
        ]);
        let alice = user("alice", Origin::Password, &[]);
        let bob = user("bob", Origin::Password, &[]);
        let dev = user("eve", Origin::Certificate, &["dev"]);
        let ci = user("ci", Origin::Certificate, &[]);
        let false_ci = user("ci", Origin::Password, &[]);
        let false_alice = user("alice", Origin::Certificate, &[]);
        for (who, action, repository, expected) in [
            (None, Action::Pull, "public/app", "1"),
            (Some(&alice), Action::Pull, "public/app", "1"),
            (None, Action::Push, "public/app", "none"),
            (None, Action::Pull, "public/secret/x", "(0)"),
            (None, Action::Pull, "team/app", "none"),
            (Some(&alice), Action::Push, "team/app", "2"),
            (Some(&bob), Action::Push, "team/app", "none"),
            (Some(&dev), Action::Push, "team/app", "2"),
            (Some(&alice), Action::Delete, "home/alice/x", "3"),
            (Some(&bob), Action::Pull, "home/alice/x", "none"),
            (Some(&ci), Action::Pull, "any/thing", "4"),
            (Some(&false_ci), Action::Pull, "any/thing", "none"),
            (Some(&alice), Action::Delete, "any/thing", "5"),
            (Some(&ci), Action::Delete, "any/thing", "5"),
            (Some(&false_alice), Action::Delete, "any/thing", "none"),
            (Some(&false_alice), Action::Push, "team/app", "none"),
        ] {
            let found = ask(&rules, who, action, repository);
            assert_eq!(found, expected, "{who:?} {action:?} {repository}");
        }
        assert!(rules.admit_anonymous());
    }

    #[test]
    fn the_list_is_denied_by_a_rule_about_everything_alone() {
        let members = Members::default();
        let some = denying(rule("0", &["a/**"], &["anonymous"], &["*"]));
        let all = denying(rule("1", &["b", "**"], &["192.0.2.1"], &["*"]));
        let list = rule("2", &["a"], &["anonymous"], &["catalog"]);
        for (rules, client, expected) in [
            (vec![some.clone(), list.clone()], HERE, Some(true)),
            (
                vec![some.clone(), all.clone(), list.clone()],
                HERE,
                Some(false),
            ),
            (vec![some.clone(), all, list], "::1", Some(true)),
            (vec![some], HERE, None),
        ] {
            let rules = Rules::new(rules);
            let asker = Asker {
                user: None,
                own_name: None,
                members: &members,
                client: client.parse().unwrap(),
            };
            let found = match rules.decide(&asker, Action::Catalog, None) {
                Decided::By(rule) => Some(rule.effect == Effect::Allow),
                Decided::ByNone => None,
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn addresses_are_a_condition_and_a_who() {
        let mut inside = rule("0", &["**"], &["authenticated"], &["pull"]);
        inside.addresses.allow = ["10.0.0.0/8".parse().unwrap()].into();
        let rules = Rules::new(vec![
            inside,
            rule("1", &["**"], &["192.0.2.0/24"], &["pull"]),
        ]);
        let alice = user("alice", Origin::Password, &[]);
        assert_eq!(ask(&rules, Some(&alice), Action::Pull, "a"), "1");
        assert_eq!(ask(&rules, None, Action::Pull, "a"), "1");
        assert_eq!(ask(&rules, None, Action::Push, "a"), "none");
    }

    #[test]
    fn what_may_be_pulled_is_listed_in_the_order_of_the_rules() {
        let members = Members::default();
        let alice = user("alice", Origin::Password, &[]);
        let list = |rules: &Rules, user| {
            let asker = Asker {
                user,
                own_name: user.map(|user: &User| &*user.name),
                members: &members,
                client: HERE.parse().unwrap(),
            };
            rules.visible(&asker).map(|visible| {
                let sign = |allow| if allow { '+' } else { '-' };
                let items = visible.iter();
                let items = items.map(|(allow, pattern)| format!("{}{pattern}", sign(*allow)));
                items.collect::<Vec<_>>().join(",")
            })
        };
        let rules = Rules::new(vec![
            denying(rule("0", &["a/x"], &["anonymous"], &["pull"])),
            rule("1", &["a/**", "b"], &["anonymous"], &["pull", "push"]),
            rule("2", &["c/**"], &["anonymous"], &["push"]),
            rule("3", &["home/${user}/**"], &["authenticated"], &["*"]),
        ]);
        assert_eq!(list(&rules, None).as_deref(), Some("-a/x,+a/**,+b"));
        assert_eq!(
            list(&rules, Some(&alice)).as_deref(),
            Some("-a/x,+a/**,+b,+home/alice/**")
        );
        let all = Rules::new(vec![rule("0", &["**"], &["authenticated"], &["*"])]);
        assert_eq!(list(&all, Some(&alice)), None);
        assert_eq!(list(&all, None).as_deref(), Some(""));
    }

    #[test]
    fn who_is_meant_is_read_or_refused() {
        for (text, expected) in [
            ("anonymous", Ok(Who::Anyone)),
            ("authenticated", Ok(Who::Authenticated)),
            ("alice", Ok(Who::User("alice".into()))),
            ("@dev", Ok(Who::Group("dev".into()))),
            ("cert:a:b", Ok(Who::Certificate("a:b".into()))),
            (
                "10.0.0.0/8",
                Ok(Who::Address("10.0.0.0/8".parse().unwrap())),
            ),
            ("::1", Ok(Who::Address("::1".parse().unwrap()))),
            ("", Err(WhoError::Empty)),
            ("@", Err(WhoError::Empty)),
            ("cert:", Err(WhoError::Empty)),
            ("*", Err(WhoError::Star)),
            ("user:alice", Err(WhoError::Kind)),
            ("10.0.0.0/33", Err(WhoError::Network)),
        ] {
            assert_eq!(text.parse::<Who>(), expected, "{text}");
        }
    }
}
