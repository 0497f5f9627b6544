//! What a client's certificate says, once the handshake has verified it or found why not; and whom
//! it makes of the client.

use std::fmt;

use super::{Origin, ROBOT_PREFIX, User};

/// The certificate that a client has shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ClientCertificate {
    pub(crate) common_name: Option<Box<str>>,
    pub(crate) organizational_units: Box<[Box<str>]>,
    pub(crate) emails: Box<[Box<str>]>,
    pub(crate) dns_names: Box<[Box<str>]>,
    pub(crate) uris: Box<[Box<str>]>,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub(crate) fingerprint: Box<str>,
    pub(crate) verdict: Verdict,
}

/// Whether it may be believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Rejected(Fault),
    Verified,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    Expired,
    NotYetValid,
    Other,
    Revoked,
    UnknownAuthority,
    UnknownRevocation,
    WrongPurpose,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not yet valid",
            Self::Other => "cannot be verified",
            Self::Revoked => "revoked",
            Self::UnknownAuthority => "of an unknown authority",
            Self::UnknownRevocation => "not covered by a current revocation list",
            Self::WrongPurpose => "not made for clients",
        })
    }
}

/// Why a certificate does not let its holder in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Objection {
    /// It cannot be believed.
    Fault(Fault),
    /// It has no name of the kind that counts here.
    Nameless,
    /// Its name is on no list of those that may come in.
    NotAllowed,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Nameless => f.write_str("without the name that is asked for"),
            Self::NotAllowed => f.write_str("not of a name that is let in"),
        }
    }
}

/// What of a certificate is the name of its holder.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum NamedBy {
    #[default]
    CommonName,
    DnsName,
    Email,
    Fingerprint,
    /// Nothing is: it opens the door, and the name comes from elsewhere.
    Nothing,
    Uri,
}

impl NamedBy {
    /// Every rule, as the config writes it.
    pub(crate) const NAMES: [(&'static str, Self); 6] = [
        ("cn", Self::CommonName),
        ("san_email", Self::Email),
        ("san_dns", Self::DnsName),
        ("san_uri", Self::Uri),
        ("fingerprint", Self::Fingerprint),
        ("none", Self::Nothing),
    ];
}

/// Whom the certificates of a site make of clients.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Naming {
    pub(crate) named_by: NamedBy,
    /// The names that are let in, where not all are; `*` is any run of characters.
    pub(crate) allow: Option<Box<[Box<str>]>>,
}

/// Longer names are nobody's.
const NAME_BYTES_MAX: usize = 255;

impl Naming {
    /// Returns the user that a certificate makes of its holder; `None` where it only opens the door.
    pub(crate) fn user(&self, certificate: &ClientCertificate) -> Result<Option<User>, Objection> {
        if let Verdict::Rejected(fault) = certificate.verdict {
            return Err(Objection::Fault(fault));
        }
        let name = match self.named_by {
            NamedBy::CommonName => certificate.common_name.as_ref(),
            NamedBy::DnsName => certificate.dns_names.first(),
            NamedBy::Email => certificate.emails.first(),
            NamedBy::Fingerprint => Some(&certificate.fingerprint),
            NamedBy::Nothing => return Ok(None),
            NamedBy::Uri => certificate.uris.first(),
        };
        let name = name.filter(|name| {
            // It is told to the upstream in a header.
            !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
        });
        let name = name.ok_or(Objection::Nameless)?;
        if name.starts_with(ROBOT_PREFIX) {
            return Err(Objection::NotAllowed);
        }
        if !self.admits(name) {
            return Err(Objection::NotAllowed);
        }
        Ok(Some(User {
            groups: certificate.organizational_units.clone(),
            ..User::new(name.clone(), Origin::Certificate)
        }))
    }
}

impl Naming {
    /// Returns whether a holder of this name is let in.
    pub(crate) fn admits(&self, name: &str) -> bool {
        let allow = self.allow.as_ref();
        allow.is_none_or(|allow| allow.iter().any(|pattern| matches(pattern, name)))
    }
}

