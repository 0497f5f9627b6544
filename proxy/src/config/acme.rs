//! `[acme]`: who certifies the sites that ask for it, and how it is convinced.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use settings::{Kind, Purpose, Section};

use super::Files;

/// Let's Encrypt's directory.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The one to try things out with: nobody trusts what it issues, and its limits are wide.
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// How long the program for DNS may take.
const HOOK_TIMEOUT: Duration = Duration::from_secs(2 * 60);

/// How long a record takes to be seen everywhere, by the habit of most providers.
const PROPAGATION: Duration = Duration::from_secs(30);

/// More than this is no time that an order can wait.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// How certificates are obtained.
#[derive(Clone, Debug)]
pub(crate) struct Acme {
    /// Who is asked: the first, and when that fails, the next.
    pub(crate) authorities: Vec<Authority>,
    /// How a CA may ask, if not in whatever way works.
    pub(crate) challenge: Challenge,
    /// A certificate is ordered for each; never none.
    pub(crate) key_types: Vec<KeyType>,
    pub(crate) profile: Option<String>,
    pub(crate) dns: Option<DnsHook>,
}

/// A CA, and who we are to it.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    pub(crate) directory: String,
    /// The directory to try things out with.
    pub(crate) staging: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) root_file: Option<PathBuf>,
    /// The root, by its common name, that the chain is to lead to, where there is a choice.
    pub(crate) preferred_chain: Option<String>,
    pub(crate) external_account: Option<ExternalAccount>,
}

/// An account that one has with the CA already.
#[derive(Clone)]
pub(crate) struct ExternalAccount {
    pub(crate) id: String,
    pub(crate) key: Vec<u8>,
}

impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key.
        f.debug_struct("ExternalAccount")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What kind of key a certificate is made for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum KeyType {
    /// What every client of today knows, and the cheapest.
    #[default]
    EcdsaP256,
    /// The longer one of the kind.
    EcdsaP384,
    /// For clients of yesterday.
    Rsa2048,
    /// The longer one of the kind.
    Rsa4096,
}

impl KeyType {
    const ALL: [Self; 4] = [
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::Rsa2048,
        Self::Rsa4096,
    ];

    /// Returns its name in the config.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        }
    }

    /// Returns what clients can or cannot verify as a whole.
    pub(crate) fn algorithm(self) -> &'static str {
        match self {
            Self::EcdsaP256 | Self::EcdsaP384 => "ecdsa",
            Self::Rsa2048 | Self::Rsa4096 => "rsa",
        }
    }
}

/// How a CA may ask whether a host is ours.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Challenge {
    /// In whatever way works.
    #[default]
    Auto,
    Dns01,
    Http01,
    TlsAlpn01,
}

/// A program that sets records in a zone.
#[derive(Clone, Debug)]
pub(crate) struct DnsHook {
    pub(crate) program: PathBuf,
    pub(crate) timeout: Duration,
    /// How long to wait until everyone sees a record.
    pub(crate) propagation: Duration,
}

impl Acme {
    /// Reads `[acme]`.
    pub(super) fn read(mut section: Section, files: Files) -> Self {
        let mut authorities = vec![Authority::read(&mut section, files, true)];
        if let Some(mut fallback) = section.table("fallback") {
            authorities.push(Authority::read(&mut fallback, files, false));
        }
        if section.optional("agree_to_terms") != Some(true) && !section.failed() {
            section.problem(
                "agree_to_terms",
                "must be true: read the terms of service of the CA and agree to them",
            );
        }
        let challenge = one_of(
            &mut section,
            "challenge",
            &[
                ("auto", Challenge::Auto),
                ("dns-01", Challenge::Dns01),
                ("http-01", Challenge::Http01),
                ("tls-alpn-01", Challenge::TlsAlpn01),
            ],
        );
        let key_types = key_types(&mut section);
        let dns = section.table("dns").map(|dns| DnsHook::read(dns, files));
        if challenge == Challenge::Dns01 && dns.is_none() {
            section.problem("challenge", "\"dns-01\" needs the program of [acme.dns]");
        }
        Self {
            authorities,
            challenge,
            key_types,
            profile: section.optional("profile"),
            dns: dns.flatten(),
        }
    }
}

#[cfg(test)]
impl Acme {
    /// Reads the keys alone.
    pub(crate) fn read_keys(section: Section) -> Self {
        Self::read(section, Files::LeaveAlone)
    }
}

