//! Clients that speak plain HTTP where TLS is spoken: they are told so, in a way that they understand.
//!
//! A browser is sent to the same page over TLS. Whoever else comes this way has been given the wrong
//! URL, or is a client that tries plain HTTP when TLS has not worked; it gets an error that says what to
//! do. Nothing it has sent is looked at beyond that.

use std::net::SocketAddr;
use std::time::Instant;

use http::header::{ACCEPT, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::socket::Socket;
use crate::filter::host::Host;
use crate::respond::{Audience, Rejection, Reply, protocol};
use crate::telemetry::access_log::Entry;

/// What the access log says of it.
const BECAUSE: &str = "plain HTTP on a port for HTTPS";

/// Returns whether a connection that begins with this byte is one of HTTP: with the first letter of a
/// method. A record of TLS begins with its type, a handshake's with 22.
pub(super) fn begins_with(first: u8) -> bool {
    first.is_ascii_uppercase()
}

/// Answers one request, and ends the connection.
pub(super) async fn answer(socket: Socket, client: SocketAddr) {
    let started = Instant::now();
    let mut session = ServerSession::new_http1(Box::new(socket));
    if !session.read_request().await.unwrap_or_default() {
        return;
    }
    session.set_keepalive(None);
    let reply = reply(session.req_header());
    let (status, len) = (reply.status.as_u16(), reply.body.len());
    // Who does not wait for it is not waited for either.
    let sent = send(&mut session, reply).await.is_ok();
    let head = session.req_header();
    Entry {
        client: Some(client.ip().to_canonical()),
        site: None,
        principal: None,
        admitted: false,
        protocol: protocol(head.version),
        method: head.method.as_str(),
        path: head.uri.path(),
        status: if sent { status } else { 499 },
        bytes_in: 0,
        bytes_out: if sent { len } else { 0 },
        duration: started.elapsed(),
        upstream: None,
        because: Some(BECAUSE),
        fault: None,
        error: None,
        request_id: "",
    }
    .emit();
}

/// Decides what a request is answered.
fn reply(parts: &Parts) -> Reply {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if parts.method == Method::GET
        && is_browser(&parts.headers)
        && path.starts_with('/')
        && let Ok(host) = Host::of(parts)
        && let Ok(there) = HeaderValue::try_from(format!("https://{}{path}", host.authority()))
    {
        return Reply::redirect(there);
    }
    let audience = match parts.uri.path().starts_with("/v2") {
        true => Audience::RegistryClient,
        false => Audience::Anyone,
    };
    Rejection::NeedsTls.reply(audience)
}

/// Returns whether whoever asks would like a page to show, which no client of a registry does.
fn is_browser(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("text/html"))
}

async fn send(session: &mut ServerSession, reply: Reply) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(reply.status, Some(reply.headers.len() + 1))?;
    for (name, value) in reply.headers {
        header.append_header(name, value)?;
    }
    header.set_content_length(reply.body.len())?;
    session.write_response_header(Box::new(header)).await?;
    if !reply.body.is_empty() && session.req_header().method != Method::HEAD {
        session.write_response_body(reply.body, true).await?;
    }
    session.finish_body().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        reply(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_browser_is_sent_to_the_same_page_and_others_are_told() {
        let (html, host) = (("accept", "text/html,*/*"), ("host", "r.test:8443"));
        let sent = ask("GET", "/a?b=c", &[html, host]);
        assert_eq!(sent.status, 308);
        assert_eq!(sent.headers[0].1, "https://r.test:8443/a?b=c");
        for (method, path, headers) in [
            ("GET", "/v2/", &[host][..]),
            ("GET", "/", &[host, ("accept", "*/*")]),
            ("POST", "/", &[host, html]),
            ("GET", "/", &[html]),
            ("GET", "/", &[html, ("host", "a@b")]),
        ] {
            let told = ask(method, path, headers);
            assert_eq!(told.status, 400, "{method} {path}");
            let body = String::from_utf8_lossy(&told.body).into_owned();
            assert!(body.contains("https://"), "{body}");
            assert_eq!(body.starts_with('{'), path == "/v2/", "{body}");
        }
    }

    #[test]
    fn what_begins_with_a_method_is_http() {
        assert!(b"GPHDOT".iter().all(|first| begins_with(*first)));
        assert!(![22, 0x80, 0, b'g', b' '].into_iter().any(begins_with));
    }
}
