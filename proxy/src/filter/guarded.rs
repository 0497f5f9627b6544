//! Headers by which services behind a proxy let themselves be told things: who is asking, from where,
//! for what. No client may say them.
//!
//! This is the one guard for upstreams of all kinds. What is taken out here is put in again, where the
//! edge knows it itself, by [`forwarded`](super::forwarded) and `auth::identity`. The registry does
//! without most of it: it is sent a fixed set of headers and no others.

use http::HeaderMap;

use super::Edits;

/// What nobody in front of this edge may say, trusted proxies included: they are believed about where
/// a request came from, and not about who sent it.
const NAMES: [&str; 48] = [
    "auth-user",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded-for",
    "iv-creds",
    "iv-groups",
    "iv-user",
    // What CGI makes the variable HTTP_PROXY of, which clients take for their own proxy.
    "proxy",
    "true-client-ip",
    "x-arr-clientcert",
    "x-auth-email",
    "x-auth-groups",
    "x-auth-roles",
    "x-auth-user",
    "x-auth-username",
    "x-azure-clientip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-email",
    "x-envoy-external-address",
    "x-forwarded",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info",
    "x-forwarded-user",
    // These would have a method that was refused count after all.
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-originating-ip",
    "x-proxy-user",
    "x-rewrite-url",
    "x-scope-orgid",
    "x-token-subject",
    "x-user",
    "x-user-email",
    "x-user-groups",
    "x-user-id",
    "x-user-name",
    "x-user-roles",
    "x-username",
];

/// How such names begin where there is a family of them.
const FAMILIES: [&str; 27] = [
    "cf-access-",
    "mellon-",
    "oidc-",
    "remote-",
    "shib-",
    "sm-",
    "ssl-client-",
    "tailscale-",
    "x-amzn-oidc-",
    "x-appengine-user-",
    "x-auth-request-",
    "x-authenticated-",
    "x-authentik-",
    "x-client-cert",
    "x-client-dn",
    "x-client-verify",
    "x-consumer-",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-ms-client-principal",
    "x-original-",
    "x-pomerium-",
    "x-remote-",
    "x-ssl-",
    "x-tidegate-",
    "x-vouch-",
    "x-webauth-",
];

/// The letters that guarded names begin with.
const INITIALS: &[u8] = b"acfimoprstx";

/// Who may say what a header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Guard {
    /// This edge alone.
    Edge,
    /// A trusted proxy, too.
    TrustedProxy,
}

/// Takes out what whoever sent the request may not say; `trusted` is whether that is a trusted proxy.
pub(crate) fn strip(headers: &HeaderMap, trusted: bool, edits: &mut Edits) {
    for name in headers.keys() {
        let text = name.as_str().as_bytes();
        let keeps = match guard(text) {
            None => true,
            Some(Guard::Edge) => false,
            // What is spelled otherwise is said by nobody but a client that wants to be misread.
            Some(Guard::TrustedProxy) => trusted && text.iter().all(|byte| letter(*byte) == *byte),
        };
        if !keeps {
            edits.remove(name.clone());
        }
    }
}

fn guard(name: &[u8]) -> Option<Guard> {
    // Most headers are known to be none of these by their first letter.
    if !name.first().is_some_and(|first| INITIALS.contains(first)) {
        return None;
    }
    let is = |guarded: &str| name.len() == guarded.len() && begins(name, guarded);
    if FAMILIES.iter().any(|family| begins(name, family)) || NAMES.iter().any(|name| is(name)) {
        Some(Guard::Edge)
    } else if begins(name, "x-forwarded-") || is("forwarded") || is("x-real-ip") {
        Some(Guard::TrustedProxy)
    } else {
        None
    }
}

fn begins(name: &[u8], guarded: &str) -> bool {
    let mut letters = name.iter().map(|byte| letter(*byte));
    guarded.bytes().all(|byte| letters.next() == Some(byte))
}

/// Services that turn headers into variables cannot tell `_`, or any other sign, from `-`.
fn letter(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte
    } else {
        b'-'
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::parts_for_test as parts;

    fn left(names: &[&str], trusted: bool) -> Vec<String> {
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (*name, "x")).collect();
        let mut headers = parts(&headers).headers;
        let mut edits = Edits::default();
        strip(&headers, trusted, &mut edits);
        edits.apply(&mut headers);
        let mut left: Vec<String> = headers.keys().map(ToString::to_string).collect();
        left.sort();
        left
    }

    #[test]
    fn what_only_the_edge_may_say_is_taken_out_in_every_spelling() {
        let claims = [
            "X-Tidegate-User",
            "X-Tidegate-Anything",
            "X-Forwarded-User",
            "Remote-User",
            "X-WEBAUTH-USER",
            "X-Auth-Request-Email",
            "X-Remote-Extra-Scopes",
            "X-Forwarded-Access-Token",
            "X-Forwarded-Client-Cert",
            "X-SSL-Client-CN",
            "X-SSL-Client-Verify",
            "X-Client-Cert",
            "X-Client-Verify",
            "X-User",
            "X-Client-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
            "Proxy",
            "X-Original-URL",
            "X-Rewrite-URL",
            "Tailscale-User-Login",
            "X-Authentik-Username",
        ];
        for claim in claims {
            for spelled in [
                claim.to_owned(),
                claim.replace('-', "_"),
                claim.replacen('-', "_", 1),
                claim.replace('-', "."),
                claim.to_uppercase(),
            ] {
                for trusted in [true, false] {
                    assert!(left(&[&spelled], trusted).is_empty(), "{spelled} {trusted}");
                }
            }
        }
    }

    #[test]
    fn where_a_request_came_from_is_taken_from_trusted_proxies_in_its_one_spelling() {
        let claims = [
            "x-forwarded-for",
            "x-forwarded-port",
            "forwarded",
            "x-real-ip",
        ];
        for claim in claims {
            assert_eq!(left(&[claim], true), [claim]);
            assert!(left(&[claim], false).is_empty(), "{claim}");
        }
        for spelled in ["x_forwarded_for", "x-forwarded_port", "x_real.ip"] {
            assert!(left(&[spelled], true).is_empty(), "{spelled}");
        }
    }

    #[test]
    fn every_guarded_name_is_one_as_it_stands() {
        for name in NAMES {
            assert_eq!(guard(name.as_bytes()), Some(Guard::Edge), "{name}");
        }
        for family in FAMILIES {
            let name = format!("{family}x");
            assert_eq!(guard(name.as_bytes()), Some(Guard::Edge), "{name}");
        }
    }

    #[test]
    fn all_else_is_left_as_it_is() {
        let others = [
            "accept",
            "authorization",
            "cookie",
            "proxy-connection",
            "user-agent",
            "x-auth-token",
            "x-csrf_token",
            "x-requested-with",
            "x-user-agent",
            "xx-user",
        ];
        assert_eq!(left(&others, false), others);
    }
}