/// Returns whether `name` is what `pattern` describes, where `*` is any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(start) else {
        return false;
    };
    let mut pieces = rest.split('*');
    let end = pieces.next_back().unwrap_or_default();
    for piece in pieces {
        // The first place where it fits leaves the most for the others.
        match left.split_once(piece) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> ClientCertificate {
        ClientCertificate {
            common_name: Some("ci-7".into()),
            organizational_units: ["dev".into(), "ops".into()].into(),
            emails: ["ci@a.test".into(), "other@a.test".into()].into(),
            dns_names: ["ci.a.test".into()].into(),
            uris: ["spiffe://a.test/ci".into()].into(),
            fingerprint: "ab".repeat(32).into(),
            verdict: Verdict::Verified,
        }
    }

    fn naming(named_by: &str, allow: &[&str]) -> Naming {
        let allow: Box<[Box<str>]> = allow.iter().map(|&name| name.into()).collect();
        Naming {
            named_by: NamedBy::NAMES
                .into_iter()
                .find_map(|(name, rule)| (name == named_by).then_some(rule))
                .unwrap(),
            allow: (!allow.is_empty()).then_some(allow),
        }
    }

    #[test]
    fn the_rule_says_what_of_the_certificate_is_the_name() {
        for (named_by, name) in [
            ("cn", "ci-7"),
            ("san_email", "ci@a.test"),
            ("san_dns", "ci.a.test"),
            ("san_uri", "spiffe://a.test/ci"),
            ("fingerprint", &"ab".repeat(32)),
        ] {
            let user = naming(named_by, &[]).user(&certificate());
            let user = user.unwrap().unwrap();
            assert_eq!(&*user.name, name, "{named_by}");
            assert_eq!(user.origin, Origin::Certificate);
            let groups: Vec<&str> = user.groups.iter().map(|group| &**group).collect();
            assert_eq!(groups, ["dev", "ops"]);
        }
        assert_eq!(naming("none", &[]).user(&certificate()), Ok(None));
    }

    #[test]
    fn what_cannot_be_believed_or_has_no_name_lets_nobody_in() {
        let revoked = ClientCertificate {
            verdict: Verdict::Rejected(Fault::Revoked),
            ..certificate()
        };
        let told = Err(Objection::Fault(Fault::Revoked));
        assert_eq!(naming("cn", &[]).user(&revoked), told);
        assert_eq!(naming("none", &[]).user(&revoked), told);
        for name in [None, Some(""), Some("a\r\nb"), Some(&*"x".repeat(256))] {
            let nameless = ClientCertificate {
                common_name: name.map(Into::into),
                ..certificate()
            };
            let user = naming("cn", &[]).user(&nameless);
            assert_eq!(user, Err(Objection::Nameless), "{name:?}");
        }
    }

    #[test]
    fn where_there_is_a_list_only_who_is_on_it_comes_in() {
        for (allow, let_in) in [
            (&["ci-7"][..], true),
            (&["ci-*"], true),
            (&["*"], true),
            (&["other", "c*7"], true),
            (&["ci-8", "xci-*"], false),
            (&["ci"], false),
        ] {
            let user = naming("cn", allow).user(&certificate());
            assert_eq!(user.is_ok(), let_in, "{allow:?}");
        }
    }

    #[test]
    fn no_certificate_makes_its_holder_a_robot() {
        let certificate = ClientCertificate {
            common_name: Some("robot:ci".into()),
            uris: ["robot:ci".into()].into(),
            ..certificate()
        };
        for named_by in ["cn", "san_uri"] {
            for allow in [&[][..], &["*"], &["robot:ci"]] {
                let user = naming(named_by, allow).user(&certificate);
                assert_eq!(user, Err(Objection::NotAllowed), "{named_by} {allow:?}");
            }
        }
    }

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, name, fits) in [
            ("a*c", "ac", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("aa*aa", "aaa", false),
            ("*.a.test", "x.a.test", true),
            ("*b*b", "abab", true),
            ("*ab*ab*", "ab", false),
            ("**", "", true),
            ("", "", true),
            ("", "a", false),
            ("A", "a", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
