//! The sets of rules, as they are written in a config and as the model reads them.

/// A rule, as it is written and as the model reads it.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub(super) repositories: &'static [&'static str],
    pub(super) who: &'static [&'static str],
    pub(super) actions: &'static [&'static str],
    pub(super) allow_from: &'static [&'static str],
    pub(super) deny_from: &'static [&'static str],
    pub(super) deny: bool,
}

const RULE: Rule = Rule {
    repositories: &["**"],
    who: &["authenticated"],
    actions: &["*"],
    allow_from: &[],
    deny_from: &[],
    deny: false,
};

/// `[site.access]`, as it is written and as the model reads it.
pub(super) struct Access {
    pub(super) allow_from: &'static [&'static str],
    pub(super) deny_from: &'static [&'static str],
    pub(super) any: bool,
    pub(super) rules: &'static [Rule],
}

const INSIDE: &[&str] = &["10.0.0.0/8"];

pub(super) const CASES: [Access; 7] = [
    Access {
        allow_from: &[],
        deny_from: &[],
        any: false,
        rules: &[],
    },
    Access {
        allow_from: &[],
        deny_from: &[],
        any: false,
        rules: &[
            Rule {
                repositories: &["public/secret/**"],
                who: &["anonymous"],
                deny: true,
                ..RULE
            },
            Rule {
                repositories: &["public/**"],
                who: &["anonymous"],
                actions: &["pull"],
                ..RULE
            },
            Rule {
                repositories: &["home/${user}/**"],
                ..RULE
            },
            Rule {
                repositories: &["team/*"],
                who: &["@dev"],
                actions: &["pull", "push"],
                ..RULE
            },
            Rule {
                who: &["cert:ci"],
                actions: &["pull", "catalog"],
                ..RULE
            },
        ],
    },
    Access {
        allow_from: &[],
        deny_from: &["2001:db8::/32"],
        any: false,
        rules: &[
            Rule {
                repositories: &["**/app"],
                who: &["10.0.0.0/8"],
                actions: &["pull", "catalog"],
                ..RULE
            },
            Rule {
                repositories: &["team/**", "other"],
                who: &["alice", "@ops"],
                allow_from: INSIDE,
                ..RULE
            },
        ],
    },
    Access {
        allow_from: INSIDE,
        deny_from: &[],
        any: true,
        rules: &[],
    },
    Access {
        allow_from: INSIDE,
        deny_from: &[],
        any: true,
        rules: &[
            Rule {
                who: &["alice"],
                actions: &["delete"],
                deny: true,
                ..RULE
            },
            Rule { ..RULE },
            Rule {
                who: &["anonymous"],
                actions: &["pull"],
                ..RULE
            },
        ],
    },
    Access {
        allow_from: &["10.0.0.0/8", "2001:db8::5"],
        deny_from: &["10.0.0.1"],
        any: false,
        rules: &[],
    },
    Access {
        allow_from: &[],
        deny_from: &[],
        any: false,
        rules: &[Rule {
            repositories: &["t*m/**", "home/*/a*"],
            who: &["bob", "cert:alice"],
            actions: &["pull", "push", "catalog"],
            deny_from: &["192.0.2.0/24"],
            ..RULE
        }],
    },
];

/// Returns it as it stands in a config.
pub(super) fn written(access: &Access) -> String {
    let list = |texts: &[&str]| format!("{texts:?}");
    let mut text = format!(
        "[site.access]\nallow_from = {}\ndeny_from = {}\nsatisfy = \"{}\"\n",
        list(access.allow_from),
        list(access.deny_from),
        if access.any { "any" } else { "all" },
    );
    for rule in access.rules {
        text += &format!(
            "[[site.access.rule]]\nrepositories = {}\nwho = {}\nactions = {}\nallow_from = {}\n\
             deny_from = {}\neffect = \"{}\"\n",
            list(rule.repositories),
            list(rule.who),
            list(rule.actions),
            list(rule.allow_from),
            list(rule.deny_from),
            if rule.deny { "deny" } else { "allow" },
        );
    }
    text
}
