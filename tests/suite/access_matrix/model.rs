//! What may be done, by a second reading of docs/access.md: slow, plain, and of its own.

use std::net::IpAddr;

use super::cases::Access;

/// Who asks, as the model sees it.
pub(super) struct Asker {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) groups: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Certificate,
    Password,
    Robot,
}

pub(super) const ASKERS: [Asker; 5] = [
    Asker {
        kind: Kind::Password,
        name: "alice",
        groups: &["dev"],
    },
    Asker {
        kind: Kind::Password,
        name: "bob",
        groups: &["ops"],
    },
    Asker {
        kind: Kind::Certificate,
        name: "ci",
        groups: &[],
    },
    // The user of the same name is somebody else.
    Asker {
        kind: Kind::Certificate,
        name: "alice",
        groups: &["ops"],
    },
    Asker {
        kind: Kind::Robot,
        name: "builder",
        groups: &[],
    },
];

/// What the robot was made for.
pub(super) const ROBOT_REPOSITORIES: &str = "team/**";
pub(super) const ROBOT_ACTIONS: [&str; 3] = ["pull", "push", "catalog"];

#[derive(Debug, Eq, PartialEq)]
pub(super) enum Expected {
    Through,
    LogIn,
    Forbidden,
}

pub(super) fn expected(
    access: &Access,
    asker: Option<&Asker>,
    from: &str,
    action: Option<(&str, &str)>,
) -> Expected {
    let listed = listed(access, from);
    let no = match asker {
        Some(_) => Expected::Forbidden,
        None => Expected::LogIn,
    };
    if !listed && !access.any {
        return Expected::Forbidden;
    }
    if !listed && asker.is_none() {
        return Expected::LogIn;
    }
    if let (Some(Kind::Robot), Some((action, repository))) = (asker.map(|asker| asker.kind), action)
    {
        let there = action == "catalog" || glob(ROBOT_REPOSITORIES, repository);
        return if there && ROBOT_ACTIONS.contains(&action) {
            Expected::Through
        } else {
            Expected::Forbidden
        };
    }
    let by_address = access.any && listed && !access.allow_from.is_empty();
    if access.rules.is_empty() || action.is_none() {
        let enough = asker.is_some() || by_address && access.rules.is_empty();
        return if enough { Expected::Through } else { no };
    }
    let (action, repository) = action.unwrap();
    for rule in access.rules {
        let about = rule.actions.contains(&"*") || rule.actions.contains(&action);
        let here = !rule.deny_from.iter().any(|net| inside(net, from))
            && (rule.allow_from.is_empty() || rule.allow_from.iter().any(|net| inside(net, from)));
        let meant = rule.who.iter().any(|who| is(who, asker, from));
        let there = if action == "catalog" {
            !rule.deny || rule.repositories.contains(&"**")
        } else {
            // Names belong to those with passwords here.
            let user = asker.filter(|asker| asker.kind == Kind::Password);
            let user = user.map_or("?", |asker| asker.name);
            let mut patterns = rule.repositories.iter();
            patterns.any(|pattern| glob(&pattern.replace("${user}", user), repository))
        };
        if about && here && meant && there {
            return if rule.deny { no } else { Expected::Through };
        }
    }
    no
}

/// Whether the site's lists let the address in.
pub(super) fn listed(access: &Access, from: &str) -> bool {
    !access.deny_from.iter().any(|net| inside(net, from))
        && (access.allow_from.is_empty() || access.allow_from.iter().any(|net| inside(net, from)))
}

/// Whether a rule lets somebody without a name do anything, from wherever it may be.
pub(super) fn nobody_may_something(access: &Access, from: &str) -> bool {
    let inside_lists = expected(access, None, from, Some(("", ""))) != Expected::Forbidden;
    let nameless = |who: &&str| *who == "anonymous" || who.contains('/');
    let mut rules = access.rules.iter();
    inside_lists && rules.any(|rule| !rule.deny && rule.who.iter().any(nameless))
}

fn is(who: &str, asker: Option<&Asker>, from: &str) -> bool {
    if who == "anonymous" {
        return true;
    }
    if who.contains('/') {
        return inside(who, from);
    }
    let Some(asker) = asker else { return false };
    if who == "authenticated" {
        return true;
    }
    if let Some(group) = who.strip_prefix('@') {
        return asker.groups.contains(&group);
    }
    match who.strip_prefix("cert:") {
        Some(name) => asker.kind == Kind::Certificate && asker.name == name,
        None => asker.kind == Kind::Password && asker.name == who,
    }
}

/// Compares the first bits, one by one.
fn inside(network: &str, address: &str) -> bool {
    let bits = |address: &str| -> Vec<bool> {
        let octets = match address.parse().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let bits = octets
            .iter()
            .flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1));
        bits.collect()
    };
    let (network, length) = network.split_once('/').unwrap_or((network, "128"));
    let (network, address) = (bits(network), bits(address));
    let length = length.parse::<usize>().unwrap().min(network.len());
    network.len() == address.len() && network[..length] == address[..length]
}

/// Tries everything: `**` is any run of whole segments, `*` of characters but `/`.
fn glob(pattern: &str, name: &str) -> bool {
    if pattern == "**" {
        return !name.is_empty();
    }
    if let Some(rest) = pattern.strip_prefix("**/") {
        let below = name.match_indices('/').map(|(at, _)| &name[at + 1..]);
        return std::iter::once(name)
            .chain(below)
            .any(|name| glob(rest, name));
    }
    if let Some(rest) = pattern.strip_prefix('*') {
        let segment = name.find('/').unwrap_or(name.len());
        return (0..=segment).any(|length| glob(rest, &name[length..]));
    }
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some(first), Some(other)) if first == other => glob(&pattern[1..], &name[1..]),
        _ => false,
    }
}

#[test]
fn the_model_itself_reads_globs_and_networks() {
    for (pattern, name, expected) in [
        ("public/**", "public/a/b", true),
        ("public/**", "public", false),
        ("**/app", "app", true),
        ("**/app", "a/b/app", true),
        ("t*m/**", "team/x", true),
        ("t*m/**", "t/m/x", false),
        ("team/*", "team/a/b", false),
    ] {
        assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
    }
    assert!(inside("10.0.0.0/8", "10.1.2.3") && !inside("10.0.0.0/8", "11.1.2.3"));
    assert!(inside("2001:db8::5", "2001:db8::5") && !inside("0.0.0.0/0", "::1"));
}
