//! What a client asks a token for, and what of it is granted.
//!
//! The grammar is distribution's (`repository:team/app:pull,push`). Asking for too much is no error:
//! the token says what it is good for, and the registry's answer says what was missing.

use oci::{Action, RepositoryName};
use serde::{Deserialize, Serialize};

/// More resources than this are in no image's push.
pub(crate) const SCOPES_MAX: usize = 100;

/// One resource and what is to be done with it, as a client wrote it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Scope {
    pub(crate) resource: Resource,
    pub(crate) actions: Vec<Verb>,
}

/// What a scope is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Resource {
    /// `registry:catalog`
    Catalog,
    /// `repository:…`; with a class, as in `repository(plugin):…`, it is the same repository.
    Repository(RepositoryName),
}

/// What is to be done, by the words of distribution.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Verb {
    /// `*`, which is everything.
    All,
    /// `delete`
    Delete,
    /// `pull`
    Pull,
    /// `push`
    Push,
}

impl Verb {
    /// Reads a word; what nobody knows is asked of nobody.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "*" => Some(Self::All),
            "delete" => Some(Self::Delete),
            "pull" => Some(Self::Pull),
            "push" => Some(Self::Push),
            _ => None,
        }
    }

    /// Returns the word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::All => "*",
            Self::Delete => "delete",
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }
}

/// One entry of a token's `access` claim.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Access {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) name: String,
    /// Go writes an empty list as `null`.
    #[serde(default)]
    pub(crate) actions: Option<Vec<String>>,
}

impl Access {
    /// Returns what it is about and what it allows there; `None` where that is nothing known.
    pub(crate) fn read(&self) -> Option<Scope> {
        let actions = self.actions.iter().flatten();
        let actions: Vec<Verb> = actions.filter_map(|word| Verb::parse(word)).collect();
        let resource = resource(&self.kind, &self.name)?;
        Some(Scope { resource, actions })
    }
}

/// Reads the scopes of one parameter, which spaces separate; those that name nothing known are left
/// out, as nothing could be granted.
pub(crate) fn parse(text: &str) -> Vec<Scope> {
    let scope = |text: &str| {
        let (kind, rest) = text.split_once(':')?;
        // A name may have a host with a port, so the actions are behind the last colon.
        let (name, actions) = rest.rsplit_once(':')?;
        let mut actions: Vec<Verb> = actions.split(',').filter_map(Verb::parse).collect();
        actions.sort_unstable();
        actions.dedup();
        let resource = resource(kind, name)?;
        Some(Scope { resource, actions })
    };
    text.split_ascii_whitespace().filter_map(scope).collect()
}

fn resource(kind: &str, name: &str) -> Option<Resource> {
    let kind = kind.split_once('(').map_or(kind, |(kind, _class)| kind);
    match (kind, name) {
        ("registry", "catalog") => Some(Resource::Catalog),
        ("repository", name) => Some(Resource::Repository(name.parse().ok()?)),
        _ => None,
    }
}

/// Returns what of `scopes` is granted by `allows`, which is asked for each action on its own.
pub(crate) fn narrow(
    scopes: &[Scope],
    allows: impl Fn(Action, Option<&RepositoryName>) -> bool,
) -> Vec<Access> {
    let mut granted: Vec<Access> = Vec::new();
    for scope in scopes {
        let (kind, name, actions) = match &scope.resource {
            Resource::Catalog => {
                let asks = scope.actions.contains(&Verb::All);
                let granted = asks && allows(Action::Catalog, None);
                let actions = granted.then_some(Verb::All).into_iter().collect();
                ("registry", "catalog".to_owned(), actions)
            }
            Resource::Repository(name) => {
                let allows = |action| allows(action, Some(name));
                ("repository", name.to_string(), verbs(scope, allows))
            }
        };
        if actions.is_empty() {
            continue;
        }
        let words = actions.iter().map(|verb| verb.word().to_owned());
        // Clients ask for one repository more than once, as for its push and for a mount from it.
        match granted
            .iter_mut()
            .find(|access| access.kind == kind && access.name == name)
        {
            Some(access) => {
                let list = access.actions.get_or_insert_default();
                list.extend(words);
                list.sort_unstable();
                list.dedup();
            }
            None => granted.push(Access {
                kind: kind.to_owned(),
                name,
                actions: Some(words.collect()),
            }),
        }
    }
    granted
}

