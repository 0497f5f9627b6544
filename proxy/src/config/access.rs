//! `[site.access]`: from where, and who may do what in which repository.

use oci::RepositoryPattern;
use settings::Section;

use super::addresses;
use crate::auth::access::{Access, Satisfy};
use crate::auth::rules::{Effect, Rule, Rules, Who};
use crate::auth::{Actions, Groups};

/// What a site's access is read amid.
pub(super) struct Around {
    /// The site has a way to log in.
    pub(super) authenticates: bool,
    /// One of them is a password.
    pub(super) passwords: bool,
    /// Its upstream is a registry: there are repositories to speak of.
    pub(super) registry: bool,
    pub(super) groups: Groups,
}

/// Reads the table of a site, where it has one.
pub(super) fn read(site: &mut Section, around: Around) -> Access {
    let mut access = Access {
        site: site.name().into(),
        authenticates: around.authenticates,
        passwords: around.passwords,
        groups: around.groups,
        ..Access::default()
    };
    let Some(mut section) = site.table("access") else {
        return access;
    };
    access.addresses = addresses::read(&mut section);
    access.satisfy = satisfy(&mut section, &access);
    let rules = section.tables("rule");
    if !rules.is_empty() && !around.registry {
        section.problem(
            "rule",
            "rules are for repositories, and the upstream is not a registry",
        );
    }
    let rules = rules
        .into_iter()
        .filter_map(|rule| read_rule(rule, around.authenticates));
    let rules: Vec<Rule> = rules.collect();
    let is_group = |who: &Who| matches!(who, Who::Group(_));
    let denies = |rule: &Rule| rule.effect == Effect::Deny && rule.who.iter().any(is_group);
    if rules.iter().any(denies) {
        // One that is left out would let somebody in.
        for line in access.groups.deny() {
            site.problem("auth.group_file", line);
        }
    }
    access.rules = Rules::new(rules);
    access
}

fn satisfy(section: &mut Section, access: &Access) -> Satisfy {
    let known = [("all", Satisfy::All), ("any", Satisfy::Any)];
    let satisfy = section.word("satisfy", &known).unwrap_or(Satisfy::All);
    let nothing_to_choose = access.addresses.allow.is_empty() || !access.authenticates;
    if satisfy == Satisfy::Any && nothing_to_choose {
        let message = "\"any\" needs allow_from and a way to log in to choose between";
        section.problem("satisfy", message);
    }
    satisfy
}

fn read_rule(mut section: Section, authenticates: bool) -> Option<Rule> {
    for key in ["who", "actions"] {
        if !section.has(key) {
            section.problem(key, "is missing");
        }
    }
    let nothing = "names none, so the rule is about nothing";
    let repositories: Option<Vec<RepositoryPattern>> = section.parsed_list("repositories");
    let repositories = repositories.unwrap_or_else(|| "**".parse().into_iter().collect());
    if repositories.is_empty() && !section.failed() {
        section.problem("repositories", nothing);
    }
    let who: Vec<Who> = section.parsed_list("who").unwrap_or_default();
    if who.is_empty() && !section.failed() {
        section.problem("who", nothing);
    }
    let named = |who: &Who| !matches!(who, Who::Address(_) | Who::Anyone);
    if !authenticates && who.iter().any(named) {
        section.problem(
            "who",
            "nobody has a name here: the site has no way to log in",
        );
    }
    let actions = actions(&mut section);
    if actions == Actions::default() && !section.failed() {
        section.problem("actions", nothing);
    }
    let addresses = addresses::read(&mut section);
    let effect = section.word("effect", &Effect::NAMES).unwrap_or_default();
    (!section.failed()).then(|| Rule {
        key: section.name().into(),
        repositories: repositories.into(),
        who: who.into(),
        actions,
        addresses,
        effect,
    })
}

fn actions(section: &mut Section) -> Actions {
    let names: Vec<String> = section.optional("actions").unwrap_or_default();
    let mut actions = Actions::default();
    for (index, name) in names.iter().enumerate() {
        let named = section.choose(&format!("actions[{index}]"), name, &Actions::words());
        actions.insert(named.unwrap_or_default());
    }
    actions
}
