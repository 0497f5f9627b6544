//! The rest of a file that the registry had handed over before, for a stream that gave it back.

use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderName, HeaderValue, StatusCode};
use oci::range::ByteRange;
use oci::{Reference, Route, handover};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::handed::Handed;
use super::{ended, handed_over, stays};
use crate::context::Context;
use crate::edge::EdgeProxy;
use crate::upstream::Socket;

/// What the registry calls the content of a reply.
pub(in crate::edge) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How to ask for it: as the client did, whose request is still there.
pub(super) struct Rest<'a> {
    pub(super) proxy: &'a EdgeProxy,
    pub(super) socket: &'a Socket,
    pub(super) session: &'a mut Session,
    pub(super) ctx: &'a mut Context,
    /// What the registry called the content that was begun to be sent.
    pub(super) digest: Option<&'a HeaderValue>,
}

impl Rest<'_> {
    /// Asks the registry for the file once more, of which `part` is wanted.
    pub(super) async fn open(&mut self, part: ByteRange) -> Result<Handed> {
        let (head, _) = self.proxy.head(self.session, self.ctx).await?;
        let head = self.only(head, part)?;
        loop {
            let (wire, kept) = self.proxy.wires.take(self.socket).await?;
            wire.ask_for_files(1);
            let mut client = wire.client(self.socket.read_timeout);
            let asked = async {
                client.write_request_header(Box::new(head.clone())).await?;
                client.read_response().await
            };
            let asked = asked.await.map_err(|error: Box<Error>| error.into_up());
            match asked {
                Ok(_) => {}
                // A kept connection can end the moment before it is used.
                Err(error) if kept && ended(&error) => continue,
                Err(error) => return Err(error),
            }
            let answer = client.resp_header().cloned().ok_or_else(gone)?;
            let file = answer.headers.get(handover::FILE);
            let file = file.map(|there| handed_over(there.to_str().ok(), &wire));
            let Some((file, there)) = file.transpose()? else {
                return Err(gone());
            };
            let is_whole = matches!(answer.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
            let is_same = answer.headers.get(DIGEST) == self.digest;
            if !is_whole || !is_same || there.first > part.first || there.last < part.last {
                return Err(gone());
            }
            if stays(&answer) {
                self.proxy.wires.keep(self.socket, wire);
            }
            return Ok(file);
        }
    }

    /// Makes a request one for `part` of the same content, whatever its conditions were.
    fn only(&self, mut head: RequestHeader, part: ByteRange) -> Result<RequestHeader> {
        head.remove_header(&IF_NONE_MATCH);
        head.remove_header(&IF_RANGE);
        head.insert_header(RANGE, format!("bytes={}-{}", part.first, part.last))?;
        if let Some(path) = by_digest(head.uri.path(), self.digest) {
            head.set_raw_path(path.as_bytes())?;
        }
        Ok(head)
    }
}

/// Names a manifest by the digest that it had, for by now its tag may name another.
fn by_digest(path: &str, digest: Option<&HeaderValue>) -> Option<String> {
    let Ok(Route::Manifest {
        repository,
        reference: Reference::Tag(_),
    }) = Route::parse(path)
    else {
        return None;
    };
    let digest = digest?.to_str().ok()?;
    Some(format!("/v2/{repository}/manifests/{digest}"))
}

/// Says that there is no more of it: it was deleted meanwhile.
fn gone() -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, "the rest of a body").into_up()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_asked_for_by_its_digest_and_all_else_as_before() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let value = HeaderValue::try_from(&digest).unwrap();
        let named = |path| by_digest(path, Some(&value));
        let there = format!("/v2/team/app/manifests/{digest}");
        assert_eq!(named("/v2/team/app/manifests/latest"), Some(there.clone()));
        assert_eq!(named(&there), None);
        assert_eq!(named(&format!("/v2/team/app/blobs/{digest}")), None);
        assert_eq!(by_digest("/v2/team/app/manifests/latest", None), None);
    }
}
