//! Whom the rules of a site speak of although nobody can ever be that.
//!
//! A name that is misspelt locks somebody out or, where the rule denies, lets somebody in; and nothing
//! else shows it. It is a warning and no problem: a user may be added after the rule.

use settings::{Section, nearest, suggestion};

use super::ClientCertificates;
use super::auth::Written;
use crate::auth::access::Access;
use crate::auth::certificate::NamedBy;
use crate::auth::rules::Who;

impl Written {
    /// Warns of each name in the rules of `site` that nobody can have.
    pub(super) fn warn_of_nobody(
        &self,
        site: &Section,
        access: &Access,
        warnings: &mut Vec<String>,
    ) {
        for rule in access.rules.iter() {
            let key = rule.key.strip_prefix(site.name()).unwrap_or_default();
            let key = key.trim_start_matches('.');
            for (index, who) in rule.who.iter().enumerate() {
                let nobody = match who {
                    Who::Address(_) | Who::Anyone | Who::Authenticated => None,
                    Who::Certificate(name) => self.without_certificate(name),
                    Who::Group(name) => self.without_member(name, access),
                    Who::User(name) => self.without_password(name),
                };
                if let Some(nobody) = nobody {
                    let warning = site.at(&format!("{key}.who[{index}]"), nobody);
                    warnings.push(warning.to_string());
                }
            }
        }
    }

    /// Returns the certificates that make somebody of who shows them.
    fn naming_certificates(&self) -> Option<&ClientCertificates> {
        let certificates = self.certificates.as_ref();
        certificates.filter(|taken| taken.naming.named_by != NamedBy::Nothing)
    }

    fn without_password(&self, name: &str) -> Option<String> {
        // What another server calls its users is not for us to know.
        if self.tokens.are_anothers() {
            return None;
        }
        let by_certificate = match self.naming_certificates() {
            Some(_) => format!("; who has a certificate of that name is \"cert:{name}\""),
            None => String::new(),
        };
        let Some(basic) = &self.basic else {
            return Some(format!(
                "{name:?}: nobody can be that, for there is no htpasswd_file{by_certificate}"
            ));
        };
        (!basic.has(name)).then(|| {
            let names = basic.names();
            let near = suggestion(nearest(name, names.iter().map(|name| &**name)));
            let file = basic.file().display();
            format!("{name:?}: there is no such user in {file}{near}{by_certificate}")
        })
    }

    fn without_certificate(&self, name: &str) -> Option<String> {
        let Some(taken) = self.naming_certificates() else {
            let why = match self.certificates {
                Some(_) => "client_principal = \"none\" takes no name from a certificate",
                None => "there is no client_ca_file",
            };
            return Some(format!("\"cert:{name}\": nobody can be that, for {why}"));
        };
        (!taken.naming.admits(name)).then(|| {
            format!("\"cert:{name}\": nobody can be that, for client_allow does not let it in")
        })
    }

    fn without_member(&self, group: &str, access: &Access) -> Option<String> {
        // A certificate may be of any organizational unit.
        if self.naming_certificates().is_some() || self.tokens.are_anothers() {
            return None;
        }
        let Some(file) = access.groups.file() else {
            return Some(format!(
                "\"@{group}\": nobody is in it, for there is neither a group_file nor a client_ca_file"
            ));
        };
        let members = access.groups.members();
        if members.names().any(|name| name == group) {
            return None;
        }
        let near = nearest(group, members.names()).map(|near| format!("@{near}"));
        Some(format!(
            "\"@{group}\": there is no such group in {}{}",
            file.display(),
            suggestion(near.as_deref())
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use settings::Document;

    use super::super::{Config, RegistryPeer};
    use crate::tls::self_signed;

    /// The warnings of a site with a rule for `who`, and with `auth`.
    fn warnings(auth: &str, who: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let pair = self_signed::generate(&["a.test".to_owned()], &[]).unwrap();
        fs::write(at("cert.pem"), pair.cert_pem).unwrap();
        fs::write(at("key.pem"), pair.key_pem).unwrap();
        fs::write(at("users"), "alice:{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=\n").unwrap();
        fs::write(at("groups"), "dev: alice\n").unwrap();
        let text = format!(
            "listener = [{{ address = '127.0.0.1:443', tls = true }}]\n[[site]]\nhosts = ['a.test']\n\
             certificate = {{ cert_file = 'cert.pem', key_file = 'key.pem' }}\nupstream = 'registry'\n\
             auth = {{ {auth} }}\n[[site.access.rule]]\nactions = ['pull']\nwho = [{who}]\n"
        );
        let mut document = Document::parse(&at("edge.toml"), &text).unwrap();
        let registry = RegistryPeer {
            name: "registry".to_owned(),
            socket: "/run/registry.sock".into(),
        };
        let config = Config::read(&mut document.root(), &[registry]);
        document.finish().unwrap();
        let folder = format!("{}/", folder.path().display());
        let config = config.unwrap();
        let warnings = config.warnings().iter();
        warnings.map(|told| told.replace(&folder, "")).collect()
    }

    #[test]
    fn a_name_that_nobody_can_have_is_a_warning_with_its_place() {
        for (auth, who, told) in [
            (
                "htpasswd_file = 'users'",
                "'alice', 'alicia'",
                "who[1]: \"alicia\": there is no such user in users, did you mean \"alice\"?",
            ),
            (
                "htpasswd_file = 'users'",
                "'@dev'",
                "who[0]: \"@dev\": nobody is in it, for there is neither a group_file nor a client_ca_file",
            ),
            (
                "htpasswd_file = 'users', group_file = 'groups'",
                "'@dve'",
                "who[0]: \"@dve\": there is no such group in groups, did you mean \"@dev\"?",
            ),
            (
                "htpasswd_file = 'users'",
                "'cert:ci'",
                "who[0]: \"cert:ci\": nobody can be that, for there is no client_ca_file",
            ),
            (
                "client_ca_file = 'cert.pem', client_allow = ['ci-*']",
                "'cert:ci-1', 'cert:other'",
                "who[1]: \"cert:other\": nobody can be that, for client_allow does not let it in",
            ),
            (
                "client_ca_file = 'cert.pem', client_principal = 'none', htpasswd_file = 'users'",
                "'cert:ci'",
                "who[0]: \"cert:ci\": nobody can be that, for client_principal = \"none\" takes no name \
                 from a certificate",
            ),
            (
                "client_ca_file = 'cert.pem'",
                "'alice'",
                "who[0]: \"alice\": nobody can be that, for there is no htpasswd_file; who has a \
                 certificate of that name is \"cert:alice\"",
            ),
        ] {
            let expected = format!("edge.toml:9: site[0].access.rule[0].{told}");
            assert_eq!(warnings(auth, who), [expected], "{auth}: {who}");
        }
    }

    #[test]
    fn whom_somebody_can_be_is_no_warning() {
        let issuer = "issuer = { realm = 'https://a.test/', service = 's', issuer = 'i', \
                      root_certificate_files = ['cert.pem'] }";
        for (auth, who) in [
            (
                "htpasswd_file = 'users'",
                "'alice', 'anonymous', 'authenticated', '10.0.0.0/8'",
            ),
            ("htpasswd_file = 'users', group_file = 'groups'", "'@dev'"),
            ("client_ca_file = 'cert.pem'", "'cert:anybody', '@anything'"),
            (issuer, "'anybody', '@anything'"),
        ] {
            assert_eq!(warnings(auth, who), [""; 0], "{auth}: {who}");
        }
    }
}
