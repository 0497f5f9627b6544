//! Who the request is from, as the upstream is told: set from what was verified here. What a client
//! says of it has been stripped by `filter::guarded`.

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use oci::{Visibility, visibility};

use super::Principal;
use crate::filter::Edits;

/// Names the user to the registry.
const TIDEGATE_USER: HeaderName = HeaderName::from_static("x-tidegate-user");

/// Names the user to any upstream.
const FORWARDED_USER: HeaderName = HeaderName::from_static("x-forwarded-user");

/// Tells the registry which repositories it may list.
pub(crate) const CATALOG: HeaderName = HeaderName::from_static(visibility::HEADER);

/// What the site does with names and passwords.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Terms {
    /// The upstream is the registry, which trusts `X-Tidegate-User`.
    pub(crate) registry: bool,
    /// The password was for this edge, and so it goes no further.
    pub(crate) authenticated_here: bool,
}

/// Adds what a request must lose and gain before it goes upstream.
pub(crate) fn tell(principal: &Principal, terms: Terms, edits: &mut Edits) {
    if terms.registry || terms.authenticated_here {
        edits.remove(AUTHORIZATION);
    }
    // What was let in has been found in a file of checked names.
    if let Some(name) = principal.name()
        && let Ok(name) = HeaderValue::from_bytes(name.as_bytes())
    {
        if terms.registry {
            edits.set(TIDEGATE_USER, name.clone());
        }
        edits.set(FORWARDED_USER, name);
    }
}

/// Writes what may be listed.
pub(crate) fn catalog(visible: &Visibility) -> HeaderValue {
    // A pattern is made of what may stand in a header; were it not, nothing would be listed.
    let value = HeaderValue::try_from(visible.to_string());
    value.unwrap_or_else(|_never| HeaderValue::from_static("-**"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::request::Parts;

    use super::*;
    use crate::auth::{Origin, User};
    use crate::filter::{guarded, parts_for_test as parts};

    fn outcome(parts: &Parts, principal: &Principal, terms: Terms) -> Vec<String> {
        let mut edits = Edits::default();
        guarded::strip(&parts.headers, false, &mut edits);
        tell(principal, terms, &mut edits);
        let mut headers = parts.headers.clone();
        edits.apply(&mut headers);
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        lines.sort();
        lines
    }

    const CLAIMED: [(&str, &str); 13] = [
        ("X-Tidegate-User", "admin"),
        ("x_tidegate_user", "admin"),
        ("X-Tidegate-Anything", "1"),
        ("X-Forwarded-User", "admin"),
        ("Remote-User", "admin"),
        ("X-WEBAUTH-USER", "admin"),
        ("X_WEBAUTH_ROLE", "Admin"),
        ("X-Auth-Request-Email", "admin@a.test"),
        ("Remote_Groups", "admins"),
        ("X-Remote-Extra-Scopes", "all"),
        ("X-Forwarded-Access-Token", "t"),
        ("X_Forwarded_Preferred_Username", "admin"),
        ("Accept", "*/*"),
    ];

    #[test]
    fn what_a_client_claims_is_stripped_always() {
        for registry in [true, false] {
            let terms = Terms {
                registry,
                authenticated_here: false,
            };
            assert_eq!(
                outcome(&parts(&CLAIMED), &Principal::anonymous(), terms),
                ["accept: */*"]
            );
        }
    }

    #[test]
    fn what_was_verified_is_set() {
        let user = Principal::user(Arc::new(User::new("döcker", Origin::Password)));
        let terms = Terms {
            registry: true,
            authenticated_here: true,
        };
        assert_eq!(
            outcome(&parts(&CLAIMED), &user, terms),
            [
                "accept: */*",
                "x-forwarded-user: döcker",
                "x-tidegate-user: döcker"
            ]
        );
        let terms = Terms {
            registry: false,
            ..terms
        };
        assert_eq!(
            outcome(&parts(&CLAIMED), &user, terms),
            ["accept: */*", "x-forwarded-user: döcker"]
        );
    }

    #[test]
    fn a_password_goes_no_further_than_where_it_is_checked() {
        let request = parts(&[("Authorization", "Basic eDp5")]);
        for (registry, authenticated_here, kept) in [
            (true, true, false),
            (true, false, false),
            (false, true, false),
            (false, false, true),
        ] {
            let terms = Terms {
                registry,
                authenticated_here,
            };
            let left = outcome(&request, &Principal::anonymous(), terms);
            assert_eq!(!left.is_empty(), kept, "{terms:?}");
        }
    }
}
