//! What a config would decide, asked without an edge that runs: for `tidegate access explain`.

use std::net::IpAddr;
use std::sync::Arc;

use oci::{Action, RepositoryName};

use crate::auth::access::{Denial, Wish};
use crate::auth::{Actions, Origin, Principal, User};
use crate::config::{Config, HostPattern, Site};

/// Somebody who wants to do something.
#[derive(Clone, Debug)]
pub struct Question {
    /// The host of the site that is asked; without one, the only site, or the first of a registry.
    pub host: Option<String>,
    /// Who asks.
    pub asker: Asker,
    /// From where.
    pub from: IpAddr,
    /// What is wanted: `pull`, `push`, `delete` or `catalog`.
    pub action: String,
    /// Where; the catalog is in no repository.
    pub repository: Option<RepositoryName>,
}

/// Who asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Asker {
    /// Nobody with a name.
    Anonymous,
    /// The principal of a client certificate, and its organizational units.
    Certificate {
        /// The name.
        name: String,
        /// The groups that it brings.
        groups: Vec<String>,
    },
    /// A user of the htpasswd file.
    User(String),
}

/// What the config decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The site that was asked, such as `site[0]`.
    pub site: String,
    /// Whether it is a yes.
    pub allowed: bool,
    /// What decided, by its name in the config; a yes where there are no rules has none.
    pub because: Option<String>,
    /// It is a no to somebody without a name, who would be asked to log in.
    pub log_in: bool,
    /// What is odd about the question, such as a user who is in no file.
    pub notes: Vec<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such action.
    #[error("{0:?} is not a valid action: pull, push, delete or catalog")]
    Action(String),
    /// An action in a repository, and no repository.
    #[error("{0} is an action in a repository: say which one")]
    NoRepository(String),
    /// No site has the host, or none is in front of a registry.
    #[error("no site in front of a registry serves {0}")]
    NoSite(String),
}

impl Config {
    /// Says what this config decides.
    ///
    /// # Errors
    /// [`Error`] when the question makes no sense.
    pub fn explain(&self, question: &Question) -> Result<Answer, Error> {
        let known = Actions::NAMES.iter();
        let mut known = known.filter(|(name, _)| *name == question.action);
        let (_, action) = known
            .next()
            .ok_or_else(|| Error::Action(question.action.clone()))?;
        let repository = match (action, &question.repository) {
            (Action::Catalog, _) => None,
            (_, Some(repository)) => Some(repository),
            (_, None) => return Err(Error::NoRepository(question.action.clone())),
        };
        let site = self.asked_site(question.host.as_deref())?;
        let mut notes = Vec::new();
        let principal = principal(&question.asker, site, &mut notes);
        let decided = site.access.decide(&Wish {
            principal: &principal,
            client: question.from,
            action: Some((*action, repository)),
        });
        let (allowed, because, log_in) = match decided {
            Ok(rule) => (true, rule.map(str::to_owned), false),
            Err(Denial::Forbidden(because)) => (false, Some(because.into()), false),
            Err(Denial::LogIn(because)) => (false, Some(because.into()), true),
        };
        Ok(Answer {
            site: site.access.site.to_string(),
            allowed,
            because,
            log_in,
            notes,
        })
    }

    fn asked_site(&self, host: Option<&str>) -> Result<&Site, Error> {
        let mut sites = self.sites.iter().filter(|site| site.upstream.registry);
        let found = match host {
            None => sites.next(),
            Some(host) => {
                // As a request finds it: the most particular pattern first.
                let name = host.to_ascii_lowercase();
                let parent = name.split_once('.').map(|(_, parent)| parent.to_owned());
                let patterns = [
                    Some(HostPattern::Exact(name)),
                    parent.map(HostPattern::Wildcard),
                    Some(HostPattern::Any),
                ];
                patterns.iter().flatten().find_map(|pattern| {
                    let mut sites = self.sites.iter().filter(|site| site.upstream.registry);
                    sites.find(|site| site.hosts.contains(pattern))
                })
            }
        };
        found.ok_or_else(|| Error::NoSite(host.unwrap_or("any host").to_owned()))
    }
}

fn principal(asker: &Asker, site: &Site, notes: &mut Vec<String>) -> Principal {
    let user = match asker {
        Asker::Anonymous => return Principal::anonymous(),
        Asker::Certificate { name, groups } => User {
            groups: groups.iter().map(|group| group.as_str().into()).collect(),
            ..User::new(name.as_str(), Origin::Certificate)
        },
        Asker::User(name) => {
            let basic = site.auth.as_ref().and_then(|auth| auth.basic.as_ref());
            if !basic.is_some_and(|basic| basic.has(name)) {
                notes.push(format!("there is no user {name:?} who could log in here"));
            }
            User::new(name.as_str(), Origin::Password)
        }
    };
    Principal::user(Arc::new(user))
}
