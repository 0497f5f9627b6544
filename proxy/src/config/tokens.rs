//! `[site.auth]`, as far as it is about tokens: `scheme`, `[site.auth.token]`, `[site.auth.issuer]`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use http::Uri;
use settings::{Purpose, Section};

use super::{Files, HostPattern};
use crate::auth::token::Scheme;
use crate::auth::token::desk::Terms;
use crate::auth::token::issuer::{Issuer, KeySet, Source, Trust, TrustError};

const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Clients take shorter lives for this one.
const LIFETIME_MIN: Duration = Duration::from_secs(60);

/// Keys are kept for as long as this after they signed.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const REFRESH_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
const REFRESH_LIFETIME_MAX: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);

/// What is written, before the rules have said which scheme is the usual one.
#[derive(Debug)]
pub(super) struct Tokens {
    scheme: Option<Scheme>,
    terms: Terms,
    issuer: Option<Issuer>,
}

impl Tokens {
    /// Returns whether another server hands them out.
    pub(super) fn are_anothers(&self) -> bool {
        self.issuer.is_some()
    }

    /// Reads all of it.
    pub(super) fn read(auth: &mut Section, hosts: &[HostPattern], files: Files) -> Self {
        let scheme = auth.word("scheme", &Scheme::NAMES);
        if auth.has("issuer") && scheme.is_some_and(|scheme| scheme != Scheme::Bearer) {
            auth.problem("scheme", "must be \"bearer\" where there is an issuer");
        }
        let name = match hosts.first() {
            Some(HostPattern::Any) | None => "tidegate".to_owned(),
            Some(host) => host.to_string(),
        };
        let mut terms = Terms {
            scheme: Scheme::Basic,
            realm: None,
            issuer: name.as_str().into(),
            service: name.into(),
            lifetime: LIFETIME,
            refresh_lifetime: REFRESH_LIFETIME,
        };
        if let Some(section) = auth.table("token") {
            read_terms(section, &mut terms);
        }
        let issuer = auth
            .table("issuer")
            .and_then(|section| read_issuer(section, files));
        Self {
            scheme,
            terms,
            issuer,
        }
    }

    /// Decides the scheme, where it is not written: a client that has no password can only be told
    /// from one that has not sent it yet by tokens.
    pub(super) fn settle(self, admits_anonymous: bool) -> (Terms, Option<Issuer>) {
        let usual = match admits_anonymous || self.issuer.is_some() {
            true => Scheme::Bearer,
            false => Scheme::Basic,
        };
        let terms = Terms {
            scheme: self.scheme.unwrap_or(usual),
            ..self.terms
        };
        (terms, self.issuer)
    }
}

fn read_terms(mut section: Section, terms: &mut Terms) {
    if let Some(realm) = url(&mut section, "realm") {
        terms.realm = Some(realm.into());
    }
    for (key, name) in [
        ("issuer", &mut terms.issuer),
        ("service", &mut terms.service),
    ] {
        if let Some(text) = word(&mut section, key) {
            *name = text.into();
        }
    }
    if let Some(lifetime) = section.duration("lifetime") {
        if !(LIFETIME_MIN..=LIFETIME_MAX).contains(&lifetime) {
            section.problem("lifetime", "must be between one minute and 24 hours");
        }
        terms.lifetime = lifetime;
    }
    if let Some(lifetime) = section.duration("refresh_lifetime") {
        if lifetime > REFRESH_LIFETIME_MAX {
            section.problem("refresh_lifetime", "must be two years at most");
        }
        terms.refresh_lifetime = lifetime;
    }
}

fn read_issuer(mut section: Section, files: Files) -> Option<Issuer> {
    let required = ["realm", "service", "issuer"].map(|key| {
        if !section.has(key) {
            section.problem(key, "is missing");
        }
        match key {
            "realm" => url(&mut section, key),
            _ => word(&mut section, key),
        }
    });
    let mut trust = Trust::default();
    let mut sources = 0;
    if section.has("root_certificate_files") {
        sources += 1;
        let paths = section.paths("root_certificate_files").unwrap_or_default();
        for (index, path) in paths.iter().enumerate().filter(|_| files == Files::Read) {
            let key = format!("root_certificate_files[{index}]");
            let add = |text: Vec<u8>| trust.add_certificates(&text);
            read_file(&section, &key, path, add);
        }
    }
    if section.has("jwks_file") {
        sources += 1;
        if let Some(path) = section.path("jwks_file")
            && files == Files::Read
        {
            let add = |text: Vec<u8>| KeySet::parse(&text).map(|keys| trust.keys.extend(keys));
            read_file(&section, "jwks_file", &path, add);
        }
    }
    let ca_file = section.path("jwks_ca_file");
    if ca_file.is_some() && !section.has("jwks_url") {
        section.problem("jwks_ca_file", "is for jwks_url, which is missing");
    }
    if let Some(path) = &ca_file
        && files == Files::Read
        && section.permits("jwks_ca_file", path, Purpose::Read)
        && let Err(error) = crate::acme::check_roots(path)
    {
        section.problem("jwks_ca_file", error);
    }
    let source = section
        .has("jwks_url")
        .then(|| url(&mut section, "jwks_url"));
    let source = source.flatten().map(|url| {
        sources += 1;
        if !url.starts_with("https://") {
            section.problem("jwks_url", "must begin with https://");
        }
        Source { url, ca_file }
    });
    if sources == 0 && !section.failed() {
        section.problem_here("needs root_certificate_files, jwks_file or jwks_url");
    }
    let [Some(realm), Some(service), Some(issuer)] = required else {
        return None;
    };
    match Issuer::new(&realm, &service, &issuer, trust) {
        Ok(made) => Some(made.with_source(source)),
        Err(error) => {
            section.problem_here(error);
            None
        }
    }
}

fn read_file(
    section: &Section,
    key: &str,
    path: &Path,
    add: impl FnOnce(Vec<u8>) -> Result<(), TrustError>,
) {
    if !section.permits(key, path, Purpose::Read) {
        return;
    }
    let problem = match fs::read(path) {
        Ok(text) => add(text).err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = problem {
        section.problem(key, format!("{}: {problem}", path.display()));
    }
}

/// Reads an absolute URL.
fn url(section: &mut Section, key: &str) -> Option<String> {
    let text: String = section.optional(key)?;
    let uri = text.parse::<Uri>().ok();
    let absolute = uri.is_some_and(|uri| {
        let scheme = uri.scheme_str().unwrap_or_default();
        matches!(scheme, "http" | "https") && uri.host().is_some()
    });
    if !absolute {
        let message =
            format!("{text:?}: is not a valid URL, such as \"https://auth.example.com/token\"");
        section.problem(key, message);
        return None;
    }
    Some(text)
}

/// Reads a name that can stand in a header and in a token.
fn word(section: &mut Section, key: &str) -> Option<String> {
    let text: String = section.optional(key)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        section.problem(key, "must not be empty, nor hold control characters");
        return None;
    }
    Some(text)
}
