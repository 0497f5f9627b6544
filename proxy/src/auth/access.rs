//! What a site lets whom do: its address lists, its rules, and what a credential is limited to.
//!
//! One decision for all who ask for one: the request at hand, the token endpoint that grants no more
//! than it, the list of repositories, and `tidegate access explain`.

use std::borrow::Cow;
use std::net::IpAddr;

use oci::{Action, RepositoryName, Visibility};

use super::groups::Members;
use super::rules::{Asker, Decided, Effect, Rules};
use super::{Groups, Origin, Principal, User};
use crate::filter::addresses::Addresses;

/// `[site.access]`, and whether the site asks for names at all.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// What the config calls the site, such as `site[0]`.
    pub(crate) site: Box<str>,
    pub(crate) addresses: Addresses,
    pub(crate) satisfy: Satisfy,
    pub(crate) rules: Rules,
    pub(crate) groups: Groups,
    /// There is a way to log in.
    pub(crate) authenticates: bool,
    /// There are users with passwords, whose names are theirs alone.
    pub(crate) passwords: bool,
}

/// What of address and name has to be good.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Satisfy {
    /// Both.
    #[default]
    All,
    /// Either.
    Any,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) client: IpAddr,
    /// What, and where; none is to come in and no more.
    pub(crate) action: Option<(Action, Option<&'a RepositoryName>)>,
}

/// A no, with what says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Denial {
    /// Not for this one, whoever it is.
    Forbidden(Cow<'static, str>),
    /// Not without a name: to log in may help.
    LogIn(Cow<'static, str>),
}

impl Denial {
    /// Returns what denies, by its name in the config.
    pub(crate) fn because(self) -> Cow<'static, str> {
        match self {
            Self::Forbidden(because) | Self::LogIn(because) => because,
        }
    }
}