/// Returns what of a repository's scope is allowed; `*` is only granted where everything is.
fn verbs(scope: &Scope, allows: impl Fn(Action) -> bool) -> Vec<Verb> {
    let each = [
        (Verb::Delete, Action::Delete),
        (Verb::Pull, Action::Pull),
        (Verb::Push, Action::Push),
    ];
    let all = scope.actions.contains(&Verb::All);
    let allowed: Vec<Verb> = each
        .into_iter()
        .filter(|(verb, action)| (all || scope.actions.contains(verb)) && allows(*action))
        .map(|(verb, _)| verb)
        .collect();
    if all && allowed.len() == each.len() {
        return [Verb::All].into_iter().chain(allowed).collect();
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(scopes: &[Scope]) -> Vec<String> {
        scopes
            .iter()
            .map(|scope| {
                let words: Vec<&str> = scope.actions.iter().map(|verb| verb.word()).collect();
                let name = match &scope.resource {
                    Resource::Catalog => "(catalog)".to_owned(),
                    Resource::Repository(name) => name.to_string(),
                };
                format!("{name} {}", words.join(","))
            })
            .collect()
    }

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        for (text, expected) in [
            ("repository:a/b:pull,push", &["a/b pull,push"][..]),
            ("repository:a:push,pull,pull", &["a pull,push"]),
            ("repository(plugin):a:pull", &["a pull"]),
            ("repository:a:*", &["a *"]),
            ("registry:catalog:*", &["(catalog) *"]),
            (
                "repository:a:pull repository:b:pull,push",
                &["a pull", "b pull,push"],
            ),
            ("repository:a:pull,fly", &["a pull"]),
            ("repository:a:", &["a "]),
            // A host and its port are part of the grammar of names there, and not of names here.
            ("repository:host:5000/a:pull", &[]),
            ("repository:A:pull", &[]),
            ("repository:../a:pull", &[]),
            ("repository:**:pull", &[]),
            ("repository:pull", &[]),
            ("repository::pull", &[]),
            ("registry:other:*", &[]),
            ("aws:a:pull", &[]),
            ("pull", &[]),
            ("", &[]),
        ] {
            assert_eq!(show(&parse(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_asked_is_narrowed_to_what_is_allowed() {
        let allows = |action, repository: Option<&RepositoryName>| match repository {
            None => action == Action::Catalog,
            Some(name) if name.to_string() == "own" => action != Action::Catalog,
            Some(name) if name.to_string() == "public" => action == Action::Pull,
            Some(_) => false,
        };
        for (asked, expected) in [
            (
                "repository:public:pull,push",
                &["repository public pull"][..],
            ),
            ("repository:public:*", &["repository public pull"]),
            ("repository:public:push", &[]),
            ("repository:own:pull,push", &["repository own pull,push"]),
            ("repository:own:*", &["repository own *,delete,pull,push"]),
            ("repository:other:pull", &[]),
            ("registry:catalog:*", &["registry catalog *"]),
            ("registry:catalog:pull", &[]),
            (
                "repository:own:pull repository:public:pull repository:own:push",
                &["repository own pull,push", "repository public pull"],
            ),
        ] {
            let granted = narrow(&parse(asked), allows);
            let shown: Vec<String> = granted
                .iter()
                .map(|access| {
                    let actions = access.actions.as_ref().unwrap().join(",");
                    format!("{} {} {actions}", access.kind, access.name)
                })
                .collect();
            assert_eq!(shown, expected, "{asked}");
        }
    }

    #[test]
    fn an_access_claim_of_anyone_is_read_with_care() {
        for (json, expected) in [
            (
                r#"{"type":"repository","name":"a","actions":["pull","x"]}"#,
                Some("a pull"),
            ),
            (
                r#"{"type":"repository","class":"","name":"a","actions":null}"#,
                Some("a "),
            ),
            (
                r#"{"type":"repository","name":"a/**","actions":["*"]}"#,
                None,
            ),
            (
                r#"{"type":"registry","name":"catalog"}"#,
                Some("(catalog) "),
            ),
            ("{}", None),
        ] {
            let access: Access = serde_json::from_str(json).unwrap();
            let read = access.read().map(|scope| show(&[scope]).remove(0));
            assert_eq!(read.as_deref(), expected, "{json}");
        }
    }
}
