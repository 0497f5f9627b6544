//! The way to a CA: HTTPS through Pingora's own connector, which is here already.
//!
//! An order is a handful of requests, seconds apart and once in weeks: each has a connection of its
//! own, so that none meets one that the CA has closed meanwhile.

use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use openssl::error::ErrorStack;
use openssl::x509::X509;
use pingora::connectors::http::v1::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::chain::Chain;
use crate::sentence::sentence;

/// A CA that takes longer is as good as one that is down.
const PATIENCE: Duration = Duration::from_secs(60);

/// A chain of certificates takes a few kilobytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The port of a URL that names none.
const HTTPS: u16 = 443;

/// Sends requests to a CA.
#[derive(Clone)]
pub(super) struct Client {
    /// The roots to trust; those of the system alone where this is absent.
    roots: Option<Arc<Box<[X509]>>>,
    patience: Arc<Mutex<Option<SystemTime>>>,
    /// The last chain of certificates that came.
    chain: Arc<Mutex<Option<Chain>>>,
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{}: holds no certificate in PEM form", .0.display())]
    Empty(PathBuf),
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tls(#[from] ErrorStack),
}

/// Why a request got no reply.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Body(#[from] Infallible),
    #[error("look up {host}: {source}")]
    Lookup { host: String, source: io::Error },
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("{}", sentence(source, Some(peer)))]
    Pingora {
        peer: String,
        source: Box<pingora::Error>,
    },
    #[error("the reply is longer than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the URL is not of the form https://host/path")]
    Url,
}

impl Client {
    /// Trusts the system's roots, and those in `root_file` beside them.
    pub(super) fn new(root_file: Option<&Path>) -> Result<Self, Unusable> {
        let roots = root_file.map(|path| {
            let pem = fs::read(path).map_err(|source| Unusable::Read {
                path: path.to_owned(),
                source,
            })?;
            let mut roots = X509::stack_from_pem(&pem)?;
            if roots.is_empty() {
                return Err(Unusable::Empty(path.to_owned()));
            }
            roots.extend(roots_of_the_system());
            Ok(Arc::new(roots.into_boxed_slice()))
        });
        Ok(Self {
            roots: roots.transpose()?,
            patience: Arc::default(),
            chain: Arc::default(),
        })
    }

