//! Why an order came to nothing, and what a person can do about it.

use std::fmt;
use std::time::SystemTime;

use instant_acme::{Error, Problem};
use serde::{Deserialize, Serialize};

const NAMESPACE: &str = "urn:ietf:params:acme:error:";

/// Who stood in the way of an order.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Part {
    /// The CA, by what it said, or the way to it.
    #[default]
    Ca,
    /// The challenge: it cannot be had, or does not convince.
    Challenge,
    /// The program that sets records in the DNS.
    Hook,
    /// This machine.
    Machine,
}

/// Why an order came to nothing.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) part: Part,
    /// The CA's own word for it (RFC 8555, section 6.7), without its namespace; `None` when it was
    /// not the CA that said no.
    pub(crate) problem: Option<String>,
    pub(crate) detail: String,
    /// The host that it is about.
    pub(crate) host: Option<String>,
    /// Until when the CA wants to be left alone.
    pub(crate) retry_after: Option<SystemTime>,
}

impl Failure {
    /// One that this machine is to blame for.
    pub(crate) fn ours(detail: impl fmt::Display) -> Self {
        Self::by(Part::Machine, detail)
    }

    /// One that is no word of the CA's.
    pub(crate) fn by(part: Part, detail: impl fmt::Display) -> Self {
        Self {
            part,
            problem: None,
            detail: detail.to_string(),
            host: None,
            retry_after: None,
        }
    }

    /// What the CA said.
    pub(crate) fn of(problem: &Problem) -> Self {
        let first = problem.subproblems.first();
        let kind = problem.r#type.as_deref();
        let kind = kind.map(|kind| kind.strip_prefix(NAMESPACE).unwrap_or(kind).to_owned());
        let mut detail = problem.detail.clone().unwrap_or_default();
        for more in &problem.subproblems {
            detail = format!("{detail}; {more}");
        }
        Self {
            part: Part::Ca,
            problem: kind.or_else(|| Some("unknown".to_owned())),
            detail,
            host: first
                .and_then(|first| first.identifier.as_ref())
                .map(|identifier| identifier.authorized(false).to_string()),
            retry_after: None,
        }
    }

    /// Says which host it is about.
    pub(crate) fn about(mut self, host: impl Into<String>) -> Self {
        self.host.get_or_insert_with(|| host.into());
        self
    }

    /// Returns whether the CA no longer knows the account.
    pub(crate) fn is_lost_account(&self) -> bool {
        self.problem.as_deref() == Some("accountDoesNotExist")
            || self.problem.as_deref() == Some("unauthorized") && self.host.is_none()
    }

    /// Returns whether the CA was asked with a number of its own that it has forgotten.
    pub(crate) fn is_about_a_nonce(&self) -> bool {
        self.problem.as_deref() == Some("badNonce")
    }

    /// Returns whether an order might fare better that does not say what it replaces.
    ///
    /// CAs have many words for it: the certificate is replaced already, is another account's or
    /// another issuer's, or is not known any more.
    pub(crate) fn may_be_about_replacing(&self) -> bool {
        match self.problem.as_deref() {
            Some(
                "accountDoesNotExist"
                | "badNonce"
                | "rateLimited"
                | "serverInternal"
                | "userActionRequired",
            ) => false,
            Some(_) => true,
            None => self.detail.contains("replaces") || self.detail.contains("renewal information"),
        }
    }

    /// Says what a person can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        advice(self.part, self.problem.as_deref())
    }
}

/// Says what a person can do about a problem of this kind.
pub(crate) fn advice(part: Part, problem: Option<&str>) -> &'static str {
    match (part, problem) {
        (Part::Ca, problem) => advice_on(problem),
        (Part::Challenge, _) => "the CA cannot be convinced in this way: choose another challenge",
        (Part::Hook, _) => {
            "the program of [acme.dns] failed: run it by hand as the edge's user, and see whether the edge's systemd unit lets it do what it does"
        }
        (Part::Machine, _) => {
            "this machine could not do its part: check that state_dir can be written and has room, and that root_file can be read"
        }
    }
}