impl Access {
    /// Returns whether the lists let `client` in; in a site where either is enough, those outside
    /// may still have a name.
    pub(crate) fn admit(&self, client: IpAddr) -> Result<(), Denial> {
        match self.addresses.admit(client) {
            Err(list) if self.satisfy == Satisfy::All || !self.authenticates => {
                let because = format!("{}.access.{}", self.site, list.key());
                Err(Denial::Forbidden(because.into()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Decides; a yes names the rule that made it, where there are rules.
    pub(crate) fn decide(&self, wish: &Wish<'_>) -> Result<Option<&str>, Denial> {
        self.admit(wish.client)?;
        let user = wish.principal.as_user();
        if user.is_none() {
            self.admit_nobody(wish)?;
        }
        let Some((action, repository)) = wish.action else {
            return Ok(None);
        };
        if let Some(grants) = wish.principal.grants()
            && !grants.allow(action, repository)
        {
            return Err(self.no(user, not_granted(user)));
        }
        if self.rules.is_empty() || !is_ruled(user) {
            return Ok(None);
        }
        let members = self.groups.members();
        let asker = self.asker(user, &members, wish.client);
        match self.rules.decide(&asker, action, repository) {
            Decided::By(rule) if rule.effect == Effect::Allow => Ok(Some(&rule.key)),
            Decided::By(rule) => Err(self.no(user, rule.key.to_string())),
            Decided::ByNone => Err(self.no(user, self.no_rule())),
        }
    }

    /// Returns what the log calls each rule and list that may deny something.
    pub(crate) fn denial_keys(&self) -> impl Iterator<Item = String> {
        let lists = [
            (&self.addresses.allow, "allow_from"),
            (&self.addresses.deny, "deny_from"),
        ];
        let lists = lists
            .into_iter()
            .filter(|(list, _)| !list.is_empty())
            .map(|(_, key)| format!("{}.access.{key}", self.site));
        let rules = self.rules.denying_keys().map(str::to_owned);
        let none = (!self.rules.is_empty()).then(|| self.no_rule());
        lists.chain(rules).chain(none)
    }

    fn no_rule(&self) -> String {
        format!("{}.access: no rule", self.site)
    }

    /// Returns whether somebody without a name may come in at all.
    fn admit_nobody(&self, wish: &Wish<'_>) -> Result<(), Denial> {
        if !self.authenticates {
            return Ok(());
        }
        let log_in = |why: &'static str| Err(Denial::LogIn(why.into()));
        let vouched = self.satisfy == Satisfy::Any && self.addresses.vouch_for(wish.client);
        if self.satisfy == Satisfy::Any && self.addresses.admit(wish.client).is_err() {
            return log_in("no credentials, and the address is not enough");
        }
        if self.rules.is_empty() {
            return if vouched {
                Ok(())
            } else {
                log_in("no credentials")
            };
        }
        // A token that was granted to nobody is an answer where nobody may do something.
        let presented = !wish.principal.is_nobody() && self.rules.admit_anonymous();
        if wish.action.is_some() || presented {
            return Ok(());
        }
        log_in("no credentials")
    }

    fn asker<'a>(&self, user: Option<&'a User>, members: &'a Members, client: IpAddr) -> Asker<'a> {
        let own = |user: &&User| match user.origin {
            Origin::Password => true,
            // The user of the same name is somebody else.
            Origin::Certificate => !self.passwords,
            Origin::Issuer | Origin::Robot => false,
        };
        Asker {
            user,
            own_name: user.filter(own).map(|user| &*user.name),
            members,
            client,
        }
    }

    fn no(&self, user: Option<&User>, because: impl Into<Cow<'static, str>>) -> Denial {
        if user.is_none() && self.authenticates {
            Denial::LogIn(because.into())
        } else {
            Denial::Forbidden(because.into())
        }
    }

    /// Returns which repositories may be pulled from; `None` is all of them.
    pub(crate) fn visible(&self, principal: &Principal, client: IpAddr) -> Option<Visibility> {
        let user = principal.as_user();
        if is_ruled(user) {
            if self.rules.is_empty() {
                return None;
            }
            let members = self.groups.members();
            let visible = self.rules.visible(&self.asker(user, &members, client));
            return visible.map(Visibility::from_iter);
        }
        let grants = principal.grants()?;
        let pulls = grants.repositories.iter();
        let pulls = pulls.filter(|grant| grant.actions.contains(Action::Pull));
        Some(
            pulls
                .map(|grant| (true, grant.repositories.clone()))
                .collect(),
        )
    }

    /// Returns whether everyone who may come in may do everything.
    pub(crate) fn is_unrestricted(&self, principal: &Principal) -> bool {
        self.rules.is_empty() && principal.grants().is_none()
    }
}

/// What denies somebody with a token that is good for less.
pub(crate) const TOKEN_TOO_NARROW: &str = "not granted to this token";

fn not_granted(user: Option<&User>) -> &'static str {
    match user.map(|user| user.origin) {
        Some(Origin::Robot) => "not granted to this robot",
        _ => TOKEN_TOO_NARROW,
    }
}

/// Returns whether rules are asked: what a robot or another server's token may do stands in it.
fn is_ruled(user: Option<&User>) -> bool {
    match user.map(|user| user.origin) {
        None | Some(Origin::Certificate | Origin::Password) => true,
        Some(Origin::Issuer | Origin::Robot) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::grants::Grant;
    use crate::auth::rules::Rule;
    use crate::auth::{Actions, Grants};

    const INSIDE: &str = "10.0.0.1";
    const OUTSIDE: &str = "192.0.2.1";

    fn site(satisfy: Satisfy, allow: &[&str], rules: Vec<Rule>) -> Access {
        Access {
            site: "site[0]".into(),
            addresses: Addresses {
                allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
                deny: Box::default(),
            },
            satisfy,
            rules: Rules::new(rules),
            authenticates: true,
            ..Access::default()
        }
    }

    fn rule(key: &str, repositories: &str, who: &str, actions: &str) -> Rule {
        Rule {
            key: key.into(),
            repositories: [repositories.parse().unwrap()].into(),
            who: [who.parse().unwrap()].into(),
            actions: Actions::named(actions).unwrap(),
            addresses: Addresses::default(),
            effect: Effect::Allow,
        }
    }

    fn named(name: &str, origin: Origin) -> Principal {
        Principal::user(Arc::new(User::new(name, origin)))
    }

    fn grants(repositories: &str, actions: &str) -> Arc<Grants> {
        Arc::new(Grants {
            repositories: [Grant {
                repositories: repositories.parse().unwrap(),
                actions: Actions::named(actions).unwrap(),
            }]
            .into(),
            catalog: false,
        })
    }

    fn ask(access: &Access, principal: &Principal, client: &str, wish: Option<Action>) -> String {
        let repository: RepositoryName = "team/app".parse().unwrap();
        let decided = access.decide(&Wish {
            principal,
            client: client.parse().unwrap(),
            action: wish.map(|action| (action, Some(&repository))),
        });
        match decided {
            Ok(rule) => format!("yes {}", rule.unwrap_or_default())
                .trim()
                .to_owned(),
            Err(Denial::Forbidden(because)) => format!("forbidden: {because}"),
            Err(Denial::LogIn(because)) => format!("log in: {because}"),
        }
    }

    #[test]
    fn without_rules_a_name_may_do_anything_and_nobody_nothing() {
        let access = site(Satisfy::All, &[], vec![]);
        let alice = named("alice", Origin::Password);
        for wish in [None, Some(Action::Pull), Some(Action::Delete)] {
            assert_eq!(ask(&access, &alice, OUTSIDE, wish), "yes");
            let nobody = ask(&access, &Principal::anonymous(), OUTSIDE, wish);
            assert_eq!(nobody, "log in: no credentials");
        }
        let open = Access::default();
        assert_eq!(
            ask(&open, &Principal::anonymous(), OUTSIDE, Some(Action::Push)),
            "yes"
        );
    }

    #[test]
    fn address_and_name_are_both_asked_for_or_either() {
        let all = site(Satisfy::All, &["10.0.0.0/8"], vec![]);
        let any = site(Satisfy::Any, &["10.0.0.0/8"], vec![]);
        let (alice, nobody) = (named("alice", Origin::Password), Principal::anonymous());
        let forbidden = "forbidden: site[0].access.allow_from";
        let log_in = "log in: no credentials";
        let outside = "log in: no credentials, and the address is not enough";
        for (access, who, client, expected) in [
            (&all, &alice, INSIDE, "yes"),
            (&all, &alice, OUTSIDE, forbidden),
            (&all, &nobody, INSIDE, log_in),
            (&all, &nobody, OUTSIDE, forbidden),
            (&any, &alice, INSIDE, "yes"),
            (&any, &alice, OUTSIDE, "yes"),
            (&any, &nobody, INSIDE, "yes"),
            (&any, &nobody, OUTSIDE, outside),
        ] {
            for wish in [None, Some(Action::Push)] {
                assert_eq!(
                    ask(access, who, client, wish),
                    expected,
                    "{client} {wish:?}"
                );
            }
        }
        // A token that nobody's name stands on is no login.
        let token = Principal::anonymous().limited_to(grants("**", "*"));
        assert_eq!(ask(&any, &token, OUTSIDE, Some(Action::Pull)), outside);
    }

    #[test]
    fn a_token_of_nobody_opens_nothing_where_nobody_may_do_anything() {
        let nobody = Principal::anonymous().limited_to(grants("**", "*"));
        let unruled = site(Satisfy::All, &[], vec![]);
        let ruled = site(
            Satisfy::All,
            &[],
            vec![rule("0", "**", "authenticated", "*")],
        );
        for access in [&unruled, &ruled] {
            for wish in [None, Some(Action::Pull)] {
                let said = ask(access, &nobody, OUTSIDE, wish);
                assert!(said.starts_with("log in"), "{wish:?}: {said}");
            }
        }
    }

    #[test]
    fn a_users_own_repositories_are_not_those_of_a_certificate_of_the_same_name() {
        let mut access = site(
            Satisfy::All,
            &[],
            vec![rule("0", "${user}/**", "authenticated", "*")],
        );
        let user = named("team", Origin::Password);
        let certificate = named("team", Origin::Certificate);
        for (passwords, expected) in [
            (true, "forbidden: site[0].access: no rule"),
            (false, "yes 0"),
        ] {
            access.passwords = passwords;
            assert_eq!(ask(&access, &user, OUTSIDE, Some(Action::Push)), "yes 0");
            let said = ask(&access, &certificate, OUTSIDE, Some(Action::Push));
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn with_rules_the_default_is_no() {
        let rules = vec![
            rule("0", "public/**", "anonymous", "pull"),
            rule("1", "team/**", "alice", "push"),
        ];
        let access = site(Satisfy::All, &[], rules);
        let (alice, bob) = (
            named("alice", Origin::Password),
            named("bob", Origin::Password),
        );
        let nobody = Principal::anonymous();
        let no_rule = "site[0].access: no rule";
        assert_eq!(ask(&access, &alice, OUTSIDE, Some(Action::Push)), "yes 1");
        assert_eq!(
            ask(&access, &bob, OUTSIDE, Some(Action::Push)),
            format!("forbidden: {no_rule}")
        );
        assert_eq!(
            ask(&access, &nobody, OUTSIDE, Some(Action::Push)),
            format!("log in: {no_rule}")
        );
        assert_eq!(
            ask(&access, &nobody, OUTSIDE, None),
            "log in: no credentials"
        );
        assert_eq!(ask(&access, &bob, OUTSIDE, None), "yes");
    }

    #[test]
    fn a_token_may_do_what_it_was_granted_and_the_rules_still_allow() {
        let access = site(
            Satisfy::All,
            &[],
            vec![rule("0", "team/**", "alice", "pull")],
        );
        let alice = named("alice", Origin::Password);
        let wide = alice.clone().limited_to(grants("**", "*"));
        let narrow = alice.clone().limited_to(grants("other", "*"));
        let robot = named("robot:ci", Origin::Robot).limited_to(grants("team/app", "push"));
        let not_granted = "forbidden: not granted to this token";
        for (who, action, expected) in [
            (&wide, Action::Pull, "yes 0"),
            (&wide, Action::Push, "forbidden: site[0].access: no rule"),
            (&narrow, Action::Pull, not_granted),
            (&robot, Action::Push, "yes"),
            (&robot, Action::Pull, "forbidden: not granted to this robot"),
        ] {
            assert_eq!(ask(&access, who, OUTSIDE, Some(action)), expected);
        }
        let client = OUTSIDE.parse().unwrap();
        let visible = access.visible(&robot, client).unwrap();
        assert_eq!(visible.to_string(), "-**", "it may push only");
        let visible = access.visible(&wide, client).unwrap();
        assert!(!visible.to_string().contains(','), "{visible}");
        assert!(!access.is_unrestricted(&alice));
    }
}
