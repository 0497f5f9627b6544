//! `[site.auth]`: how to log in to a site.

use std::sync::Arc;
use std::time::Duration;

use settings::{Purpose, Section};

use super::tokens::Tokens;
use super::{ClientCertificates, Files, HostPattern, client_certificates};
use crate::auth::token::Scheme;
use crate::auth::token::desk::Terms;
use crate::auth::token::issuer::Issuer;
use crate::auth::{Basic, Groups};

/// As long as a person would not be surprised that a deleted user still gets in, were it not that a
/// changed file is noticed at once anyway.
const REMEMBER_FOR: Duration = Duration::from_secs(10 * 60);

/// The longest that a credential may be remembered.
const REMEMBER_FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What makes a file of passwords one way of several.
const OTHER_WAYS: [&str; 4] = ["client_ca_file", "issuer", "scheme", "token"];

/// How to log in to a site.
#[derive(Debug)]
pub(crate) struct Auth {
    /// What the password is asked for.
    pub(crate) realm: Arc<str>,
    /// Users and passwords.
    pub(crate) basic: Option<Basic>,
    /// How tokens are handed out, if they are.
    pub(crate) tokens: Terms,
    /// Another server that hands them out.
    pub(crate) issuer: Option<Issuer>,
    /// Whose certificates are taken.
    pub(crate) certificates: Option<ClientCertificates>,
}

impl Auth {
    /// Returns whether certificates are taken, and no password is looked at.
    pub(crate) fn takes_certificates_alone(&self) -> bool {
        self.basic.is_none() && self.certificates.is_some()
    }
}

/// What is written, before the site's rules have said what is usual.
#[derive(Debug)]
pub(super) struct Written {
    realm: Arc<str>,
    pub(super) basic: Option<Basic>,
    pub(super) tokens: Tokens,
    pub(super) certificates: Option<ClientCertificates>,
}

impl Written {
    /// Reads the table; groups go to `groups`, for the rules that speak of them.
    pub(super) fn read(
        mut section: Section,
        hosts: &[HostPattern],
        groups: &mut Groups,
        files: Files,
        warnings: &mut Vec<String>,
    ) -> Option<Self> {
        let realm: Option<String> = section.optional("realm");
        let realm = realm.unwrap_or_else(|| "Registry".to_owned());
        if realm.chars().any(char::is_control) {
            section.problem("realm", "must not hold control characters");
        }
        if let Some(file) = section.path("group_file")
            && files == Files::Read
            && section.permits("group_file", &file, Purpose::Read)
        {
            match Groups::load(file) {
                Ok(loaded) => *groups = loaded,
                Err(error) => section.problem("group_file", error),
            }
        }
        let optional = OTHER_WAYS.iter().any(|key| section.has(key));
        let basic = read_basic(&mut section, optional, files, warnings);
        let certificates = client_certificates::read(&mut section, files, warnings);
        let tokens = Tokens::read(&mut section, hosts, files);
        (files == Files::Read && !section.failed()).then(|| Self {
            realm: realm.into(),
            basic,
            tokens,
            certificates,
        })
    }

    /// Returns whether there are users with passwords.
    pub(super) fn has_passwords(&self) -> bool {
        self.basic.is_some()
    }

    /// Decides what the rules leave open. Only a registry's clients know what to do with tokens.
    pub(super) fn settle(self, site: &Section, registry: bool, admits_anonymous: bool) -> Auth {
        let (tokens, issuer) = self.tokens.settle(registry && admits_anonymous);
        if !registry && tokens.scheme != Scheme::Basic {
            let message = "tokens are for clients of a registry, and the upstream is not one";
            site.problem("auth.scheme", message);
        }
        Auth {
            realm: self.realm,
            basic: self.basic,
            tokens,
            issuer,
            certificates: self.certificates,
        }
    }
}

fn read_basic(
    section: &mut Section,
    optional: bool,
    files: Files,
    warnings: &mut Vec<String>,
) -> Option<Basic> {
    let remember_for = section.duration("remember_for").unwrap_or(REMEMBER_FOR);
    if remember_for > REMEMBER_FOR_MAX {
        section.problem("remember_for", "must be 24 hours at most");
    }
    let plain = section
        .optional("insecure_plain_passwords")
        .unwrap_or_default();
    if !section.has("htpasswd_file") && !optional {
        section.problem("htpasswd_file", "is missing");
    }
    let file = section.path("htpasswd_file")?;
    if files == Files::LeaveAlone || !section.permits("htpasswd_file", &file, Purpose::Read) {
        return None;
    }
    match Basic::load(file.clone(), plain, remember_for.min(REMEMBER_FOR_MAX)) {
        Ok(basic) => {
            if basic.is_empty() {
                let file = file.display();
                warnings.push(format!("{file}: names no user, so nobody can come in"));
            }
            Some(basic)
        }
        Err(error) => {
            section.problem("htpasswd_file", error);
            None
        }
    }
}