impl Authority {
    fn read(section: &mut Section, files: Files, first: bool) -> Self {
        let directory: Option<String> = section.optional("directory");
        if directory.is_none() && !first {
            section.problem("directory", "is missing");
        }
        let staging = section.optional("staging").unwrap_or_default();
        if staging && directory.is_some() {
            section.problem(
                "staging",
                "is about Let's Encrypt: name the directory of another CA's staging as directory",
            );
        }
        let directory = directory.unwrap_or_else(|| LETS_ENCRYPT.to_owned());
        let host = directory.strip_prefix("https://");
        let host = host.and_then(|rest| rest.split('/').next());
        if host.is_none_or(str::is_empty) || directory.parse::<http::Uri>().is_err() {
            section.problem("directory", "must be a URL that begins with https://");
        }
        let email: Option<String> = section.optional("email");
        if email.as_ref().is_some_and(|email| !email.contains('@')) {
            section.problem(
                "email",
                "is not a valid address, such as \"ops@example.com\"",
            );
        }
        let root_file = section.path("root_file");
        if let Some(path) = &root_file
            && files == Files::Read
            && section.permits("root_file", path, Purpose::Read)
            && let Err(error) = crate::acme::check_roots(path)
        {
            section.problem("root_file", error);
        }
        let trial = (directory == LETS_ENCRYPT).then(|| LETS_ENCRYPT_STAGING.to_owned());
        Self {
            directory: match &trial {
                Some(trial) if staging => trial.clone(),
                _ => directory,
            },
            staging: trial,
            email,
            root_file,
            preferred_chain: section.optional("preferred_chain"),
            external_account: section
                .table("external_account")
                .and_then(|own| ExternalAccount::read(own, files)),
        }
    }
}

impl ExternalAccount {
    fn read(mut section: Section, files: Files) -> Option<Self> {
        let id = section.required("id");
        if !section.has("key_file") {
            section.problem("key_file", "is missing");
        }
        let path = section.path("key_file");
        let (id, path) = (id?, path?);
        if files == Files::LeaveAlone || !section.permits("key_file", &path, Purpose::Read) {
            return None;
        }
        let key = match fs::read_to_string(&path) {
            Ok(text) => URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')),
            Err(error) => {
                section.problem("key_file", format!("{}: {error}", path.display()));
                return None;
            }
        };
        match key {
            Ok(key) => Some(Self { id, key }),
            Err(_not_base64) => {
                let path = path.display();
                section.problem("key_file", format!("{path}: is not base64url"));
                None
            }
        }
    }
}

impl DnsHook {
    fn read(mut section: Section, files: Files) -> Option<Self> {
        if !section.has("program") {
            section.problem("program", "is missing");
        }
        let program = section.path("program");
        let mut wait = |key, default| {
            let wait = section.duration(key).unwrap_or(default);
            if wait > WAIT_MAX {
                section.problem(key, "must be an hour at most");
            }
            wait.min(WAIT_MAX)
        };
        let timeout = wait("timeout", HOOK_TIMEOUT);
        let propagation = wait("propagation", PROPAGATION);
        let program = program?;
        if files == Files::Read {
            let found = fs::metadata(&program);
            match found.as_ref().map(|found| (found.is_file(), found.mode())) {
                // One that nobody may run can be on its way there; one that others may run is closed to us.
                Ok((true, mode)) if mode & 0o111 == 0 => {}
                Ok((false, _)) => {
                    let message = format!("{}: is not a file", program.display());
                    section.problem("program", message);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let message = format!("{}: there is no such file", program.display());
                    section.problem("program", message);
                }
                Ok(_) | Err(_) => drop(section.permits("program", &program, Purpose::Run)),
            }
        }
        Some(Self {
            program,
            timeout,
            propagation,
        })
    }
}

/// Reads the types of key that there are certificates for, from the table `[acme]`.
pub(super) fn key_types(section: &mut Section) -> Vec<KeyType> {
    let known = KeyType::ALL.map(|kind| (kind.name(), kind));
    if section.kind("key_type") != Some(Kind::Array) {
        return vec![one_of(section, "key_type", &known)];
    }
    let texts: Vec<String> = section.optional("key_type").unwrap_or_default();
    let mut types: Vec<KeyType> = Vec::new();
    for text in &texts {
        let Some(kind) = section.choose("key_type", text, &known) else {
            continue;
        };
        let algorithm = kind.algorithm();
        if types.iter().any(|other| other.algorithm() == algorithm) {
            let message = format!("there can be one of {algorithm} only");
            section.problem("key_type", message);
        }
        types.push(kind);
    }
    if texts.is_empty() {
        section.problem("key_type", "must name one type at least");
    }
    if types.is_empty() {
        types.push(KeyType::default());
    }
    types
}

