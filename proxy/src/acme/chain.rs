//! Which chain a certificate comes with, where the CA has more than one (RFC 8555, section 7.4.2).
//!
//! instant-acme fetches the chain that the CA prefers, and knows no others; our own client sees their
//! addresses in the reply. It asks there by a question of the kind that an order's state is asked
//! for by, which is signed alike: that what comes is no order is no matter, since the client keeps
//! every chain that it sees.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderMap, Uri};
use instant_acme::Account;
use openssl::nid::Nid;
use openssl::x509::X509;

use super::client::Client;
use crate::config::Authority;

const MEDIA_TYPE: &str = "application/pem-certificate-chain";

/// More than any CA has.
const ALTERNATES_MAX: usize = 8;

/// A chain as it came, and where there are others for the same certificate.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pem: Bytes,
    alternates: Vec<String>,
}

impl Chain {
    /// Reads a reply, if it is one with a chain.
    pub(super) fn of(url: &Uri, headers: &HeaderMap, body: &Bytes) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        kind.starts_with(MEDIA_TYPE).then(|| Self {
            pem: body.clone(),
            alternates: alternates(url, headers),
        })
    }

    /// Returns the name of who issued its last certificate: the root that it leads to.
    fn root(&self) -> Option<String> {
        let chain = X509::stack_from_pem(&self.pem).ok()?;
        let mut names = chain.last()?.issuer_name().entries_by_nid(Nid::COMMONNAME);
        names.next()?.data().to_string().ok()
    }
}

/// Returns the chain that the config prefers, or else `offered`, the CA's own choice.
pub(super) async fn choose(
    offered: String,
    authority: &Authority,
    account: &Account,
    client: &Client,
) -> String {
    let Some(preferred) = &authority.preferred_chain else {
        return offered;
    };
    let Some(first) = client.take_chain() else {
        return offered;
    };
    let mut roots: Vec<String> = first.root().into_iter().collect();
    if roots.contains(preferred) {
        return offered;
    }
    for url in first.alternates {
        // It is no order that comes; see above.
        drop(account.order(url).await);
        let Some(chain) = client.take_chain() else {
            continue;
        };
        let root = chain.root();
        if root.as_ref() == Some(preferred)
            && let Ok(pem) = std::str::from_utf8(&chain.pem)
        {
            return pem.to_owned();
        }
        roots.extend(root);
    }
    tracing::warn!(
        preferred,
        offered = roots.join(", "),
        directory = authority.directory,
        "the CA has no chain to the preferred root, its own choice is used"
    );
    offered
}

/// Returns where `Link` says that there are alternates (RFC 8288).
fn alternates(url: &Uri, headers: &HeaderMap) -> Vec<String> {
    let mut found = Vec::new();
    for value in headers.get_all(LINK) {
        let mut rest = value.to_str().unwrap_or_default();
        while let Some((target, after)) =
            rest.split_once('<').and_then(|(_, at)| at.split_once('>'))
        {
            let (parameters, next) = after.split_at(after.find('<').unwrap_or(after.len()));
            rest = next;
            let relation = |parameter: &str| {
                let (name, value) = parameter.split_once('=')?;
                let named = name.trim().eq_ignore_ascii_case("rel");
                named.then(|| value.trim().trim_matches('"').to_ascii_lowercase())
            };
            let mut parameters = parameters.split([';', ',']).filter_map(relation);
            if parameters.any(|relation| relation == "alternate") {
                found.extend(absolute(url, target));
            }
        }
    }
    found.truncate(ALTERNATES_MAX);
    found
}

fn absolute(url: &Uri, target: &str) -> Option<String> {
    if target.starts_with("https://") {
        return Some(target.to_owned());
    }
    let path = target.starts_with('/') && !target.starts_with("//");
    path.then(|| Some(format!("https://{}{target}", url.authority()?)))?
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn alternates_are_found_in_one_header_and_in_many() {
        let mut headers = HeaderMap::new();
        for value in [
            "<https://ca.test/dir>;rel=\"index\"",
            "<https://ca.test/c/1>;rel=\"alternate\", </c/2> ; title=\"x\"; rel=alternate",
            "<https://ca.test/c/3>; REL=\"alternate\"",
            "<//elsewhere.test/c/4>;rel=\"alternate\"",
            "<https://ca.test/c/5",
            "<>",
        ] {
            headers.append(LINK, HeaderValue::from_static(value));
        }
        let url = Uri::from_static("https://ca.test:14000/c/0");
        let expected = [
            "https://ca.test/c/1",
            "https://ca.test:14000/c/2",
            "https://ca.test/c/3",
        ];
        assert_eq!(alternates(&url, &headers), expected);
    }

    #[test]
    fn only_a_chain_is_taken_for_one() {
        let url = Uri::from_static("https://ca.test/c");
        let mut headers = HeaderMap::new();
        assert!(Chain::of(&url, &headers, &Bytes::new()).is_none());
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
        assert!(Chain::of(&url, &headers, &Bytes::new()).is_none());
        let chain = HeaderValue::from_static("application/pem-certificate-chain; charset=utf-8");
        headers.insert(CONTENT_TYPE, chain);
        let chain = Chain::of(&url, &headers, &Bytes::new()).unwrap();
        assert_eq!(chain.root(), None, "an empty one leads nowhere");
    }
}
