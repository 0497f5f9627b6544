//! The keys of `[site.auth]` that begin with `client_`: whose certificates are taken, and whom they
//! make of clients.

use std::path::PathBuf;
use std::sync::Arc;

use settings::{Purpose, Section};

use super::Files;
use crate::auth::certificate::{NamedBy, Naming};
use crate::tls::ClientAuth;

const CA_FILE: &str = "client_ca_file";
const CRL_FILES: &str = "client_crl_files";
const MODE: &str = "client_certificate";
const PRINCIPAL: &str = "client_principal";
const ALLOW: &str = "client_allow";

/// How a site takes client certificates.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificates {
    pub(crate) authorities: Arc<ClientAuth>,
    pub(crate) naming: Naming,
}

/// Reads the keys; without an authority no certificate is asked for.
pub(super) fn read(
    section: &mut Section,
    files: Files,
    warnings: &mut Vec<String>,
) -> Option<ClientCertificates> {
    if !section.has(CA_FILE) {
        for key in [CRL_FILES, MODE, PRINCIPAL, ALLOW] {
            if section.has(key) {
                section.problem(key, format!("needs a {CA_FILE}"));
            }
        }
    }
    let ca_file = section.path(CA_FILE);
    let crl_files = section.paths(CRL_FILES).unwrap_or_default();
    let required = required(section);
    let naming = Naming {
        named_by: named_by(section),
        allow: allow(section),
    };
    if naming.named_by == NamedBy::Nothing && naming.allow.is_some() {
        let problem = format!("needs a name to look for, and {PRINCIPAL} = \"none\" takes none");
        section.problem(ALLOW, problem);
    }
    let ca_file = ca_file.filter(|_| files == Files::Read)?;
    let may_read = |(index, file): (usize, &PathBuf)| {
        section.permits(&format!("{CRL_FILES}[{index}]"), file, Purpose::Read)
    };
    let readable = section.permits(CA_FILE, &ca_file, Purpose::Read);
    if !crl_files.iter().enumerate().all(may_read) || !readable {
        return None;
    }
    let authorities = load(section, required, ca_file, crl_files)?;
    warnings.extend(authorities.warnings());
    Some(ClientCertificates {
        authorities: Arc::new(authorities),
        naming,
    })
}

fn load(
    section: &Section,
    required: bool,
    ca_file: PathBuf,
    crl_files: Vec<PathBuf>,
) -> Option<ClientAuth> {
    let revoked = crl_files.clone();
    match ClientAuth::load(required, ca_file, crl_files) {
        Ok(authorities) => Some(authorities),
        Err(error) => {
            let at_fault = error.path();
            let index = revoked
                .iter()
                .position(|file| Some(file.as_path()) == at_fault);
            let key = index.map(|index| format!("{CRL_FILES}[{index}]"));
            section.problem(key.as_deref().unwrap_or(CA_FILE), error);
            None
        }
    }
}

fn required(section: &mut Section) -> bool {
    let known = [("required", true), ("optional", false)];
    section.word(MODE, &known).unwrap_or(true)
}

fn named_by(section: &mut Section) -> NamedBy {
    section.word(PRINCIPAL, &NamedBy::NAMES).unwrap_or_default()
}

fn allow(section: &mut Section) -> Option<Box<[Box<str>]>> {
    let names: Vec<Box<str>> = section.optional(ALLOW)?;
    if names.is_empty() {
        section.problem(ALLOW, "names nobody; leave it out to let in all");
    }
    Some(names.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use settings::Document;

    use super::*;
    use crate::tls::self_signed;

    fn read_in(folder: &Path, text: &str) -> Result<Option<ClientCertificates>, String> {
        let mut document = Document::parse(&folder.join("edge.toml"), text).unwrap();
        let certificates = read(&mut document.root(), Files::Read, &mut Vec::new());
        match document.finish() {
            Ok(()) => Ok(certificates),
            Err(problems) => Err(problems.to_string()),
        }
    }

    #[test]
    fn an_authority_alone_requires_certificates_and_takes_their_common_name() {
        let folder = tempfile::tempdir().unwrap();
        let pair = self_signed::generate(&["ca.test".to_owned()], &[]).unwrap();
        fs::write(folder.path().join("ca.pem"), pair.cert_pem).unwrap();
        assert!(read_in(folder.path(), "").unwrap().is_none());
        let alone = read_in(folder.path(), "client_ca_file = \"ca.pem\"").unwrap();
        let alone = alone.unwrap();
        assert!(alone.authorities.is_required());
        assert_eq!(alone.naming, Naming::default());
        let all = "client_ca_file = \"ca.pem\"\nclient_crl_files = []\n\
                   client_certificate = \"optional\"\nclient_principal = \"san_uri\"\n\
                   client_allow = [\"a\", \"b*\"]";
        let all = read_in(folder.path(), all).unwrap().unwrap();
        assert!(!all.authorities.is_required());
        assert_eq!(all.naming.named_by, NamedBy::Uri);
        assert_eq!(all.naming.allow.unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_meant_is_said_under_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let pair = self_signed::generate(&["ca.test".to_owned()], &[]).unwrap();
        fs::write(folder.path().join("ca.pem"), pair.cert_pem).unwrap();
        fs::write(folder.path().join("text"), "no list").unwrap();
        for (text, told) in [
            (
                "client_certificate = \"optional\"",
                "client_certificate: needs a client_ca_file",
            ),
            (
                "client_ca_file = \"ca.pem\"\nclient_certificate = \"maybe\"",
                "client_certificate: \"maybe\": must be \"required\" or \"optional\"",
            ),
            (
                "client_ca_file = \"ca.pem\"\nclient_principal = \"ou\"",
                "client_principal: \"ou\": must be one of \"cn\", \"san_email\"",
            ),
            (
                "client_ca_file = \"ca.pem\"\nclient_allow = []",
                "client_allow: names nobody",
            ),
            (
                "client_ca_file = \"ca.pem\"\nclient_principal = \"none\"\nclient_allow = [\"a\"]",
                "client_allow: needs a name to look for",
            ),
            ("client_ca_file = \"none.pem\"", "client_ca_file: "),
            ("client_ca_file = \"text\"", "client_ca_file: "),
            (
                "client_ca_file = \"ca.pem\"\nclient_crl_files = [\"text\"]",
                "client_crl_files[0]: ",
            ),
            (
                "client_ca_file = \"ca.pem\"\nclient_crl_files = [\"none.crl\"]",
                "client_crl_files[0]: ",
            ),
        ] {
            let problems = read_in(folder.path(), text).unwrap_err();
            assert!(problems.contains(told), "{told}\n--- not in\n{problems}");
            assert_eq!(problems.lines().count(), 1, "{problems}");
        }
    }
}