    /// Returns until when the CA asked to be left alone in its last refusal, if it did.
    pub(super) fn asked_to_wait_until(&self) -> Option<SystemTime> {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the last chain of certificates that came, once.
    pub(super) fn take_chain(&self) -> Option<Chain> {
        self.noted_chain().take()
    }

    fn noted_chain(&self) -> MutexGuard<'_, Option<Chain>> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Unanswered> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let url = parts.uri;
        let authority = url.authority().ok_or(Unanswered::Url)?.as_str();
        let host = url.host().ok_or(Unanswered::Url)?.trim_matches(['[', ']']);
        if url.scheme_str() != Some("https") {
            return Err(Unanswered::Url);
        }
        let failed = |source| Unanswered::Pingora {
            peer: authority.to_owned(),
            source,
        };
        let mut peer = self.peer(host, url.port_u16().unwrap_or(HTTPS)).await?;
        peer.options.ca = self.roots.clone();
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let mut head =
            RequestHeader::build(parts.method, path.as_bytes(), Some(5)).map_err(failed)?;
        head.insert_header(HOST, authority).map_err(failed)?;
        for name in [USER_AGENT, CONTENT_TYPE] {
            if let Some(value) = parts.headers.get(&name) {
                head.insert_header(name, value).map_err(failed)?;
            }
        }
        if !body.is_empty() {
            head.insert_header(CONTENT_LENGTH, body.len())
                .map_err(failed)?;
        }
        let connected = Connector::new(None).get_http_session(&peer).await;
        let (mut session, _reused) = connected.map_err(failed)?;
        let sent = session.write_request_header(Box::new(head)).await;
        sent.map_err(failed)?;
        if !body.is_empty() {
            session.write_body(&body).await.map_err(failed)?;
        }
        session.finish_body().await.map_err(failed)?;
        session.read_response().await.map_err(failed)?;
        let mut received = BytesMut::new();
        while let Some(piece) = session.read_body_bytes().await.map_err(failed)? {
            received.extend_from_slice(&piece);
            if received.len() > BODY_BYTES_MAX {
                return Err(Unanswered::TooLarge);
            }
        }
        let mut response = http::Response::new(());
        if let Some(head) = session.resp_header() {
            *response.status_mut() = head.status;
            *response.headers_mut() = head.headers.clone();
        }
        session.shutdown().await;
        let (parts, ()) = response.into_parts();
        let refused = parts.status.is_client_error() || parts.status.is_server_error();
        let asked = parts.headers.get(RETRY_AFTER).filter(|_| refused);
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner) = asked.and_then(until);
        let body = received.freeze();
        if parts.status.is_success()
            && let Some(chain) = Chain::of(&url, &parts.headers, &body)
        {
            *self.noted_chain() = Some(chain);
        }
        Ok(BytesResponse {
            parts,
            body: Box::new(body),
        })
    }

    async fn peer(&self, host: &str, port: u16) -> Result<HttpPeer, Unanswered> {
        let found = lookup_host((host, port)).await;
        let mut addresses = found.map_err(|source| Unanswered::Lookup {
            host: host.to_owned(),
            source,
        })?;
        let address = addresses.next();
        let address = address.ok_or_else(|| Unanswered::NoAddress(host.to_owned()))?;
        let mut peer = HttpPeer::new(address, true, host.to_owned());
        peer.options.connection_timeout = Some(PATIENCE);
        peer.options.read_timeout = Some(PATIENCE);
        peer.options.write_timeout = Some(PATIENCE);
        Ok(peer)
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let sending = self.clone().send(request);
        Box::pin(async move {
            match timeout(PATIENCE, sending).await {
                Ok(sent) => sent.map_err(|error| Error::Other(Box::new(error))),
                Err(_late) => Err(Error::Other("it did not answer within a minute".into())),
            }
        })
    }
}

/// Returns whom this machine trusts: what OpenSSL finds by itself as long as it is given nothing.
fn roots_of_the_system() -> Vec<X509> {
    let found = openssl_probe::probe();
    let bundle = found.cert_file.and_then(|file| fs::read(file).ok());
    if let Some(roots) = bundle.and_then(|pem| X509::stack_from_pem(&pem).ok()) {
        return roots;
    }
    let entries = found.cert_dir.and_then(|folder| fs::read_dir(folder).ok());
    let paths = entries.into_iter().flatten().flatten();
    paths
        .map(|entry| entry.path())
        // A link that is named after the subject's hash: the way that OpenSSL goes.
        .filter(|path| path.extension().is_some_and(|number| number == "0"))
        .filter_map(|path| X509::from_pem(&fs::read(path).ok()?).ok())
        .collect()
}

/// Reads `Retry-After` (RFC 9110, section 10.2.3).
fn until(value: &HeaderValue) -> Option<SystemTime> {
    let value = value.to_str().ok()?.trim();
    match value.parse() {
        Ok(secs) => SystemTime::now().checked_add(Duration::from_secs(secs)),
        Err(_) => httpdate::parse_http_date(value).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_to_wait_is_read_in_seconds_and_as_a_date() {
        let now = SystemTime::now();
        let soon = until(&HeaderValue::from_static("120")).unwrap();
        let wait = soon.duration_since(now).unwrap();
        assert!((120..122).contains(&wait.as_secs()), "{wait:?}");
        let date = until(&HeaderValue::from_static("Fri, 31 Dec 1999 23:59:59 GMT")).unwrap();
        assert!(date < now);
        assert_eq!(until(&HeaderValue::from_static("soon")), None);
    }

    #[test]
    fn a_root_file_that_cannot_be_read_is_named() {
        let error = Client::new(Some(Path::new("/none/root.pem")))
            .err()
            .unwrap();
        assert!(error.to_string().starts_with("/none/root.pem: "), "{error}");
    }
}