fn one_of<T: Copy + Default>(section: &mut Section, key: &str, known: &[(&str, T)]) -> T {
    section.word(key, known).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use settings::Document;

    use super::*;

    fn read(folder: &Path, text: &str) -> Result<Acme, String> {
        let mut document = Document::parse(&folder.join("edge.toml"), text).unwrap();
        let acme = Acme::read(document.root(), Files::Read);
        match document.finish() {
            Ok(()) => Ok(acme),
            Err(problems) => Err(problems.to_string()),
        }
    }

    #[test]
    fn terms_agreed_to_are_enough() {
        let folder = tempfile::tempdir().unwrap();
        let acme = read(folder.path(), "agree_to_terms = true").unwrap();
        let [authority] = &acme.authorities[..] else {
            panic!()
        };
        assert_eq!(authority.directory, LETS_ENCRYPT);
        assert_eq!(acme.key_types, [KeyType::EcdsaP256]);
        assert_eq!(acme.challenge, Challenge::Auto);
        let acme = read(folder.path(), "agree_to_terms = true\nstaging = true").unwrap();
        assert_eq!(acme.authorities[0].directory, LETS_ENCRYPT_STAGING);
    }

    #[test]
    fn another_ca_its_account_and_the_hook_are_read_from_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("key"), "aGVsbG8\n").unwrap();
        fs::write(folder.path().join("hook"), "").unwrap();
        let text = r#"
            agree_to_terms = true
            directory = "https://ca.test/dir"
            key_type = "rsa-2048"
            challenge = "dns-01"
            external_account = { id = "me", key_file = "key" }
            dns = { program = "hook", propagation = "0s" }
            fallback = { directory = "https://other.test/dir" }
        "#;
        let acme = read(folder.path(), text).unwrap();
        let own = acme.authorities[0].external_account.as_ref().unwrap();
        assert_eq!(own.key, b"hello");
        assert_eq!(acme.authorities[1].directory, "https://other.test/dir");
        assert_eq!(acme.dns.unwrap().propagation, Duration::ZERO);
    }

    #[test]
    fn there_may_be_several_types_of_key() {
        let folder = tempfile::tempdir().unwrap();
        let types = |keys: &str| {
            let text = format!("agree_to_terms = true\n{keys}");
            read(folder.path(), &text).map(|acme| acme.key_types)
        };
        assert_eq!(
            types("key_type = [\"rsa-4096\", \"ecdsa-p384\"]").unwrap(),
            [KeyType::Rsa4096, KeyType::EcdsaP384]
        );
        assert_eq!(
            types("key_type = \"ecdsa-p384\"").unwrap(),
            [KeyType::EcdsaP384]
        );
        let problems = types("key_type = []").unwrap_err();
        assert!(problems.contains("must name one type"), "{problems}");
    }

    #[test]
    fn every_problem_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"
            directory = "http://ca.test/dir"
            staging = true
            email = "me"
            key_type = ["dsa", "rsa-2048", "rsa-4096"]
            challenge = "dns-01"
            root_file = "none.pem"
            external_account = { id = "me", key_file = "none" }
            fallback = { }
        "#;
        let problems = read(folder.path(), text).unwrap_err();
        for told in [
            "directory: must be a URL that begins with https://",
            "staging: is about Let's Encrypt",
            "email: is not a valid address",
            "key_type: \"dsa\": must be one of \"ecdsa-p256\", ",
            "key_type: there can be one of rsa only",
            "challenge: \"dns-01\" needs the program of [acme.dns]",
            "none.pem: No such file",
            "external_account.key_file: ",
            "fallback.directory: is missing",
        ] {
            assert!(problems.contains(told), "{told}\n--- not in\n{problems}");
        }
        let problems = read(folder.path(), "").unwrap_err();
        assert!(
            problems.contains("agree_to_terms: must be true"),
            "{problems}"
        );
    }
}
