//! Fetching keys of another server's tokens: a GET over TLS, in the background and bounded.
//!
//! It goes out through Pingora's own connector, which is here already: one GET in five minutes is no
//! reason for another HTTP client.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use bytes::BytesMut;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{StatusCode, Uri};
use openssl::error::ErrorStack;
use openssl::x509::X509;
use pingora::connectors::http::v1::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::auth::token::issuer::{Fetched, Source, TrustError};
use crate::sentence::sentence;

/// For all of it, name lookup included.
const PATIENCE: Duration = Duration::from_secs(10);

/// A key set with a hundred keys is shorter.
const BODY_BYTES_MAX: usize = 256 << 10;

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the certificates to trust: {0}")]
    Certificates(#[from] ErrorStack),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the name has no address")]
    NoAddress,
    #[error("{}", sentence(.0, None))]
    Pingora(#[from] Box<pingora::Error>),
    #[error("no answer within {PATIENCE:?}")]
    Slow,
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the answer is longer than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the answer {0}")]
    Trust(#[from] TrustError),
    #[error("is not a valid URL")]
    Url,
}

/// Fetches keys once; what they were before stays when it fails.
pub(crate) async fn refresh(fetched: Arc<Fetched>) {
    let source = &fetched.source;
    let got = timeout(PATIENCE, get(source)).await;
    let got = got.unwrap_or(Err(FetchError::Slow)).and_then(|text| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(fetched.take(&text, now.unwrap_or_default().as_secs())?)
    });
    match got {
        Ok(()) => tracing::debug!(url = source.url, "fetched the keys of tokens"),
        Err(error) => {
            tracing::error!(url = source.url, %error, "the keys of tokens stay as they were");
        }
    }
}

async fn get(source: &Source) -> Result<BytesMut, FetchError> {
    let uri: Uri = source.url.parse().map_err(|_malformed| FetchError::Url)?;
    let host = uri.host().ok_or(FetchError::Url)?;
    let bare = host.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(443);
    let address = lookup_host((bare, port)).await?.next();
    let address = address.ok_or(FetchError::NoAddress)?;
    let mut peer = HttpPeer::new(address, true, bare.to_owned());
    peer.options.connection_timeout = Some(PATIENCE);
    peer.options.read_timeout = Some(PATIENCE);
    if let Some(file) = source.ca_file() {
        peer.options.ca = Some(Arc::new(certificates(file)?.into_boxed_slice()));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(3))?;
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    request.insert_header(HOST, authority)?;
    request.insert_header(ACCEPT, "application/json, application/jwk-set+json")?;
    request.insert_header(USER_AGENT, "tidegate")?;
    let (mut session, _reused) = Connector::new(None).get_http_session(&peer).await?;
    session.write_request_header(Box::new(request)).await?;
    session.read_response().await?;
    let status = session.resp_header().map(|response| response.status);
    let status = status.unwrap_or(StatusCode::BAD_GATEWAY);
    if status != StatusCode::OK {
        return Err(FetchError::Status(status));
    }
    let mut body = BytesMut::new();
    while let Some(piece) = session.read_body_bytes().await? {
        body.extend_from_slice(&piece);
        if body.len() > BODY_BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
    }
    session.shutdown().await;
    Ok(body)
}

fn certificates(file: &Path) -> Result<Vec<X509>, FetchError> {
    // A small file on a disk of this machine.
    let pem = fs::read(file)?;
    Ok(X509::stack_from_pem(&pem)?)
}