fn advice_on(problem: Option<&str>) -> &'static str {
    match problem {
        None => {
            "the CA could not be asked: check this machine's network and DNS, the directory's URL and, for a private CA, root_file"
        }
        Some("dns") => {
            "the CA cannot resolve the host: check its A and AAAA records, and that they are public"
        }
        Some("connection") => {
            "the CA cannot connect to the host: check that its A and AAAA records (both) lead here, and that no firewall is in front of port 80 (http-01) or 443 (tls-alpn-01)"
        }
        Some("unauthorized" | "incorrectResponse") => {
            "the CA met someone else's answer: check that the host's A and AAAA records (both) lead to this edge, and to no other proxy; for dns-01 that the hook's record is public"
        }
        Some("tls") => {
            "the CA's handshake failed: something other than this edge answers on port 443, or takes TLS apart in front of it"
        }
        Some("caa") => {
            "a CAA record forbids this CA to certify the host: add one for it, or remove it"
        }
        Some("rateLimited") => {
            "the CA's rate limit is reached: wait, it is tried again by itself; use staging = true while trying things out"
        }
        Some("rejectedIdentifier" | "unsupportedIdentifier") => {
            "the CA does not certify such a name: it must be a public one, or ask a CA of your own"
        }
        Some("externalAccountRequired") => {
            "the CA wants an account of its own first: get a key there and name it as external_account"
        }
        Some("accountDoesNotExist") => {
            "the CA has forgotten the account: a new one is made with the next try"
        }
        Some("invalidContact" | "unsupportedContact") => {
            "the CA does not accept the address: check email"
        }
        Some("userActionRequired") => {
            "the CA has new terms of service: read them and agree where it says"
        }
        Some("badPublicKey" | "badCSR" | "badSignatureAlgorithm") => {
            "the CA does not accept such a key: choose another key_type"
        }
        Some("invalidProfile") => "the CA has no such profile: check profile",
        Some("badNonce" | "serverInternal") => {
            "the CA has a trouble of its own: it is tried again by itself"
        }
        Some(_) => "see the CA's own words",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}: ")?;
        }
        match &self.problem {
            Some(problem) => write!(f, "{} ({problem})", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::of(&problem),
            error => Self::by(Part::Ca, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_keeps_the_cas_words_and_names_the_host() {
        let problem = r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no",
            "subproblems":[{"type":"urn:ietf:params:acme:error:rejectedIdentifier",
            "detail":"policy","identifier":{"type":"dns","value":"a.test"}}]}"#;
        let failure = Failure::of(&serde_json::from_str(problem).unwrap());
        assert_eq!(failure.problem.as_deref(), Some("rejectedIdentifier"));
        assert_eq!(failure.host.as_deref(), Some("a.test"));
        assert!(failure.to_string().contains("policy"), "{failure}");
        assert!(failure.advice().contains("public"), "{}", failure.advice());
    }

    #[test]
    fn what_an_order_replaces_is_left_out_where_that_may_help() {
        let failure = |problem: Option<&str>, detail: &str| Failure {
            problem: problem.map(str::to_owned),
            ..Failure::ours(detail)
        };
        for (problem, detail, helps) in [
            (Some("alreadyReplaced"), "", true),
            (Some("malformed"), "no known issuer matches", true),
            (Some("unauthorized"), "another account's", true),
            (Some("rateLimited"), "", false),
            (Some("badNonce"), "", false),
            (None, "replaces field mismatch", true),
            (None, "connection refused", false),
        ] {
            let failure = failure(problem, detail);
            assert_eq!(failure.may_be_about_replacing(), helps, "{failure}");
        }
    }

    #[test]
    fn what_the_ca_did_not_say_is_about_the_way_to_it() {
        let failure = Failure::by(Part::Ca, "connection refused").about("a.test");
        assert_eq!(failure.to_string(), "a.test: connection refused");
        assert!(failure.advice().contains("could not be asked"));
    }

    #[test]
    fn what_went_wrong_elsewhere_is_not_blamed_on_the_way_to_the_ca() {
        for (part, advice) in [
            (Part::Challenge, "another challenge"),
            (Part::Hook, "[acme.dns]"),
            (Part::Machine, "state_dir"),
        ] {
            let failure = Failure::by(part, "no");
            assert!(failure.advice().contains(advice), "{part:?}");
        }
    }
}
